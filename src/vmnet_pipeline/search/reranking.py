"""Re-rank search hits by how well query and item agree over time.

Audio and frames are cut into pieces of some seconds, the same towers embed the pieces, and the two sequences are
aligned in order (`search.dtw`). `experiments.reranking` measures what that gains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from vmnet_pipeline.errors import CheckpointError
from vmnet_pipeline.search.dtw import align_sequences, mix_scores
from vmnet_pipeline.types import MODALITY_OF

if TYPE_CHECKING:
    from pathlib import Path

    from vmnet_pipeline.features.joint import JointStore
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.inference.embedder import Embedder
    from vmnet_pipeline.search.vector_index import Hit
    from vmnet_pipeline.types import Side

PIECE_S = 3.0
N_CANDIDATES = 50

Align: TypeAlias = Callable[[Sequence[str]], np.ndarray]
"""Item ids to their agreement with the query over time: (k,) float64, -1 to 1."""


@dataclass(frozen=True, slots=True)
class Reranking:
    """How the best hits of a query are scored again.

    Attributes:
        align: Agreement of items with the query.
        weight: Share of that agreement in the score, 0-1; the rest is the cosine of the whole items.
        n_candidates: How many of the best hits are scored again.
    """

    align: Align
    weight: float
    n_candidates: int = N_CANDIDATES


def rerank_hits(hits: Sequence[Hit], reranking: Reranking) -> list[Hit]:
    """Sort the first `n_candidates` hits by mixed scores; the others follow unchanged."""
    candidates, others = hits[: reranking.n_candidates], hits[reranking.n_candidates :]
    if not candidates:
        return list(hits)
    agreements = reranking.align([hit.id for hit in candidates])
    scores = mix_scores(np.array([hit.score for hit in candidates]), agreements, reranking.weight)
    mixed = [replace(hit, score=float(score)) for hit, score in zip(candidates, scores, strict=True)]
    return [*sorted(mixed, key=lambda hit: -hit.score), *others]


def open_features(embedder: Embedder, folder: Path, side: Side) -> FeatureStore | JointStore:
    """Open the stores of the features of one side that a network was trained on; `folder` holds the stores.

    Raises:
        CheckpointError: The checkpoint does not say which features those are.
    """
    from vmnet_pipeline.features.joint import join_stores
    from vmnet_pipeline.features.store import FeatureStore

    fingerprint = embedder.checkpoint.fingerprints.get(MODALITY_OF[side])
    if fingerprint is None:
        raise CheckpointError(
            f"the checkpoint does not say which {side} features it was trained on, so items cannot be compared piece "
            "by piece; leave re-ranking out"
        )
    return join_stores({part.backend: FeatureStore(folder / part.backend) for part in fingerprint.parts})


def align_stored(
    embedder: Embedder, pieces: np.ndarray, side: Side, store: FeatureStore | JointStore, ids: Sequence[str]
) -> np.ndarray:
    """Align the (n, E) pieces of a query with those of stored items of the target side: (k,) float64.

    Raises:
        CheckpointError: The network was trained on other features.
        FeatureStoreError: The feature of an item is missing or damaged.
        ParameterError: The features cannot be cut into pieces.
    """
    from vmnet_pipeline.models.checkpoints import check_fingerprints

    fingerprint = store.fingerprint()
    if fingerprint:
        check_fingerprints(embedder.checkpoint, {MODALITY_OF[side]: fingerprint})
    target = embedder.cut_pieces(side, PIECE_S)
    return align_sequences(pieces, [target.embed(store.load(item_id)) for item_id in ids])
