"""Extract one batch of items: in this process, in a worker process or on a cluster."""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmnet_pipeline.cores import count_cores
from vmnet_pipeline.extraction.batching import extract_items
from vmnet_pipeline.features.store import FeatureStore
from vmnet_pipeline.media.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vmnet_pipeline.backends.base import FeatureBackend
    from vmnet_pipeline.extraction.executor import Job
    from vmnet_pipeline.features.index import FeatureRow
    from vmnet_pipeline.features.store import FeatureResult
    from vmnet_pipeline.types import MediaItem

SYNC_EVERY_S = 5.0  # what a loss of power may cost; a kill costs nothing that is finished

_one_batch = threading.Lock()  # a worker of a cluster may be given several at once; model and watchdog are one
_loaded: dict[str, tuple[FeatureBackend, Sandbox]] = {}


def run_batch(job: Job, writer: str, items: Sequence[MediaItem]) -> Iterator[FeatureRow]:
    """Extract `items` into the store, yielding the row of each when it is there.

    Ends the process when no item is finished for `job.item_timeout_s`.

    Raises:
        FeatureStoreError: The store cannot be written, or this machine makes features of another fingerprint.
        WeightsError: The weights are not available here.
        SandboxError: The processes that read media files cannot be started.
    """
    store, synced = FeatureStore(job.folder, writer=writer), time.monotonic()
    with _one_batch, store.share_writing(job.shard):
        backend, sandbox = _load_backend(job, store)
        sandbox.start(min(len(items), job.n_cores or count_cores()))
        with _end_when_stuck(job.item_timeout_s) as restart_clock:
            results = extract_items(backend, items, batch_size=job.batch_size, n_workers=job.n_cores, sandbox=sandbox)
            for row in store.add_all(_call_after_each(restart_clock, results)):
                restart_clock()
                if time.monotonic() - synced >= SYNC_EVERY_S:
                    synced = time.monotonic()
                    store.sync()
                yield row
        store.sync()


def _call_after_each(restart_clock: Callable[[], None], results: Iterator[FeatureResult]) -> Iterator[FeatureResult]:
    for result in results:
        restart_clock()
        yield result


def _load_backend(job: Job, store: FeatureStore) -> tuple[FeatureBackend, Sandbox]:
    """Load the backend of this run, once per worker, and the processes that read media files for it."""
    if job.run_id not in _loaded:
        end_readers()
        _loaded.clear()
        store.set_fingerprint(job.backend.fingerprint())
        job.backend.load()
        _loaded[job.run_id] = job.backend, Sandbox(job.limits)
    return _loaded[job.run_id]


def end_readers() -> None:
    """End the child processes that read media files for this process; another batch starts new ones."""
    for _, sandbox in _loaded.values():
        sandbox.close()


@contextmanager
def _end_when_stuck(timeout_s: float | None) -> Iterator[Callable[[], None]]:
    """End this process if the function that is yielded is not called again within `timeout_s`.

    The clock is a thread of faulthandler's, written in C: it ends even a decoder that hangs and holds the GIL.
    """
    if timeout_s is None:
        yield lambda: None
        return

    def restart_clock() -> None:
        faulthandler.dump_traceback_later(timeout_s, exit=True, file=sys.__stderr__ or sys.stderr)

    restart_clock()
    try:
        yield restart_clock
    finally:
        faulthandler.cancel_dump_traceback_later()
