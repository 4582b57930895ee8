"""Nodes of the extraction pipelines; the same for every backend."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.feature_store import FeatureChunk, FeatureStore
from vmnet_pipeline.params import ExtractParams
from vmnet_pipeline.records import MediaItem

if TYPE_CHECKING:
    from pandas import DataFrame
else:  # Kedro reads the annotations to check parameters; pandas would be slow to import for that
    DataFrame = Any

logger = logging.getLogger(__name__)


def plan_missing(manifest: DataFrame, stored_features: FeatureStore, backend_params: dict[str, Any]) -> list[MediaItem]:
    """Find the items that this backend has not dealt with yet.

    Args:
        manifest: The collection.
        stored_features: What is there already.
        backend_params: Parameters of the backend, with its name as `backend`.

    Raises:
        FeatureStoreError: The store holds features made with other settings.
        WeightsError: The weights are not to be had.
    """
    from vmnet_pipeline.extraction import list_media_items, make_backend, select_unfinished

    backend = make_backend(backend_params)
    items = list_media_items(manifest, backend.modality)
    stored_features.check_fingerprint(backend.fingerprint())
    missing = select_unfinished(items, stored_features)
    if missing:
        stored_features.clear_complete()
    logger.info("%s: %d items, %d to extract", backend.name, len(items), len(missing))
    return missing


def extract_features(
    missing: list[MediaItem], backend_params: dict[str, Any], params: ExtractParams
) -> Iterator[FeatureChunk]:
    """Extract the missing items; every chunk that is yielded is stored at once.

    Opens the media files that the manifest names: the one kind of node here that is not pure.
    """
    from vmnet_pipeline.console import track
    from vmnet_pipeline.extraction import chunk_results, extract_items, make_backend

    backend = make_backend(backend_params)
    with track(f"{backend.name} features", len(missing)) as bar:
        results = extract_items(backend, missing, batch_size=params.batch_size, n_workers=params.n_workers)
        yield from chunk_results(bar.count(results), backend)


def check_complete(
    manifest: DataFrame, features: FeatureStore, backend_params: dict[str, Any], params: ExtractParams
) -> dict[str, Any]:
    """Summarise the store for this collection, and refuse too many failures.

    Raises:
        ExtractionError: Nothing was extracted, or the share of failed items is above the threshold.
    """
    from vmnet_pipeline.extraction import check_failures, list_media_items, make_backend, summarise_rows

    items = list_media_items(manifest, make_backend(backend_params).modality)
    rows = [features.rows[item.id] for item in items if item.id in features.rows]
    summary = summarise_rows(rows)
    check_failures(summary, params.max_failed_share, features.folder)
    return summary
