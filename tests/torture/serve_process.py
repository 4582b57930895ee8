"""`kedro serve` as a process of its own on a small collection, its log, and its memory."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmnet_pipeline.types import CollectionPlaces

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "serving"), str(ROOT / "benchmarks")]
READY_S = 180.0
END_S = 60.0


def make_project(folder: Path) -> None:
    """A Kedro project without code of its own: it runs that of this checkout."""
    (folder / "src").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    (folder / "conf" / "local").mkdir()


def make_collection(folder: Path, count: int = 6) -> CollectionPlaces:
    """A project in `folder` with a collection whose manifest is where `kedro serve` looks for it."""
    from serving_collection import build_collection

    from vmnet_pipeline.ingestion.ids import name_collection

    make_project(folder)
    places = build_collection(folder / "collection", count)
    name = name_collection(str(places.media_roots[0]), "")
    (folder / "data/02_intermediate" / name).mkdir(parents=True)
    shutil.copy(places.manifest, folder / "data/02_intermediate" / name / "manifest.parquet")
    return places


def find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServeProcess:
    """A running `kedro serve`; ended when the block ends."""

    def __init__(
        self, folder: Path, places: CollectionPlaces, *, port: int, key: str = "", settings: Sequence[str] = ()
    ) -> None:
        """Name what is served; `folder` is what `make_collection` was given."""
        self.port, self.log, self.temporary = port, folder / "serve.log", folder / "tmp"
        self._folder, self._key = folder, key
        self._command = [
            sys.executable,
            "-m",
            "kedro",
            "serve",
            "--port",
            str(port),
            "--media-dir",
            str(places.media_roots[0]),
        ]
        self._command += [
            "--index-dir",
            str(places.output),
            "--checkpoint",
            str(places.checkpoint),
            "--weights-dir",
            str(places.weights_dir),
        ]
        self._command += [word for setting in settings for word in ("--set", setting)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ServeProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)

    def start(self, wait_for: str = "/readyz") -> None:
        """Start and wait until the networks are loaded; with `/healthz` only until it answers."""
        self.temporary.mkdir(parents=True, exist_ok=True)
        own = {"VMNET_API_KEY": self._key} if self._key else {}
        own |= {"TMPDIR": str(self.temporary), "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}
        paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, **own, "PYTHONPATH": paths}
        if not self._key:
            environment.pop("VMNET_API_KEY", None)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{wait_for}", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"the service does not get ready: {self.log.read_text(errors='replace')[-2000:]}")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end, and wait; its exit code, -9 for one that does not end by itself."""
        assert self._process is not None
        self._process.send_signal(number)
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def count_overloaded(self) -> int:
        """Connections that were refused because there were too many, as the service counts them."""
        address, headers = f"http://127.0.0.1:{self.port}/metrics", {"X-API-Key": self._key}
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as answer:
            text = answer.read().decode()
        found = re.search(r'^vmnet_refused_total\{code="overloaded"\} (\S+)$', text, re.MULTILINE)
        return int(float(found[1])) if found else 0

    def read_memory(self) -> tuple[float, float]:
        """Resident memory in MB: of the service, and of all processes below it."""
        assert self._process is not None
        pids, below = [self._process.pid], []
        while pids:
            pid = pids.pop()
            below.append(pid)
            for thread in Path(f"/proc/{pid}/task").glob("*/children"):
                pids += [int(child) for child in thread.read_text(encoding="ascii").split()]
        sizes = [_read_resident(pid) for pid in below]
        return sizes[0], sum(sizes[1:])


def _read_resident(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
