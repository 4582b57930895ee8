"""Nodes of the extraction pipelines; the same for every backend."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.features.store import FeatureChunk, FeatureStore
from vmnet_pipeline.params import ExtractParams
from vmnet_pipeline.types import MediaItem

if TYPE_CHECKING:
    from pandas import DataFrame
else:  # Kedro evaluates annotations; these are slow to import
    DataFrame = Any

logger = logging.getLogger(__name__)


def plan_missing(
    manifest: DataFrame, stored_features: FeatureStore, backend_params: dict[str, Any], params: ExtractParams
) -> list[MediaItem]:
    """Find the items that this backend has not processed yet; items with known content adopt the stored features.

    Raises:
        FeatureStoreError: The store holds features made with other settings.
        WeightsError: The weights are not available.
    """
    from vmnet_pipeline.backends.calibration import follow_stored
    from vmnet_pipeline.backends.registry import make_backend
    from vmnet_pipeline.extraction.driver import select_shard
    from vmnet_pipeline.extraction.planning import list_media_items, plan_extraction

    backend = make_backend(backend_params)
    items = select_shard(list_media_items(manifest, backend.modality), params.array.shard)
    follow_stored(backend, stored_features.fingerprint())
    stored_features.check_fingerprint(backend.fingerprint())
    plan = plan_extraction(items, stored_features)
    if plan.missing:
        stored_features.clear_complete()
    logger.info(
        "%s: %d items, %d to extract, %d adopted by content, %d copies of an item to extract",
        *(backend.name, plan.n_items, len(plan.missing), plan.n_adopted, plan.n_copies),
    )
    return list(plan.missing)


def extract_features(
    missing: list[MediaItem], stored_features: FeatureStore, backend_params: dict[str, Any], params: ExtractParams
) -> FeatureChunk:
    """Extract the missing items.

    Not a pure node: workers open the media files and write each feature when it is finished. Its output is the empty
    rest that Kedro has to store.
    """
    from vmnet_pipeline.backends.calibration import follow_stored
    from vmnet_pipeline.backends.registry import make_backend
    from vmnet_pipeline.extraction.driver import extract_missing
    from vmnet_pipeline.progress import track

    backend = make_backend(backend_params)
    with track(f"{backend.name} features", len(missing)) as bar:
        for row in extract_missing(backend, missing, stored_features, params):
            bar.advance(failed=row.status == "failed")
    follow_stored(backend, stored_features.fingerprint())
    return FeatureChunk(backend.fingerprint(), ())


def check_complete(
    manifest: DataFrame, features: FeatureStore, backend_params: dict[str, Any], params: ExtractParams
) -> dict[str, Any]:
    """Let copies adopt the extracted features, summarise the store for this collection, and refuse too many failures.

    Raises:
        ExtractionError: Nothing was extracted, or the share of failed items is above the threshold.
    """
    from vmnet_pipeline.backends.registry import make_backend
    from vmnet_pipeline.extraction.planning import (
        adopt_features,
        check_failures,
        find_unfinished,
        list_media_items,
        summarise_items,
    )

    items = list_media_items(manifest, make_backend(backend_params).modality)
    adopt_features(find_unfinished(items, features), features)
    summary = summarise_items(items, features)
    is_library = "pieces" in backend_params  # one side of it may be empty
    check_failures(summary, params.max_failed_share, features.folder, needs_items=not is_library)
    return summary
