"""Re-ranking by agreement over time: the best answers by whole-item embeddings, compared again piece by piece.

Music and pictures are cut into pieces of some seconds, the pieces are embedded by the same towers, and the sequences of
both sides are aligned in order (`retrieval.alignment`). What it gains is measured, see `reranking_gain`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vmnet_pipeline.search.dtw import align_sequences, mix_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.inference.pieces import PieceEmbedder
    from vmnet_pipeline.search.vector_index import Hit
    from vmnet_pipeline.types import Side

PIECE_S = 3.0
N_CANDIDATES = 50


@dataclass(frozen=True, slots=True)
class Reranking:
    """How answers are compared again.

    Attributes:
        side: The side that answers.
        store: Its features.
        weight: Share of the agreement over time in the score, 0-1; the rest is the cosine of the whole items.
        n_candidates: How many of the best answers are compared again.
        piece_s: Length of a piece.
    """

    side: Side
    store: FeatureStore
    weight: float
    n_candidates: int = N_CANDIDATES
    piece_s: float = PIECE_S


def rerank_hits(hits: Sequence[Hit], query: np.ndarray, answers: PieceEmbedder, reranking: Reranking) -> list[Hit]:
    """Order the answers of an index anew.

    Args:
        hits: The answers, best first.
        query: (n, E) embeddings of the pieces of the query.
        answers: Embeds the pieces of the side that answers.
        reranking: Where the features are, and how they count.

    Returns:
        The first `n_candidates` answers with mixed scores, best first; after them the others as they were.

    Raises:
        FeatureStoreError: The feature of an answer is not to be had.
    """
    candidates, others = hits[: reranking.n_candidates], hits[reranking.n_candidates :]
    if not candidates:
        return list(hits)
    import numpy as np

    agreements = align_sequences(query, [answers.embed(reranking.store.load(hit.id)) for hit in candidates])
    scores = mix_scores(np.array([hit.score for hit in candidates]), agreements, reranking.weight)
    mixed = [replace(hit, score=float(score)) for hit, score in zip(candidates, scores, strict=True)]
    return [*sorted(mixed, key=lambda hit: -hit.score), *others]
