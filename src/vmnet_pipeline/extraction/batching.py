"""Run a feature backend over many media files: decoding overlaps with inference, batches cross file borders."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from vmnet_pipeline.backends.whole_file import WholeFileBackend
from vmnet_pipeline.cores import count_cores
from vmnet_pipeline.errors import MediaError, SandboxError
from vmnet_pipeline.features.index import FeatureRow
from vmnet_pipeline.features.store import FeatureResult
from vmnet_pipeline.prefetch import map_ahead
from vmnet_pipeline.types import MediaItem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    import numpy as np

    from vmnet_pipeline.backends.base import FeatureBackend
    from vmnet_pipeline.media.sandbox import Sandbox
    from vmnet_pipeline.types import PreparedItem

logger = logging.getLogger(__name__)

_Prepared = tuple["PreparedItem | None", "FeatureRow"]


def extract_items(
    backend: FeatureBackend,
    items: Sequence[MediaItem],
    *,
    batch_size: int = 64,
    n_workers: int | None = None,
    sandbox: Sandbox | None = None,
) -> Iterator[FeatureResult]:
    """Extract the features of `items`, yielding each as it is finished, in the order of `items`.

    An item that fails is yielded as a row with the reason; it never ends the run.

    Args:
        backend: Loaded by this function.
        items: What to extract.
        batch_size: How many patches or frames go through the network at once, across file borders.
        n_workers: Decoding threads; all cores by default. At most `2 * n_workers` items wait in memory.
        sandbox: Child processes that read the files for these threads; None reads them here.

    Raises:
        SandboxError: No child process can be started.
    """
    if not items:
        return
    backend.load()
    n_workers = n_workers or count_cores()
    pending: list[_Prepared] = []
    n_entries = 0
    with _limit_blas():
        prepare = partial(_prepare_item, backend, sandbox)
        for prepared, row in map_ahead(prepare, items, n_threads=n_workers, n_in_flight=2 * n_workers):
            pending.append((prepared, row))
            n_entries += 0 if prepared is None else len(prepared.inputs)
            if n_entries >= batch_size or len(pending) >= batch_size:
                yield from _infer_pending(backend, pending, batch_size)
                pending, n_entries = [], 0
        yield from _infer_pending(backend, pending, batch_size)


def _limit_blas() -> AbstractContextManager[Any]:
    """Use one BLAS thread: there are as many decoding threads as cores, and each multiplies mel filters."""
    from threadpoolctl import threadpool_limits

    return cast("AbstractContextManager[Any]", threadpool_limits(1, "blas"))


def _prepare_item(backend: FeatureBackend, sandbox: Sandbox | None, item: MediaItem) -> _Prepared:
    started = time.perf_counter()
    try:
        if isinstance(backend, WholeFileBackend):
            prepared = backend.read(item.path, sandbox)
        else:
            prepared = backend.prepare(item.path) if sandbox is None else sandbox.call(backend.prepare, item.path)
    except SandboxError:
        raise  # not the fault of the item
    except MediaError as error:
        return None, _failed_row(item, error.reason, str(error))
    except Exception as error:
        logger.exception("Item %r (%s) failed unexpectedly", item.id, item.path)
        return None, _failed_row(item, "internal_error", f"{type(error).__name__}: {error}")
    seconds = time.perf_counter() - started
    warning = "; ".join(prepared.warnings)
    if warning:
        logger.warning("Item %r: %s", item.id, warning)
    row = FeatureRow(
        item.id, "done", item.checksum, n_valid=prepared.n_valid, seconds=round(seconds, 4), warning=warning
    )
    return prepared, row


def _failed_row(item: MediaItem | FeatureRow, reason: str, error: str) -> FeatureRow:
    checksum = item.checksum if isinstance(item, MediaItem) else item.source_checksum
    return FeatureRow(item.id, "failed", checksum, reason=reason, error=error)


def _infer_pending(backend: FeatureBackend, pending: list[_Prepared], batch_size: int) -> Iterator[FeatureResult]:
    inputs = [prepared.inputs for prepared, _ in pending if prepared is not None]
    features = iter(_infer_items(backend, inputs, batch_size))
    for prepared, row in pending:
        yield FeatureResult(row, None) if prepared is None else _finish_item(backend, row, next(features))


def _infer_items(backend: FeatureBackend, inputs: list[np.ndarray], batch_size: int) -> list[np.ndarray | MediaError]:
    """Infer the features of several items in common batches; if that fails, item by item, to isolate the bad one."""
    import numpy as np

    if not inputs:
        return []
    entries = np.concatenate(inputs)
    try:
        parts = [backend.infer(entries[start : start + batch_size]) for start in range(0, len(entries), batch_size)]
    except MediaError as error:
        if len(inputs) == 1:
            return [error]
        return [feature for item in inputs for feature in _infer_items(backend, [item], batch_size)]
    ends = np.cumsum([len(item) for item in inputs])
    return list(np.split(np.concatenate(parts), ends[:-1]))


def _finish_item(backend: FeatureBackend, row: FeatureRow, feature: np.ndarray | MediaError) -> FeatureResult:
    import numpy as np

    if isinstance(feature, MediaError):
        return FeatureResult(_failed_row(row, feature.reason, str(feature)), None)
    stored = backend.finish(feature)
    if np.isfinite(stored).all():
        return FeatureResult(row, np.ascontiguousarray(stored))
    error = f"the feature has NaN or infinity as {stored.dtype.name}; check the media file"
    return FeatureResult(_failed_row(row, "not_finite", error), None)
