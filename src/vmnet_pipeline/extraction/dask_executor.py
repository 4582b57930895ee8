"""Run an extraction on an existing Dask cluster, whose workers write to the shared store; only rows travel.

Each batch is bound to one worker, so that the driver, not the scheduler, reassigns the items of a lost worker: the
scheduler would give the whole batch to the next worker, and to the one after that.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.cores import limit_cores
from vmnet_pipeline.errors import ExtractionError, VmnetError
from vmnet_pipeline.extraction.executor import Event
from vmnet_pipeline.extraction.worker import run_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmnet_pipeline.extraction.executor import Job
    from vmnet_pipeline.features.index import FeatureRow
    from vmnet_pipeline.types import MediaItem

logger = logging.getLogger(__name__)

CONNECT_WAIT_S = 30.0
NO_WORKER_WAIT_S = 300.0
RESULT_WAIT_S = 30.0
POLL_S = 1.0


class DaskExecutor:
    """All workers of a cluster, including those that join later. See `Executor`.

    Raises:
        ExtractionError: `distributed` is not installed, or no scheduler answers at the address.
    """

    def __init__(self, job: Job, address: str) -> None:
        self._job, self._address = job, address
        self._client = _connect(address)
        self._futures: dict[str, Any] = {}
        self._addresses: dict[str, str] = {}
        self._refreshed, self._seen_worker = float("-inf"), time.monotonic()

    def ready(self) -> list[str]:
        """See `Executor`."""
        self._refresh()
        return [worker for worker in self._addresses if worker not in self._futures]

    def size(self) -> int:
        """See `Executor`."""
        return len(self._addresses)

    def start(self, worker: str, writer: str, items: Sequence[MediaItem]) -> None:
        """See `Executor`."""
        task, bound = (run_remote, self._job, writer, tuple(items)), {"workers": [self._addresses[worker]]}
        self._futures[worker] = self._client.submit(*task, **bound, allow_other_workers=False, pure=False)

    def wait(self) -> list[Event]:
        """See `Executor`."""
        from distributed import wait

        if self._futures:
            with contextlib.suppress(TimeoutError), self._client.as_current():
                wait(list(self._futures.values()), timeout=POLL_S, return_when="FIRST_COMPLETED")
        else:
            time.sleep(POLL_S)
        self._refresh()
        events = [self._look_at(worker) for worker in list(self._futures)]
        return [event for event in events if event is not None]

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._refreshed < POLL_S:
            return
        self._refreshed = now
        try:
            found = list(self._client.nthreads())
        except (OSError, TimeoutError) as error:
            raise ExtractionError(
                f"The Dask scheduler {self._address} no longer answers ({error}). Everything finished is kept: "
                "run again when it is back."
            ) from error
        self._addresses = {re.sub(r"[^A-Za-z0-9.]+", "-", address): address for address in found}
        self._seen_worker = now if found else self._seen_worker
        if now - self._seen_worker > NO_WORKER_WAIT_S:
            raise ExtractionError(
                f"The Dask scheduler {self._address} has had no worker for {NO_WORKER_WAIT_S:.0f} s. Everything "
                "finished is kept: start workers and run again."
            )

    def _look_at(self, worker: str) -> Event | None:
        future = self._futures[worker]
        if future.status == "pending" and worker in self._addresses:
            return None
        del self._futures[worker]
        if future.status == "finished":
            with contextlib.suppress(TimeoutError, CancelledError):  # its worker may end before it has sent them
                return Event(worker, "ready", tuple(future.result(timeout=RESULT_WAIT_S)))
        error = future.exception(timeout=POLL_S) if future.status == "error" else None
        if isinstance(error, VmnetError):
            raise error
        if error is not None and type(error).__name__ != "KilledWorker":
            raise ExtractionError(
                f"The Dask worker {worker} cannot extract: {type(error).__name__}: {error}. It needs this package, the "
                "same versions of its libraries, and the folders of media, weights and features under the same paths."
            ) from error
        future.cancel(force=True)
        logger.warning("Dask worker %s is lost", worker)
        return Event(worker, "died")

    def close(self) -> None:
        """See `Executor`; a batch that runs is finished by its worker, and a later run waits for that."""
        with contextlib.suppress(Exception):  # the scheduler may be gone
            self._client.cancel(list(self._futures.values()), force=True)
        with contextlib.suppress(Exception):
            self._client.close()


def run_remote(job: Job, writer: str, items: Sequence[MediaItem]) -> list[FeatureRow]:
    """Run one batch on a worker of the cluster, with as many cores as the cluster gives it."""
    from distributed import get_worker

    limit_cores(get_worker().state.nthreads)
    return list(run_batch(job, writer, items))


def _connect(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise ExtractionError(
            "executor.kind dask needs the package `distributed`: pip install 'vmnet-pipeline[dask]'"
        ) from error
    try:
        return Client(address, timeout=CONNECT_WAIT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ExtractionError(
            f"No Dask scheduler answers at {address} ({error}). Start it, or correct "
            "--params extract.executor.address=tcp://HOST:PORT"
        ) from error
