"""Runs of the toy backend, in this process and as processes of their own, and what they leave behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from toy_backend import ToyBackend, make_items

from vmnet_pipeline.extraction.driver import extract_missing
from vmnet_pipeline.extraction.planning import find_unfinished
from vmnet_pipeline.features.store import FeatureStore
from vmnet_pipeline.params import ExtractParams
from vmnet_pipeline.types import MediaItem

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1] / "src"), str(HERE)])}


class Bench:
    """A media folder of orders and a store."""

    def __init__(self, folder: Path):
        self.media, self.folder = folder / "media", folder / "store"
        self.items: list[MediaItem] = []
        self.started: list[subprocess.Popen[str]] = []
        self._elder = set(find_children(os.getpid()))  # other tests may have left decoder children

    def fill(self, *orders: str) -> None:
        self.items = make_items(self.media, list(orders))

    def extract(self, backend: ToyBackend | None = None, **settings):
        """All rows of a run in this process."""
        missing = find_unfinished(self.items, FeatureStore(self.folder))
        params = ExtractParams.model_validate(settings)
        return list(extract_missing(backend or ToyBackend(), missing, FeatureStore(self.folder), params))

    def start(self, **settings) -> subprocess.Popen[str]:
        """A run in a process group of its own."""
        command = [sys.executable, str(HERE / "run_toy.py"), str(self.media), str(self.folder), json.dumps(settings)]
        process = start_process(command)
        self.started.append(process)
        return process

    def workers(self) -> list[int]:
        """Child processes of this process that the runs of this bench started."""
        return [child for child in find_children(os.getpid()) if child not in self._elder]

    def close(self) -> None:
        for process in self.started:
            end_group(process)

    def status(self) -> dict[str, str]:
        return {row.id: row.reason or row.status for row in FeatureStore(self.folder).rows.values()}

    def count_lines(self) -> Counter[str]:
        """How often each item stands in the index as it was written, or put together by a later run."""
        ids: Counter[str] = Counter()
        if (compacted := self.folder / "_index" / "rows.parquet").exists():
            ids.update(pq.read_table(compacted, columns=["id"])["id"].to_pylist())
        for path in (self.folder / "_index").glob("rows-*.jsonl"):
            ids.update(json.loads(line)["id"] for line in path.read_text().splitlines(True) if line.endswith("\n"))
        return ids

    @contextmanager
    def when_done(self, n_items: int, act: Callable[[], object]) -> Iterator[None]:
        """Act once, from a thread, as soon as so many items are in the index."""
        acted, ended = threading.Event(), threading.Event()

        def watch() -> None:
            while not ended.wait(0.005):
                if sum(self.count_lines().values()) >= n_items:
                    act()
                    acted.set()
                    return

        watcher = threading.Thread(daemon=True, target=watch)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
        assert acted.is_set()

    def check_all_done_once(self) -> None:
        assert self.status() == {item.id: "done" for item in self.items}
        assert set(self.count_lines().values()) == {1}
        for item in self.items:
            value = float(Path(item.path).read_text()) ** 2
            assert (np.load(self.folder / f"{item.id}.npy") == value).all()

    def written_at(self) -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in self.folder.glob("*.npy")}


def start_process(command: list[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
    )


def read_lines(process: subprocess.Popen[str], n_lines: int) -> list[str]:
    assert process.stdout is not None
    lines = [process.stdout.readline().strip() for _ in range(n_lines)]
    assert all(lines), process.communicate()[1][-3000:]
    return lines


def end_group(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def find_children(pid: int) -> list[int]:
    """Child processes of a process."""
    children = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        children += [int(child) for child in (task / "children").read_text().split()]
    return [child for child in children if b"run_child" in read_command(child)]


def read_command(pid: int) -> bytes:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
