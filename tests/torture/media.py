"""Hostile media: every file ends as a feature or as a row with a reason, whatever its decoder does."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import stat
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

from media_corpus import make_corpus, make_names
from row import Row

HERE = Path(__file__).parent
RUN_LIMIT_S = 1_800
N_EACH = {"short": 40, "long": 200}
# Ends that must not be: an error that nobody foresaw, a row without a reason, an item without a row.
BAD_ENDS = frozenset({"internal_error", "no reason", "lost"})
_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2


def run(folder: Path, *, long: bool, seeds: int | None) -> list[Row]:
    """One row per kind of case; `seeds` is how many collections of content are made, 1 by default."""
    rows: list[Row] = []
    for seed in range(seeds or 1):
        own = folder / f"seed{seed}"
        expected = make_collections(own, N_EACH["long" if long else "short"], seed)
        rows += [*judge(expected, *run_apart(own)), look_for_warning(own)]
        open_folders(own)
    return merge(rows)


def make_collections(folder: Path, n_each: int, seed: int) -> dict[tuple[str, str], str]:
    """Both collections; the kind of case by collection and id, or path."""
    folder.mkdir(parents=True)
    corpus = make_corpus(folder / "listed", n_each=n_each, seed=seed)
    film = (corpus.folder / "good" / "film.mp4").read_bytes()
    names = make_names(folder / "named", film)
    expected = {("listed", item_id): kind for item_id, kind, _, _ in corpus.rows}
    spelt = {name.decode("utf-8", "backslashreplace"): kind for name, kind in names.items()}
    return expected | {("named", str(folder / "named" / name)): kind for name, kind in spelt.items()}


def run_apart(folder: Path) -> tuple[list[list[str]], str]:
    """Ingest and extract in a process of its own: what became of each item, and what is wrong with the run itself."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(HERE / "media_run.py"), str(folder)]
    with (folder / "output.txt").open("wb") as output:
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                timeout=RUN_LIMIT_S,
                preexec_fn=obey_permissions,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return [], f"the run hung for {RUN_LIMIT_S} s"
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"largest process {peak_mb:.0f} MB", flush=True)
    if done.returncode:
        last = (folder / "output.txt").read_text(errors="replace")[-2_000:]
        return [], f"the run crashed with code {done.returncode}: {last}"
    return json.loads((folder / "outcomes.json").read_text()), ""


def obey_permissions() -> None:
    """Take from root the right to read what is closed, so that permissions count for it as for anybody."""
    libc = ctypes.CDLL(None)
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def judge(expected: dict[tuple[str, str], str], outcomes: list[list[str]], trouble: str) -> list[Row]:
    """Compare what became of the items with what was there."""
    ends: dict[tuple[str, str], list[str]] = defaultdict(list)
    for collection, item_id, path, end in outcomes:
        ends[collection, item_id if collection == "listed" else path].append(end)
    rows = [Row("the run itself", 1, {} if trouble else {"finished": 1}, [trouble] if trouble else [])]
    for place, kind in expected.items() if not trouble else ():
        found = ends.pop(place, ["lost"])
        text = f"{place[1]!r}: {', '.join(found)}"
        bad = len(found) > 1 or found[0] in BAD_ENDS
        rows.append(Row(kind, 1, {} if bad else {found[0]: 1}, [text] if bad else []))
    rows += [Row("what nobody put there", 1, {}, [f"{place[1]!r}: {found}"]) for place, found in ends.items()]
    return rows


def look_for_warning(folder: Path) -> Row:
    """What lies in a closed folder cannot be known; that there is one must be said."""
    log, closed = (folder / "log.txt").read_text(errors="replace"), str(folder / "named" / "closed")
    if f"{closed!r} cannot be read" in log:
        return Row("closed folder", 1, {"warning": 1})
    return Row("closed folder", 1, {}, [f"nothing in the log tells of {closed}"])


def merge(rows: list[Row]) -> list[Row]:
    """One row per kind."""
    by_kind: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_kind[row.what].append(row)
    return [
        Row(
            kind,
            sum(row.tried for row in same),
            dict(sum((Counter(row.ended) for row in same), Counter())),
            [text for row in same for text in row.failures],
        )
        for kind, same in by_kind.items()
    ]


def open_folders(folder: Path) -> None:
    """Let folders that were closed be deleted."""
    for root, folders, _ in os.walk(folder):
        for name in folders:
            path = Path(root) / name
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | stat.S_IRWXU)
