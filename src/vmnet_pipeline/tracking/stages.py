"""Record time and memory of each node of a run, for the report of this or a later run.

One small JSON file per node, so that parallel nodes never write the same one.
"""

from __future__ import annotations

import json
import shlex
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from vmnet_pipeline.storage.atomic import write_text_atomically
from vmnet_pipeline.storage.checksummed import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kedro.io import DataCatalog
    from kedro.pipeline.node import Node

WATCH_EVERY_S = 0.5
SMALLEST_WORKER_BYTES = 50 * 2**20

_SELF = Path("/proc/self")
_RESET_PEAK = "5"
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Stage:
    """Time and memory of a node, including loading its inputs and saving its outputs.

    Attributes:
        name: Of the node, with its namespace.
        seconds: Wall time of the longest run: later runs skip finished work, so this is the one that did most.
        memory_bytes: Peak resident memory of the process in that run.
        workers_bytes: The same for all its worker processes together, sampled twice a second; 0 without any.
        last_s: Wall time of the last run.
        n_runs: Number of runs.
        command: Command of the last run.
        ended: End of the last run, UTC, ISO 8601.
    """

    name: str
    seconds: float
    memory_bytes: int
    workers_bytes: int
    last_s: float
    n_runs: int
    command: str
    ended: str


@dataclass(frozen=True, slots=True)
class _Running:
    started: float
    earlier: Stage | None


class StageHooks:
    """Measure every node from its first input to its last output."""

    def __init__(self) -> None:
        self._command = ""
        self._folder: Path | None = None
        self._running: dict[str, _Running] = {}
        self._workers = _WorkerWatch()

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], catalog: DataCatalog) -> None:
        """Find the folder of the records."""
        self._command = describe_command(run_params)
        log: Any = catalog.get("stage_log")
        self._folder = None if log is None else log.folder
        self._running.clear()
        self._workers.start()

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Stop sampling."""
        self._workers.stop()

    on_pipeline_error = after_pipeline_run

    @hook_impl
    def before_dataset_loaded(self, node: Node) -> None:
        """Start with the first input."""
        if self._folder is not None and node.name not in self._running:
            earlier = _read_stage(_path_of(self._folder, node.name))
            _reset_peak_memory()
            self._workers.peak_bytes = 0
            self._running[node.name] = _Running(time.monotonic(), earlier)

    @hook_impl
    def after_dataset_saved(self, node: Node) -> None:
        """Write the record; that of the last output stays."""
        running = self._running.get(node.name)
        if self._folder is not None and running is not None:
            stage = _end_stage(node.name, running, self._workers.peak_bytes, self._command)
            write_text_atomically(_path_of(self._folder, node.name), json.dumps(asdict(stage), indent=2) + "\n")


def _end_stage(name: str, running: _Running, workers_bytes: int, command: str) -> Stage:
    seconds, earlier = time.monotonic() - running.started, running.earlier
    longest = (seconds, _measure_peak_memory(), workers_bytes)
    if earlier is not None and earlier.seconds > seconds:
        longest = (earlier.seconds, earlier.memory_bytes, earlier.workers_bytes)
    n_runs = 1 if earlier is None else earlier.n_runs + 1
    return Stage(name, *longest, seconds, n_runs, command, datetime.now(UTC).isoformat(timespec="milliseconds"))


def read_stages(folder: Path) -> list[dict[str, Any]]:
    """Read the records of a folder as plain data, in the order in which the nodes last ended; skip damaged ones."""
    found = (_read_stage(path) for path in folder.glob("*.json")) if folder.is_dir() else ()
    return [asdict(stage) for stage in sorted((stage for stage in found if stage), key=lambda stage: stage.ended)]


def _read_stage(path: Path) -> Stage | None:
    with suppress(FileNotFoundError, ValueError, TypeError):
        return Stage(**parse_json(path.read_text(encoding="utf-8")))
    return None


def _path_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def describe_command(run_params: Mapping[str, Any]) -> str:
    """Reconstruct the `kedro run` command from the run parameters that Kedro passes to hooks."""
    from vmnet_pipeline.params import flatten_settings

    given = flatten_settings(run_params.get("runtime_params") or {})
    options = {
        "pipelines": run_params.get("pipeline_names"),
        "env": run_params.get("env"),
        "namespaces": run_params.get("namespaces"),
        "tags": run_params.get("tags"),
        "nodes": run_params.get("node_names"),
        "from-nodes": run_params.get("from_nodes"),
        "to-nodes": run_params.get("to_nodes"),
        "params": [f"{name}={_write(value)}" for name, value in given.items()],
    }
    parts = ["kedro run"]
    for name, value in options.items():
        text = value if isinstance(value, str) else ",".join(value or ())
        if text and (name, text) not in (("env", "local"), ("pipelines", "__default__")):
            parts.append(f"--{name}={shlex.quote(text)}")
    return " ".join(parts)


def _write(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _reset_peak_memory() -> None:
    """Reset the peak that the system records, on Linux; elsewhere it stays that of the process so far."""
    with suppress(OSError):
        (_SELF / "clear_refs").write_text(_RESET_PEAK)


def _measure_peak_memory() -> int:
    """Peak resident memory of this process since the last reset, in bytes."""
    try:
        return _read_memory(_SELF, "VmHWM")
    except OSError:  # not on every system
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else _KIB)


def _read_memory(process: Path, field: str) -> int:
    lines = (process / "status").read_text().splitlines()
    return next((int(line.split()[1]) * _KIB for line in lines if line.startswith(f"{field}:")), 0)


class _WorkerWatch:
    """Sample the memory of worker processes in a thread.

    /proc is read directly: finding children with psutil reads every process of the machine, 75 times the cost.

    Attributes:
        peak_bytes: Peak resident memory of all workers together since this was last set to 0.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._stopped = threading.Event()

    def start(self) -> None:
        self.stop()
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, args=(self._stopped,), name="worker-watch", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self, stopped: threading.Event) -> None:
        known: set[str] = set()
        while not stopped.wait(WATCH_EVERY_S):
            found = _find_workers()
            # A process that has just started may still be a copy of this one, with all of its memory.
            self.peak_bytes = max(self.peak_bytes, _measure_workers(found & known))
            known = found


def _find_workers() -> set[str]:
    """Ids of the child processes of this one."""
    found: set[str] = set()
    with suppress(OSError):  # not on every system
        for task in (_SELF / "task").iterdir():
            with suppress(OSError):  # a thread that has ended
                found.update((task / "children").read_text().split())
    return found


def _measure_workers(pids: set[str]) -> int:
    """Resident memory of processes, in bytes, without small helper processes."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            memory = _read_memory(_SELF.with_name(pid), "VmRSS")
            total += memory if memory >= SMALLEST_WORKER_BYTES else 0
    return total
