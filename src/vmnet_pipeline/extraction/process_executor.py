"""Worker processes on this machine, each with its own decoders and its own model."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from contextlib import contextmanager
from multiprocessing import connection as connections
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.backends.engine import limit_cores
from vmnet_pipeline.errors import ExtractionError, VmnetError
from vmnet_pipeline.extraction.executor import Event
from vmnet_pipeline.extraction.worker import run_batch
from vmnet_pipeline.storage.paths import configure_storage, get_configuration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection

    from vmnet_pipeline.extraction.executor import Job
    from vmnet_pipeline.types import MediaItem

logger = logging.getLogger(__name__)

CLOSE_WAIT_S = 5.0
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(processName)s: %(message)s"


class ProcessExecutor:
    """`n_workers` processes; one that ends is replaced by another. See `Executor`."""

    def __init__(self, job: Job, n_workers: int) -> None:
        # Not forked: threads of a network that has run in the parent would hang in the child.
        self._context = multiprocessing.get_context("spawn")
        self._job = job
        self._n_spawned = 0
        self._processes: dict[str, Any] = {}
        self._connections: dict[str, Connection] = {}
        self._busy: set[str] = set()
        for _ in range(n_workers):
            self._spawn()

    def ready(self) -> list[str]:
        """See `Executor`."""
        for worker in [name for name in self._processes if name not in self._busy]:
            if not self._processes[worker].is_alive():
                self._replace(worker)
        return [worker for worker in self._processes if worker not in self._busy]

    def size(self) -> int:
        """See `Executor`."""
        return len(self._processes)

    def start(self, worker: str, writer: str, items: Sequence[MediaItem]) -> None:
        """See `Executor`."""
        self._busy.add(worker)
        with contextlib.suppress(OSError):  # a worker that is gone is found by `wait`
            self._connections[worker].send((writer, tuple(items)))

    def wait(self) -> list[Event]:
        """See `Executor`."""
        busy = {self._connections[worker]: worker for worker in self._busy}
        ready = connections.wait(list(busy))
        return [self._receive(worker) for connection, worker in busy.items() if connection in ready]

    def _receive(self, worker: str) -> Event:
        try:
            message = self._connections[worker].recv()
        except (EOFError, OSError):
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
        ours, theirs = self._context.Pipe()
        task = (theirs, self._job, get_configuration())
        process = self._context.Process(target=serve, args=task, name=name, daemon=True)
        with _without_interrupts():
            process.start()
        theirs.close()  # so that its end is seen here
        self._n_spawned += 1
        self._processes[name], self._connections[name] = process, ours

    def _replace(self, worker: str) -> None:
        process = self._processes.pop(worker)
        process.kill()
        process.join()
        logger.warning("%s (process %s) ended with code %s", worker, process.pid, process.exitcode)
        self._connections.pop(worker).close()
        self._busy.discard(worker)
        self._spawn()

    def close(self) -> None:
        """See `Executor`."""
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                connection.send(None)
        deadline = time.monotonic() + CLOSE_WAIT_S
        for process in self._processes.values():
            process.join(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.join()
        for connection in self._connections.values():
            connection.close()


def serve(connection: Connection, job: Job, storage: dict[str, dict[str, Any]]) -> None:
    """Be a worker: take batches until told to stop, send back rows, or the error that ends the run."""
    configure_storage(storage)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, datefmt="%H:%M:%S")
    threading.Thread(target=_end_with_driver, daemon=True).start()
    limit_cores(job.n_cores)
    try:
        while (task := connection.recv()) is not None:
            for row in run_batch(job, *task):
                connection.send(row)
                if connection.poll():  # while a batch is in hand, nothing comes but the word to stop
                    return
            connection.send(None)
    except VmnetError as error:
        connection.send(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the driver is gone
    except Exception as error:
        logger.exception("Extraction failed in a way that was not foreseen")
        connection.send(ExtractionError(f"A worker failed with {type(error).__name__}: {error}. Its log says where."))


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """What is started here never sees Ctrl-C, from its first moment: the driver decides. Here it is just put off."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # else the start of a process starts it, and takes the block away
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_driver() -> None:
    """End at once when the driver does, however it ends: a later run must not find somebody writing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
