"""Nodes of the `embed` pipeline."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from vmnet_pipeline.features.store import FeatureStore
from vmnet_pipeline.pairs.packing import PairFiles
from vmnet_pipeline.params import EmbedParams
from vmnet_pipeline.pipelines.side_features import take_side

if TYPE_CHECKING:
    from pandas import DataFrame

    from vmnet_pipeline.inference.embeddings import EmbeddingPlan, EmbeddingSet
    from vmnet_pipeline.models.checkpoints import Checkpoint
    from vmnet_pipeline.types import Side
else:  # Kedro evaluates annotations; these are slow to import
    DataFrame = Checkpoint = EmbeddingSet = EmbeddingPlan = Side = Any

logger = logging.getLogger(__name__)


def embed_music(
    manifest: DataFrame,
    stored_embeddings: EmbeddingSet | None,
    checkpoint: Checkpoint,
    params: EmbedParams,
    *features: FeatureStore | dict[str, Any],
) -> EmbeddingPlan:
    """Plan the embeddings of all items with music features; saving the result computes those that are missing.

    Args:
        stored_embeddings: Embeddings made before, or None.
        features: The store of every backend of the side, each followed by the parameters of the backend.

    Raises:
        CheckpointError: The checkpoint was made for other features.
    """
    return _plan("music", manifest, stored_embeddings, checkpoint, params, features)


def embed_video(
    manifest: DataFrame,
    stored_embeddings: EmbeddingSet | None,
    checkpoint: Checkpoint,
    params: EmbedParams,
    *features: FeatureStore | dict[str, Any],
) -> EmbeddingPlan:
    """The same for video."""
    return _plan("video", manifest, stored_embeddings, checkpoint, params, features)


def _plan(
    side: Side,
    manifest: DataFrame,
    stored: EmbeddingSet | None,
    checkpoint: Checkpoint,
    params: EmbedParams,
    features: Sequence[Any],
) -> EmbeddingPlan:
    from vmnet_pipeline.inference.embeddings import plan_library_embeddings, plan_store_embeddings
    from vmnet_pipeline.inference.pieces import is_whole_file
    from vmnet_pipeline.models.checkpoints import check_fingerprints

    backend, store = take_side(side, features)
    fingerprint = store.fingerprint()
    ids = manifest.loc[manifest["status"] == "ok", "id"].tolist()
    if is_whole_file(backend):  # the features of a library, whose network was trained on parts of files
        planned = plan_library_embeddings(store, ids, cast("Any", backend), checkpoint, side, stored)
        logger.info("%s: %d embeddings, %d of them reused", side, len(planned.ids), planned.n_reused)
        return planned
    check_fingerprints(checkpoint, {backend.modality: fingerprint} if fingerprint else {})
    planned = plan_store_embeddings(store, ids, backend.pool, checkpoint, side, stored, batch_size=params.batch_size)
    logger.info("%s: %d embeddings, %d of them reused", side, len(planned.ids), planned.n_reused)
    return planned


def embed_music_pairs(pairs: PairFiles, checkpoint: Checkpoint, params: EmbedParams) -> EmbeddingPlan:
    """Plan the embeddings of the music of all packed pairs.

    Raises:
        CheckpointError: The checkpoint was made for other features.
    """
    from vmnet_pipeline.inference.embeddings import plan_pair_embeddings

    return plan_pair_embeddings(pairs, checkpoint, "music", params.batch_size)


def embed_video_pairs(pairs: PairFiles, checkpoint: Checkpoint, params: EmbedParams) -> EmbeddingPlan:
    """Plan the embeddings of the video of all packed pairs; see `embed_music_pairs`."""
    from vmnet_pipeline.inference.embeddings import plan_pair_embeddings

    return plan_pair_embeddings(pairs, checkpoint, "video", params.batch_size)
