"""Nodes of the `embed` pipeline."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.features.store import FeatureStore
from vmnet_pipeline.pairs.packing import PairFiles
from vmnet_pipeline.params import EmbedParams
from vmnet_pipeline.types import MODALITY_OF, SIDES

if TYPE_CHECKING:
    from pandas import DataFrame

    from vmnet_pipeline.inference.embeddings import EmbeddingPlan, EmbeddingSet
    from vmnet_pipeline.models.checkpoints import Checkpoint
    from vmnet_pipeline.types import Side
else:  # Kedro evaluates annotations; these are slow to import
    DataFrame = Checkpoint = EmbeddingSet = EmbeddingPlan = Side = Any

logger = logging.getLogger(__name__)


def embed_side(
    manifest: DataFrame,
    features: FeatureStore,
    stored_embeddings: EmbeddingSet | None,
    checkpoint: Checkpoint,
    backend_params: dict[str, Any],
    params: EmbedParams,
) -> EmbeddingPlan:
    """Plan the embeddings of all items with features of one side; saving the result computes those that are missing.

    Args:
        stored_embeddings: Embeddings made before, or None.
        backend_params: Parameters of the features' backend, which determines the side.

    Raises:
        CheckpointError: The checkpoint was made for other features.
    """
    from vmnet_pipeline.backends.registry import make_backend
    from vmnet_pipeline.inference.embeddings import plan_store_embeddings
    from vmnet_pipeline.models.checkpoints import check_fingerprints

    backend, fingerprint = make_backend(backend_params), features.fingerprint()
    check_fingerprints(checkpoint, {backend.modality: fingerprint} if fingerprint else {})
    ids = manifest.loc[manifest["status"] == "ok", "id"].tolist()
    side = next(side for side in SIDES if MODALITY_OF[side] == backend.modality)
    planned = plan_store_embeddings(
        features, ids, backend.pool, checkpoint, side, stored_embeddings, batch_size=params.batch_size
    )
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
