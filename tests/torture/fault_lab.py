"""Where the fault runner works: a tiny collection, projects, and `kedro` commands in process groups of their own."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
N_PAIRS = 10
SETTINGS = {
    "collection": "c",
    "weights": "random",
    "variant": "vmnet_musicnn",
    "train.protocol": "default",
    "train.epochs": 6,
    "train.n_threads": 1,
    "train.state_interval_s": 0,  # a state after every epoch
    "train.model.music_tower": "sequence",
    "train.model.video_tower": "musicnn",
    "train.model.embedding_dim": 16,
}
STAGES = {
    "ingest": "ingest",
    "extract": "extract_musicnn,extract_efficientnet",
    "train": "split,train",
    "evaluate": "evaluate",
    "embed": "embed",
    "index": "index",
}
"""Stage to the pipelines of its command; each needs those before it."""

WHOLE = "whole"
PIPELINES = {**STAGES, WHOLE: "__default__,embed,index"}
LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What the library of fault_shim.c is told: strike the operation `at` below the project's `below`."""

    at: int
    error: int = 0
    jump_s: int = 0
    below: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a command ended: its exit code, negative for a signal, what it printed, and operations on files."""

    code: int
    seconds: float
    output: str
    n_operations: int


class Lab:
    """Makes projects and runs commands in them. A context manager, so that nothing outlives it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.media, self.weights = folder / "media", folder / "weights"
        self._library = folder / "fault_shim.so"
        self._server: subprocess.Popen[str] | None = None
        self._pids: set[int] = set()

    def __enter__(self) -> Lab:
        from vmnet_pipeline.demo import DemoSpec, make_demo_collection

        self.folder.mkdir(parents=True, exist_ok=True)
        make_demo_collection(self.media, DemoSpec(n_pairs=N_PAIRS, min_duration_s=1.0, max_duration_s=2.0), n_workers=1)
        self._build_library()
        self._start_server()
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        if self._server is not None:
            self._server.communicate()

    @property
    def can_strike(self) -> bool:
        """Whether single operations can be struck: there is a compiler for the library that does it."""
        return self._library.exists()

    def _build_library(self) -> None:
        compiler = shutil.which("cc")
        if compiler and sys.platform == "linux":
            source = Path(__file__).with_name("fault_shim.c")
            subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", self._library, source, "-ldl"], check=True)

    def environment(self) -> dict[str, str]:
        """That of every command: quiet, and with as few threads as can be."""
        quiet = {"DO_NOT_TRACK": "1", "COLUMNS": "200", "TF_CPP_MIN_LOG_LEVEL": "3", "GIT_CEILING_DIRECTORIES": "/"}
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
        return {**os.environ, **quiet, **threads}

    def _start_server(self) -> None:
        preload = {"LD_PRELOAD": str(self._library)} if self.can_strike else {}
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fault_server.py"))],
            env={**self.environment(), **preload},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._hear()

    def _hear(self) -> dict[str, int | None]:
        assert self._server is not None
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError("fault_server.py ended; run it by hand to see why")
        return dict(json.loads(line))

    def _ask(self, **request: object) -> int | None:
        assert self._server is not None
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        (value,) = self._hear().values()
        return value

    # --- projects

    def make_project(self, name: str, like: Path | None = None) -> Path:
        """An empty project, or one with the content of another at the same place as every other: paths are stored."""
        project = self.folder / name
        shutil.rmtree(project, ignore_errors=True)
        if like is not None:
            shutil.copytree(like, project)
            return project
        (project / "src").mkdir(parents=True)  # the package is that of this checkout
        for file in ("pyproject.toml", ".telemetry"):
            shutil.copy(ROOT / file, project / file)
        shutil.copytree(ROOT / "conf", project / "conf", ignore=shutil.ignore_patterns("local"))
        (project / "conf" / "local").mkdir()
        return project

    # --- commands

    def start(
        self, project: Path, stage: str, *, n_workers: int = 1, fault: Fault | None = None, tracks: bool = True
    ) -> Run:
        """Start a command.

        Args:
            project: Where.
            stage: One of `PIPELINES`.
            n_workers: More than 1 gives extraction so many processes.
            fault: What is to go wrong.
            tracks: Whether MLflow takes part.
        """
        settings = SETTINGS | {"media_dir": self.media, "weights_dir": self.weights, "extract.n_workers": n_workers}
        if n_workers > 1:
            settings["extract.executor.kind"] = "processes"
        params = ",".join(f"{name}={value}" for name, value in settings.items())
        arguments = ["run", "--pipelines", PIPELINES[stage], "--params", params]
        log = self.folder / f"{project.name}.{time.monotonic_ns()}.log"
        armed = None
        if self.can_strike:
            armed = {"folder": str(project / fault.below if fault and fault.below else project)}
            armed |= {"at": fault.at, "error": fault.error, "jump_s": fault.jump_s} if fault else {}
        about = {"project": str(project), "arguments": arguments, "log": str(log), "fault": armed, "tracks": tracks}
        pid = self._ask(do="start", **about)
        assert pid is not None
        self._pids.add(pid)
        return Run(self, pid, log, time.monotonic())

    def run(
        self, project: Path, stage: str, *, n_workers: int = 1, fault: Fault | None = None, tracks: bool = True
    ) -> Ending:
        """Run a command to its end; arguments as those of `start`."""
        return self.start(project, stage, n_workers=n_workers, fault=fault, tracks=tracks).wait()

    def wait(self, pid: int, seconds: float) -> int | None:
        """Exit code, None if it runs on."""
        code = self._ask(do="wait", pid=pid, seconds=seconds)
        if code is not None:
            self._pids.discard(pid)
        return code


@dataclass(frozen=True, slots=True)
class Run:
    """A command that was started."""

    lab: Lab
    pid: int
    log: Path
    started: float

    def wait(self, seconds: float = LIMIT_S) -> Ending:
        """Its end; one that takes longer than `seconds` is killed, and ends as one."""
        if self.lab.wait(self.pid, seconds) is None:
            self.kill()
        return self._end()

    def wait_for(self, seconds: float) -> int | None:
        """Its exit code, None if it runs on after so long."""
        return self.lab.wait(self.pid, seconds)

    def kill_after(self, seconds: float) -> Ending:
        """Let it run for a while, then kill its whole process group, unless it has ended."""
        if self.lab.wait(self.pid, seconds) is None:
            self.kill()
        return self._end()

    def kill(self) -> None:
        """Kill the process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _end(self) -> Ending:
        code = self.lab.wait(self.pid, LIMIT_S)
        assert code is not None
        with contextlib.suppress(ProcessLookupError):  # workers that the leader left
            os.killpg(self.pid, signal.SIGKILL)
        output = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        self.log.unlink(missing_ok=True)
        counts = [int(line.split()[1]) for line in output.splitlines() if line.startswith("fault_operations ")]
        return Ending(code, time.monotonic() - self.started, output, counts[-1] if counts else 0)


def draw(seed: int, *what: object) -> random.Random:
    """A generator of its own for every purpose."""
    return random.Random(f"{seed} {what}")
