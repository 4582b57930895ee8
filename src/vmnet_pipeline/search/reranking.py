"""Re-ranking by agreement over time: the best answers by whole-item embeddings, compared again piece by piece.

Music and pictures are cut into pieces of some seconds, the pieces are embedded by the same towers, and the sequences of
both sides are aligned in order (`retrieval.alignment`). What it gains is measured, see `reranking_gain`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.features.forms import FeatureForm, Side, embed_side
from vmnet_pipeline.retrieval.alignment import align_sequences, mix_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from vmnet_pipeline.backends.base import FeatureBackend
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.models.towers import VMNet
    from vmnet_pipeline.retrieval.index import Hit

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


class PieceEmbedder:
    """Embeds the pieces of items of one side."""

    def __init__(self, model: VMNet, form: FeatureForm, backend: FeatureBackend, piece_s: float) -> None:
        """Check that the features can be cut.

        Args:
            model: The network.
            form: What it takes on this side.
            backend: Made the features; not loaded.
            piece_s: Length of a piece.

        Raises:
            ParameterError: The tower takes items of one length, or the backend does not tell times.
        """
        if len(form.shape) == 2 and not form.takes_steps:
            raise ParameterError(
                f"the {form.side} tower takes {form.shape[0]} steps of every item, so items cannot be cut into pieces; "
                "leave re-ranking out, or train another tower (`train.model`)"
            )
        step_s = getattr(backend, "step_s", None)
        if not step_s:
            raise ParameterError(
                f"backend {backend.name!r} does not say how far apart its entries are; give it a property `step_s`, or "
                "leave re-ranking out"
            )
        self._model, self._form, self._pool = model, form, backend.pool
        self._steps_per_piece = piece_s / step_s

    def embed(self, feature: np.ndarray) -> np.ndarray:
        """One item's feature as it is stored, (T, D), to the embeddings of its pieces in order, (n, E), n >= 1.

        Pieces are of nearly one length: T steps shared out among as many pieces as come closest to the wanted length.

        Raises:
            ParameterError: The feature was stored pooled.
            EmbedderError: The feature does not fit the network.
        """
        import numpy as np

        if feature.ndim == 1:
            raise ParameterError(
                f"the {self._form.side} features are stored pooled and cannot be cut into pieces; extract them with "
                "pooled=false, or leave re-ranking out"
            )
        n_pieces = min(len(feature), max(1, round(len(feature) / self._steps_per_piece)))
        pieces = np.array_split(np.asarray(feature, np.float32), n_pieces)
        return embed_side(self._model, self._form.side, self._form.pack(pieces, self._pool))


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
