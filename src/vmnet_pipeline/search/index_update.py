"""Update the search index of a collection to its embeddings: add, remove or rebuild."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vmnet_pipeline.inference.embeddings import list_rows
from vmnet_pipeline.search.vector_index import VectorIndex, choose_kind

if TYPE_CHECKING:
    import pandas as pd

    from vmnet_pipeline.evaluation.calibration import Calibration
    from vmnet_pipeline.inference.embeddings import EmbeddingSet
    from vmnet_pipeline.params import IndexParams

logger = logging.getLogger(__name__)

BUILD_SETTINGS = ("hnsw_links", "hnsw_build_width", "ivf_lists", "pq_bytes")
"""Changing these rebuilds the index; other parameters apply to each search."""


def update_index(
    index: VectorIndex | None,
    embeddings: EmbeddingSet,
    metadata: pd.DataFrame,
    params: IndexParams,
    calibration: Calibration | None = None,
) -> VectorIndex:
    """Return an index of the embeddings: `index` itself, changed in place where possible, or a new one.

    `metadata` has one row per id; items without a row get empty cells. The index keeps the network's `calibration`.
    """
    index = _refresh(index, embeddings, metadata, params)
    index.about.pop("calibration", None)
    if calibration is not None:
        index.about["calibration"] = calibration.model_dump()
    return index


def _refresh(
    index: VectorIndex | None, embeddings: EmbeddingSet, metadata: pd.DataFrame, params: IndexParams
) -> VectorIndex:
    rows = list_rows(embeddings)
    if index is None or _needs_rebuild(index, embeddings, params):
        return _build(embeddings, rows, metadata, params)
    same = index.items.loc[index.alive, ["id", "source"]].merge(rows, on=["id", "source"])
    kept = set(same.loc[same["source"] != "", "id"])
    gone = [item_id for item_id in index.ids if item_id not in kept]
    new = ~rows["id"].isin(kept).to_numpy(dtype=bool)
    if (len(index.alive) - len(kept)) > params.max_removed_share * max(len(index.alive), 1):
        return _build(embeddings, rows, metadata, params)
    index.params = params
    index.remove(gone)
    if new.any():
        index.add(embeddings.vectors[new], rows[new])
    index.describe_items(metadata)
    logger.info("search index: %d items kept, %d added, %d removed", len(kept), int(new.sum()), len(gone))
    return index


def _needs_rebuild(index: VectorIndex, embeddings: EmbeddingSet, params: IndexParams) -> bool:
    wanted, built = ({name: getattr(p, name) for name in BUILD_SETTINGS} for p in (params, index.params))
    return (
        params.rebuild
        or index.about.get("checkpoint") != embeddings.checkpoint
        or index.kind != choose_kind(params, len(embeddings.ids))
        or index.dim != embeddings.vectors.shape[1]
        or wanted != built
    )


def _build(embeddings: EmbeddingSet, rows: pd.DataFrame, metadata: pd.DataFrame, params: IndexParams) -> VectorIndex:
    items = rows.merge(metadata.drop(columns=["source"], errors="ignore"), on="id", how="left")
    index = VectorIndex.build(embeddings.vectors, items, params, {"checkpoint": embeddings.checkpoint})
    logger.info("search index: built for %d items, %s", len(index), index.kind)
    return index
