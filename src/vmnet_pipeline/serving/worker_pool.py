"""A bounded pool of worker processes: excess tasks are refused, hung or crashed workers replaced."""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmnet_pipeline.cores import count_cores
from vmnet_pipeline.processes import ChildProcess
from vmnet_pipeline.serving.errors import RefusedError, refuse_media, refuse_other_checkpoint, write_line
from vmnet_pipeline.serving.worker import Answer, run_worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vmnet_pipeline.serving.metrics import Metrics
    from vmnet_pipeline.serving.worker import Task

logger = logging.getLogger(__name__)

LOAD_TIMEOUT_S = 300.0
RETRY_LOADING_S = 10
RETRY_LOST_S = 5
END_WAIT_S = 5.0
FIRST_GUESS_S = 2.0


class EmbeddingPool:
    """Worker processes with the networks loaded, one task each.

    A thread waits for the answer of each process, so that a process that hangs can be ended.
    """

    def __init__(
        self,
        checkpoint: Path,
        weights_dir: Path,
        *,
        n_workers: int,
        max_waiting: int,
        file_timeout_s: float,
        metrics: Metrics,
    ) -> None:
        """Describe the pool; `start` starts the processes.

        Args:
            file_timeout_s: Longest time for reading a file: shorter than for a task, so that a decoder that hangs costs
                its own process and not the worker with the networks.
        """
        n_threads = max(1, count_cores() // n_workers)
        self._workers = [_Worker(checkpoint, weights_dir, n_threads, file_timeout_s) for _ in range(n_workers)]
        self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(n_workers, thread_name_prefix="embedding")
        self._max_jobs, self._n_jobs = n_workers + max_waiting, 0
        self._mean_s, self._metrics = FIRST_GUESS_S, metrics
        self._lock, self._is_closed = threading.Lock(), False
        self.digest, self.failure = "", ""

    def start(self) -> None:
        """Start the workers and wait, some seconds, until all are ready or one reports why it cannot be.

        Call it again after a failure; workers that are ready are kept.
        """
        threads = [threading.Thread(target=worker.start) for worker in self._workers if not worker.is_alive]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._is_closed:  # while they were loading
            self._stop_workers()
            return
        failures = [worker.failure for worker in self._workers if worker.failure]
        if failures:
            if failures[0] != self.failure:
                logger.error("The embedding workers failed to start and are restarted: %s", write_line(failures[0]))
            self.failure = failures[0]
            return
        for worker in self._workers:
            self._free.put(worker)
        self.digest, self.failure = self._workers[0].digest, ""

    @contextmanager
    def take_place(self) -> Iterator[None]:
        """Hold one place of the pool while a file is received, waits, or is processed.

        Raises:
            RefusedError: 429 when all are taken, 503 while the networks are not loaded.
        """
        if self.failure:
            raise _refuse_unavailable()
        if not self.digest or self._is_closed:
            raise RefusedError(503, "loading", "The networks are loading; try again soon.", RETRY_LOADING_S)
        with self._lock:
            if self._n_jobs >= self._max_jobs:
                wait_s = max(1, math.ceil(self._mean_s * self._n_jobs / len(self._workers)))
                raise RefusedError(429, "busy", f"Too many concurrent uploads; try again in {wait_s} s.", wait_s)
            self._n_jobs += 1
        self._metrics.jobs.inc()
        try:
            yield
        finally:
            with self._lock:
                self._n_jobs -= 1
            self._metrics.jobs.dec()

    async def ask(self, task: Task, timeout_s: float) -> Answer:
        """Have a worker do a task.

        Raises:
            RefusedError: 422 when it cannot be embedded, 504 when that takes too long, 503 when the pool closes or a
                worker was started after a training.
        """
        try:
            future = self._threads.submit(self._work, task, timeout_s)
        except RuntimeError as error:
            raise RefusedError(503, "closing", "The service is shutting down; try again soon.", 1) from error
        try:
            answer = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.cancel()  # the client has gone
            raise
        if answer.kind:
            raise _refuse(answer)
        return answer

    def close(self) -> None:
        """Finish the accepted tasks, then end the workers."""
        self._is_closed = True
        self._threads.shutdown(wait=True)
        self._stop_workers()

    def _stop_workers(self) -> None:
        for worker in self._workers:
            worker.stop()

    def _work(self, task: Task, timeout_s: float) -> Answer:
        started = time.monotonic()
        worker = self._free.get()
        try:
            answer = worker.ask(task, timeout_s, self.digest)
        finally:
            self._free.put(worker)
        if answer.kind in ("timeout", "crash"):
            self._metrics.lost_workers.inc()
        seconds = time.monotonic() - started
        self._metrics.job_seconds.observe(seconds)
        self._mean_s += 0.2 * (seconds - self._mean_s)
        return answer


class _Worker:
    """One process with the networks, restarted after it was lost."""

    def __init__(self, *arguments: Path | int | float) -> None:
        self._arguments = arguments
        self._process: ChildProcess | None = None
        self.digest = self.failure = ""

    @property
    def is_alive(self) -> bool:
        process = self._process
        return process is not None and process.is_alive

    def start(self) -> None:
        """Start the process and wait until it is ready; `failure` tells why it is not."""
        try:
            self._process = process = ChildProcess(run_worker, *self._arguments, name="vmnet-embedding")
        except OSError as error:
            self.digest, self.failure = "", f"no process can be started: {error}"
            return
        answer = _receive(process, LOAD_TIMEOUT_S)
        self.digest, self.failure = answer.digest, answer.failure

    def ask(self, task: Task, timeout_s: float, digest: str) -> Answer:
        """Have the process do a task. The next task replaces a process that hangs, crashes, or has another network.

        It has another one than `digest` when it was started after a training.
        """
        if not self.is_alive:
            self.start()
            if self.failure:
                return Answer(kind="unavailable", failure=write_line(self.failure))
        process = self._process
        if process is None or self.digest != digest:
            self.stop()
            return Answer(kind="other_checkpoint", failure=f"a worker loaded {self.digest}, not {digest}")
        process.send(task)
        return _receive(process, timeout_s)

    def stop(self) -> None:
        if self._process is not None:
            self._process.end()


def _receive(process: ChildProcess, timeout_s: float) -> Answer:
    """The answer of a worker, which is ended if it has none."""
    try:
        answer: Answer = process.receive(timeout_s)
        return answer
    except TimeoutError:
        reason, grace_s = "timeout", 0.0
    except EOFError:
        reason, grace_s = "crash", END_WAIT_S
    process.end(grace_s)
    return Answer(kind=reason, failure=f"a worker ended: {reason}, {process.describe_end()}")


def _refuse_unavailable() -> RefusedError:
    sentence = "The networks cannot be loaded; see the log of the service. It keeps trying."
    return RefusedError(503, "no_networks", sentence, RETRY_LOADING_S)


def _refuse(answer: Answer) -> RefusedError:
    """Turn a failure into an error response; the log holds nothing of the request."""
    logger.warning("A task failed: %s %s %s", answer.kind, answer.reason, answer.failure)
    if answer.kind == "media":
        return refuse_media(answer.reason)
    if answer.kind == "input":
        return RefusedError(422, answer.reason or "bad_features", answer.message)
    if answer.kind == "other_checkpoint":
        return refuse_other_checkpoint()
    if answer.kind == "timeout":
        return RefusedError(504, "timeout", "Processing timed out.")
    if answer.kind == "crash":
        sentence = "The worker process was terminated, possibly for lack of memory. Try again."
        return RefusedError(503, "lost_worker", sentence, RETRY_LOST_S)
    if answer.kind == "unavailable":
        return _refuse_unavailable()
    return RefusedError(500, "failed", "Processing failed; see the log of the service.")
