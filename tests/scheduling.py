"""Which worker of pytest-xdist runs what: one worker prepares what is costly, and long work begins first."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

# Files that use one costly fixture of the session, the longest first. A file that is in no group is a group of its own.
GROUPS = {
    "demo project": (
        "tests/e2e/test_run.py",
        "tests/e2e/test_recommend.py",
        "tests/docs/test_code_blocks.py",
        "tests/notebooks/test_notebooks.py",
    ),
    "service": ("tests/serving/",),
    "reference checkpoints": (
        "tests/e2e/test_reference.py",
        "tests/reference/test_reference_checkpoint.py",
        "tests/inference/test_embedder.py",
    ),
    "bucket": ("tests/e2e/test_s3.py", "tests/e2e/test_s3_cluster.py"),
}
FIRST = ("tests/e2e/", "tests/compat/", "tests/packaging/", "tests/storage/test_all_survive_kills.py", "tests/torture/")


def name_group(nodeid: str) -> str:
    path = nodeid.split("::")[0]
    return next((name for name, places in GROUPS.items() if path.startswith(places)), path)


def rank(group: str) -> int:
    """Position of a group: 0 starts first."""
    if group in GROUPS:
        return list(GROUPS).index(group)
    return len(GROUPS) + (not group.startswith(FIRST))


class GroupScheduling(LoadScopeScheduling):
    """A group to a worker, then the next group to whichever is done; the collection has them in their order."""

    def __init__(self, config, log=None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # by the number of tests: files of a few long ones would come last

    def _split_scope(self, nodeid: str) -> str:
        return name_group(nodeid)
