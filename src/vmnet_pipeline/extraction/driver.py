"""Drive an extraction: hand out batches, and make sure that every item gets a row even if workers are lost.

A lost worker loses nothing finished: what it wrote is in its rows. The rest of its batch is tried again item by item,
so that the next loss points at one item; that one becomes a failed row.
"""

from __future__ import annotations

import logging
import pickle
import time
import uuid
import zlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmnet_pipeline.backends.calibration import follow_stored
from vmnet_pipeline.errors import ExtractionError
from vmnet_pipeline.extraction.choosing import choose_workers
from vmnet_pipeline.extraction.executor import Job
from vmnet_pipeline.extraction.planning import find_unfinished
from vmnet_pipeline.extraction.worker import end_readers, run_batch
from vmnet_pipeline.features.index import FeatureRow
from vmnet_pipeline.features.store import FeatureStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vmnet_pipeline.backends.base import FeatureBackend
    from vmnet_pipeline.extraction.executor import Event, Executor
    from vmnet_pipeline.params import ExtractParams
    from vmnet_pipeline.storage.locks import Shard
    from vmnet_pipeline.types import MediaItem

logger = logging.getLogger(__name__)

MAX_BATCH = 32
MAX_LOST_ITEMS = 8


def select_shard(items: Iterable[MediaItem], shard: Shard | None) -> list[MediaItem]:
    """Select the items of worker I of N by content, so that copies of a file go to the same worker."""
    if shard is None:
        return list(items)
    worker, n_workers = shard
    return [item for item in items if zlib.crc32((item.checksum or item.id).encode()) % n_workers == worker]


def extract_missing(
    backend: FeatureBackend, missing: Sequence[MediaItem], store: FeatureStore, params: ExtractParams
) -> Iterator[FeatureRow]:
    """Extract items into a store, yielding each row; the store is held until the iterator is exhausted.

    Items that another run has finished since they were planned are left out.

    Raises:
        FeatureStoreError: Another run holds the store, or it cannot be written.
        ExtractionError: No workers, or they end one after the other.
        WeightsError: The weights are not available.
    """
    if not missing:
        return
    shard = params.array.shard
    with store.hold(shard):
        if shard is None:
            store.compact()  # so that rows of earlier runs count as older, whatever the clock has done since
        items = find_unfinished(missing, FeatureStore(store.folder))
        follow_stored(backend, store.fingerprint())
        store.set_fingerprint(backend.fingerprint())
        workers = choose_workers(params, len(items))
        job = Job(
            run_id=uuid.uuid4().hex[:8],
            backend=backend,
            folder=store.folder.absolute(),
            shard=shard,
            batch_size=params.batch_size,
            n_cores=workers.n_cores,
            item_timeout_s=None if workers.kind == "serial" else params.item_timeout_s,
            limits=params.limits,
        )
        logger.info("%s: extracting %d items %s", backend.name, len(items), workers.describe())
        yield from _extract(job, workers.kind, workers.n_workers, items, params)


def _extract(
    job: Job, kind: str, n_workers: int, items: Sequence[MediaItem], params: ExtractParams
) -> Iterator[FeatureRow]:
    if kind == "serial":
        try:
            yield from run_batch(job, job.run_id, items)
        finally:
            end_readers()
        return
    executor = _make_executor(job, kind, n_workers, params)
    try:
        yield from Driver(executor, job, items).run()
    finally:
        executor.close()


def _make_executor(job: Job, kind: str, n_workers: int, params: ExtractParams) -> Executor:
    try:
        pickle.dumps(job)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise ExtractionError(
            f"Backend {job.backend.name!r} cannot be sent to another process ({error}). Let it keep what cannot be "
            "pickled out of its state until `load`, or take --params extract.executor.kind=serial"
        ) from error
    if kind == "dask":
        from vmnet_pipeline.extraction.dask_executor import DaskExecutor

        return DaskExecutor(job, str(params.executor.address))
    from vmnet_pipeline.extraction.process_executor import ProcessExecutor

    return ProcessExecutor(job, n_workers)


@dataclass(slots=True)
class _Batch:
    """The items that a worker has not finished."""

    writer: str
    left: dict[str, MediaItem]
    is_retry: bool
    touched: float


class Driver:
    """Feed an executor until every item has its row."""

    def __init__(self, executor: Executor, job: Job, items: Iterable[MediaItem]) -> None:
        self._executor, self._job = executor, job
        self._waiting = deque(items)
        self._retries: deque[MediaItem] = deque()
        self._batches: dict[str, _Batch] = {}
        self._n_lost_items = 0

    def run(self) -> Iterator[FeatureRow]:
        """Yield the rows of all items as they are finished."""
        while self._waiting or self._retries or self._batches:
            for worker in self._executor.ready():
                self._start_batch(worker)
            for event in self._executor.wait() if self._batches or self._executor.size() == 0 else ():
                yield from self._handle(event)

    def _start_batch(self, worker: str) -> None:
        is_retry = bool(self._retries)
        items = [self._retries.popleft()] if is_retry else self._take_waiting()
        if items:
            writer = f"{self._job.run_id}-{worker}"
            self._batches[worker] = _Batch(writer, {item.id: item for item in items}, is_retry, time.monotonic())
            self._executor.start(worker, writer, items)

    def _take_waiting(self) -> list[MediaItem]:
        """Take large batches first and single items at the end: all workers finish at about the same time."""
        size = len(self._waiting) // (4 * max(1, self._executor.size()))
        size = min(max(size, 1), MAX_BATCH, len(self._waiting))
        return [self._waiting.popleft() for _ in range(size)]

    def _handle(self, event: Event) -> Iterator[FeatureRow]:
        batch = self._batches[event.worker]
        batch.touched = time.monotonic() if event.rows else batch.touched
        yield from self._count(batch, event.rows)
        if event.state != "working":
            del self._batches[event.worker]
        if event.state == "died":
            yield from self._recover(event.worker, batch)

    def _count(self, batch: _Batch, rows: Iterable[FeatureRow]) -> Iterator[FeatureRow]:
        for row in rows:
            if batch.left.pop(row.id, None) is not None:
                self._n_lost_items = 0
                yield row

    def _recover(self, worker: str, batch: _Batch) -> Iterator[FeatureRow]:
        """Count what a lost worker had written, and retry or fail the rest of its batch."""
        written = FeatureStore(self._job.folder, writer=batch.writer).read_own_rows()
        yield from self._count(batch, [written[item_id] for item_id in batch.left if item_id in written])
        if not batch.is_retry:
            self._retries.extend(batch.left.values())
            if batch.left:
                logger.warning("%s is lost: %d items are tried again, one by one", worker, len(batch.left))
            return
        for item in batch.left.values():
            yield self._give_up(item, time.monotonic() - batch.touched)

    def _give_up(self, item: MediaItem, waited_s: float) -> FeatureRow:
        timeout_s = self._job.item_timeout_s
        is_timeout = timeout_s is not None and waited_s >= timeout_s
        reason, error = "worker_died", "its worker process ended, twice: a crash of a decoder, or too little memory"
        if is_timeout:
            reason, error = "timeout", f"not finished within {timeout_s:g} s, twice (extract.item_timeout_s)"
        logger.warning("Item %r (%s): %s", item.id, item.path, error)
        row = FeatureRow(item.id, "failed", item.checksum, reason=reason, error=error)
        FeatureStore(self._job.folder, writer=self._job.run_id).add_rows([row])
        self._n_lost_items += 1
        if self._n_lost_items >= MAX_LOST_ITEMS:
            raise ExtractionError(
                f"Workers ended at {MAX_LOST_ITEMS} items one after the other (last {item.id!r}: {reason}), so the "
                "cause is not the items. Their log says more; if memory is short, take fewer workers: "
                "--params extract.n_workers=1. Everything finished is kept."
            )
        return row
