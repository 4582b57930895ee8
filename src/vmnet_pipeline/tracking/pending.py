"""Keep what a run cannot log because MLflow is unavailable, and log it later: the run continues without MLflow.

UNTRACKED/RUN.json    a run with the operations that are still to be done, see `operations`
"""

from __future__ import annotations

import json
import logging
import re
import threading
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import StorageError
from vmnet_pipeline.storage.atomic import write_text_atomically
from vmnet_pipeline.storage.checksummed import add_checksum, hash_file, parse_checksummed
from vmnet_pipeline.storage.paths import is_remote
from vmnet_pipeline.tracking.operations import KINDS, carry_out

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

FOLDER = "untracked_runs"
_MAX_REASON = 240
_NO_ANSWER = re.compile(r"API request to (https?://[^/\s]+)\S* failed with exception")
_CAUSE = re.compile(r"(?<=\] )[A-Z][^\"')\]]+|[Rr]ead timed out|too many \d+ error responses")
_DAMAGED = (
    "It is damaged, or not written by this project. Remove it; `kedro track FOLDER` logs the results in a folder."
)


@dataclass(slots=True)
class Operation:
    """One thing to log.

    Attributes:
        run: Name of the child run that it belongs to; empty for the run itself.
        kind: One of `operations.KINDS`.
        content: Its arguments.
        checksum: Of the file or folder that it logs, when it was kept.
    """

    run: str
    kind: str
    content: dict[str, Any]
    checksum: str | None = None


@dataclass(slots=True)
class PendingRun:
    """A run that is still to be logged, at least in part; times are milliseconds since 1970.

    Attributes:
        run_id: Its id, if MLflow has it already.
        children: Ids of its child runs by name, if MLflow has them.
        operations: What is still to be logged.
        experiment: Name of its experiment; empty for that of the command which logs it.
    """

    name: str
    started_ms: int
    ended_ms: int
    tags: dict[str, str] = field(default_factory=dict)
    run_id: str | None = None
    children: dict[str, str] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    experiment: str = ""


class Tracker:
    """Send operations to the active MLflow run until that fails, and keep them from then on.

    Attributes:
        failure: What MLflow raised; None as long as it can be used.
        waiting: Operations that could not be logged.
        run_id: The run, once it was started.
        children: Ids of its child runs by name.
    """

    def __init__(self) -> None:
        self._here = threading.local()
        self.reset()

    def reset(self) -> None:
        """Forget everything that was kept."""
        self.failure: Exception | None = None
        self.waiting: list[Operation] = []
        self.run_id: str | None = None
        self.children: dict[str, str] = {}

    def send(self, kind: str, **content: Any) -> None:
        """Log to the active run, or keep; without an active run, and if nothing has failed, nothing is logged."""
        if self.failure is None:
            if not _has_active_run():
                return
            with self.guard():
                carry_out(kind, content)
                return
        self.waiting.append(Operation(getattr(self._here, "child", ""), kind, content))

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Run a block of calls of MLflow; what it raises ends the tracking, not the run."""
        try:
            yield
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Stop tracking; keep the first reason."""
        if self.failure is not None:
            return
        self.failure = error
        logger.warning("MLflow cannot be used: %s. The run goes on, and keeps what is to be logged", shorten(error))
        logger.debug("MLflow cannot be used", exc_info=error)
        _leave_runs()

    @contextmanager
    def child(self, name: str) -> Iterator[None]:
        """Send what is sent in the block to a child run."""
        import mlflow

        outer = getattr(self._here, "child", "")
        self._here.child = f"{outer}, {name}" if outer else name
        is_started = False
        if self.failure is None and _has_active_run():
            with self.guard():
                run = mlflow.start_run(run_name=name, nested=True)
                self.children[self._here.child] = run.info.run_id
                is_started = True
        status = "FAILED"
        try:
            yield
            status = "FINISHED"
        finally:
            self._here.child = outer
            if is_started and self.failure is None:
                with self.guard():
                    mlflow.end_run(status)


TRACKER = Tracker()


def _has_active_run() -> bool:
    import mlflow

    return mlflow.active_run() is not None


def _leave_runs() -> None:
    """End all active runs, in MLflow's own state too: otherwise it would try again when the process ends."""
    import mlflow

    for _ in range(10):
        with suppress(Exception):
            if mlflow.active_run() is None:
                return
            mlflow.end_run("FAILED")


def shorten(error: Exception) -> str:
    """Return an error as one line, without passwords in addresses; an unreachable server in few words."""
    text = re.sub(r"//[^/@\s]*@", "//", str(error))
    if found := _NO_ANSWER.match(text):
        cause = _CAUSE.search(text)
        return f"{found[1]} does not answer" + (f" ({cause[0].lower()})" if cause else "")
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return line[:_MAX_REASON].rstrip(". ")


# --- files


def write_pending(folder: Path, run: PendingRun) -> Path:
    """Write a run that is to be logged later.

    Raises:
        OSError: The folder cannot be written.
    """
    for operation in run.operations:
        _make_relative(operation)
        operation.checksum = digest_place(operation)
    path = folder / f"{run.started_ms}-{re.sub(r'[^A-Za-z0-9]+', '-', run.name)[:60]}.json"
    write_text_atomically(path, add_checksum(asdict(run)), durable=True)
    return path


def _make_relative(operation: Operation) -> None:
    """Make paths relative: the project may move before the run is logged, and the current folder is its root."""
    place = operation.content.get("place")
    if place is not None and Path(place).is_relative_to(Path.cwd()):
        operation.content["place"] = str(Path(place).relative_to(Path.cwd()))


def read_pending(path: Path) -> PendingRun:
    """Read what `write_pending` wrote.

    Raises:
        OSError: The file is missing or cannot be read.
        StorageError: It is damaged.
    """
    try:
        content = parse_checksummed(path.read_bytes())
        run = PendingRun(**{**content, "operations": [Operation(**part) for part in content["operations"]]})
        if any(operation.kind not in KINDS for operation in run.operations):
            raise ValueError("an operation is of an unknown kind")
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(f"{path} cannot be read ({error}). {_DAMAGED}") from error
    return run


def list_pending(folder: Path) -> list[Path]:
    """List the runs that are to be logged, oldest first."""
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith(".")) if folder.is_dir() else []


def digest_place(operation: Operation) -> str | None:
    """Hash the file or folder that an operation logs; None if it logs none, or it is not available here."""
    place = operation.content.get("place")
    if place is None or is_remote(place):
        return None
    path = Path(place)
    files = sorted(part for part in path.rglob("*") if part.is_file()) if path.is_dir() else [path]
    try:
        return json.dumps({part.relative_to(path).as_posix(): hash_file(part)[:16] for part in files})
    except OSError:
        return None
