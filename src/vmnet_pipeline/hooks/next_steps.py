"""Say what to do next, as the last line of a run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.tracking.stages import describe_command

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_OWN_FILES = ("pairs_dir", "train_data_dir", "train_csv_path", "test_data_dir", "test_csv_path")
_OPTIONS = {
    "media_dir": "--media-dir", "library": "--media-dir", "collection": "--collection", "variant": "--variant",
    "checkpoint": "--checkpoint",
}  # fmt: skip
_PLACES = (*_OPTIONS, "data_root", "weights", "weights_dir", "summaries_dir", *_OWN_FILES)


def find_next(outputs: Iterable[str], run_params: Mapping[str, Any]) -> str:
    """The command that follows a run, with the places of that run; empty where none follows.

    Args:
        outputs: Datasets that the run made.
        run_params: What Kedro passes to hooks about the run.

    Example:
        >>> find_next(["vmnet_musicnn.evaluation"], {"runtime_params": {"media_dir": "clips", "seed": 3}})
        'kedro run --pipelines=embed,index --params=media_dir=clips   (then kedro serve, to see and hear answers)'
    """
    given = {name: value for name, value in (run_params.get("runtime_params") or {}).items() if name in _PLACES}
    made = {name.rpartition(".")[2] for name in outputs}

    def run(*pipelines: str) -> str:
        parts = {"pipeline_names": pipelines, "env": run_params.get("env"), "runtime_params": given}
        return describe_command(parts)

    if made & {"music_index", "video_index"}:
        return _show_index(given)
    if made & {"music_embeddings", "video_embeddings"}:
        return run("index")
    if "tuning" in made:
        return "train with the best settings: the second line of that file is the command"
    if "comparison" in made:
        return f"{run('evaluate')}   (the report shows the comparison)"
    if "evaluation" in made and given.keys() & {*_OWN_FILES}:
        return f"{run('compare')}   (other methods on the same pairs)"
    if "evaluation" in made:
        return f"{run('embed', 'index')}   (then kedro serve, to see and hear answers)"
    if "checkpoint" in made:
        return run("evaluate")
    return run() if made & {"manifest", "features", "split_summary"} else ""


def _show_index(given: Mapping[str, Any]) -> str:
    if "data_root" in given:  # `serve` then needs the folder of every part
        return "kedro serve --index-dir FOLDER"
    options = "".join(f" {_OPTIONS[name]} {shlex.quote(str(given[name]))}" for name in _OPTIONS if name in given)
    return f"kedro serve{options}   (or kedro recommend{options} VIDEO)"
