"""Worker processes on this machine, each with its own decoders and its own model."""

from __future__ import annotations

import logging
import time
from multiprocessing import connection as connections
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.cores import limit_cores
from vmnet_pipeline.errors import ExtractionError, VmnetError
from vmnet_pipeline.extraction.executor import Event
from vmnet_pipeline.extraction.worker import run_batch
from vmnet_pipeline.processes import ChildProcess
from vmnet_pipeline.storage.paths import configure_storage, get_configuration

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

    from vmnet_pipeline.extraction.executor import Job
    from vmnet_pipeline.types import MediaItem

logger = logging.getLogger(__name__)

CLOSE_WAIT_S = 5.0
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(processName)s: %(message)s"


class ProcessExecutor:
    """`n_workers` processes; one that ends is replaced by another. See `Executor`."""

    def __init__(self, job: Job, n_workers: int) -> None:
        self._job = job
        self._n_spawned = 0
        self._processes: dict[str, ChildProcess] = {}
        self._busy: set[str] = set()
        for _ in range(n_workers):
            self._spawn()

    def ready(self) -> list[str]:
        """See `Executor`."""
        for worker in [name for name in self._processes if name not in self._busy]:
            if not self._processes[worker].is_alive:
                self._replace(worker)
        return [worker for worker in self._processes if worker not in self._busy]

    def size(self) -> int:
        """See `Executor`."""
        return len(self._processes)

    def start(self, worker: str, writer: str, items: Sequence[MediaItem]) -> None:
        """See `Executor`."""
        self._busy.add(worker)
        self._processes[worker].send((writer, tuple(items)))

    def wait(self) -> list[Event]:
        """See `Executor`."""
        busy = {self._processes[worker].connection: worker for worker in self._busy}
        ready = connections.wait(list(busy))
        return [self._receive(worker) for connection, worker in busy.items() if connection in ready]

    def _receive(self, worker: str) -> Event:
        try:
            message = self._processes[worker].receive(None)
        except EOFError:
            self._replace(worker)
            return Event(worker, "died")
        if isinstance(message, VmnetError):
            raise message
        if message is None:
            self._busy.remove(worker)
            return Event(worker, "ready")
        return Event(worker, "working", (message,))

    def _spawn(self) -> None:
        name = f"worker-{self._n_spawned}"
        self._processes[name] = ChildProcess(serve, self._job, get_configuration(), name=name)
        self._n_spawned += 1

    def _replace(self, worker: str) -> None:
        process = self._processes.pop(worker)
        process.end()
        logger.warning("%s (process %s) ended: %s", worker, process.pid, process.describe_end())
        self._busy.discard(worker)
        self._spawn()

    def close(self) -> None:
        """See `Executor`."""
        for process in self._processes.values():
            process.send(None)
        deadline = time.monotonic() + CLOSE_WAIT_S
        for process in self._processes.values():
            process.end(max(0.0, deadline - time.monotonic()))


def serve(connection: Connection, job: Job, storage: dict[str, dict[str, Any]]) -> None:
    """Run a worker: take batches until stopped, send back rows, or the error that ends the run."""
    configure_storage(storage)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, datefmt="%H:%M:%S")
    limit_cores(job.n_cores)
    try:
        while (task := connection.recv()) is not None:
            for row in run_batch(job, *task):
                connection.send(row)
                if connection.poll():  # during a batch, the only message is the one to stop
                    return
            connection.send(None)
    except VmnetError as error:
        connection.send(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the driver is gone
    except Exception as error:
        logger.exception("Extraction failed unexpectedly")
        connection.send(ExtractionError(f"A worker failed with {type(error).__name__}: {error}. Its log says where."))
