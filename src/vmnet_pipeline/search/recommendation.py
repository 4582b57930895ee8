"""What fits a media file, or is like it: a file, a checkpoint and a search index to a ranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import SearchIndexError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from vmnet_pipeline.inference.embedder import Embedder
    from vmnet_pipeline.search.reranking import Reranking
    from vmnet_pipeline.search.vector_index import Hit, VectorIndex
    from vmnet_pipeline.types import Side

HIDDEN_COLUMNS = ("id", "source")
"""Columns of an index that are no metadata."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One answer.

    Attributes:
        rank: 1 is the best.
        id: Item id.
        score: Cosine similarity to the query, -1 to 1.
        metadata: What the index knows of the item: title, duration_s, group, licence, tags, ...; None where it does
            not.
    """

    rank: int
    id: str
    score: float
    metadata: dict[str, Any]


def answering_side(query: Side, *, same_side: bool) -> Side:
    """Whose index answers: that of the other side finds what fits, that of the same side what is alike."""
    other: Side = "music" if query == "video" else "video"
    return query if same_side else other


def recommend(
    embedder: Embedder,
    index: VectorIndex,
    path: str | Path,
    query: Side,
    *,
    top_k: int = 10,
    filters: Sequence[str] = (),
    reranking: Reranking | None = None,
) -> list[Recommendation]:
    """The items of an index that lie nearest to a media file.

    Args:
        embedder: The network that the index was made with.
        index: Of the side that is to be found, see `answering_side`.
        path: The media file.
        query: Which side of the file counts: its pictures (`video`) or its sound (`music`).
        top_k: How many answers.
        filters: Conditions on the answers, e.g. `["group=jazz", "duration<60"]`.
        reranking: How the best answers are compared again; None leaves them as they are.

    Raises:
        SearchIndexError: The index was made with another network, or a filter cannot be used.
        CheckpointError: The features for re-ranking are not those that the network was trained on.
        FeatureStoreError: The feature of an answer that is to be compared again is not to be had.
        ParameterError: These features, or towers, cannot be cut into pieces.
        MediaError: The file cannot be used.
    """
    if index.about.get("checkpoint") != embedder.digest:
        raise SearchIndexError(
            "the index was made with another checkpoint than this one; make it again with "
            "`kedro run --pipelines=embed,index`, or pass the checkpoint that it was made with"
        )
    feature = embedder.extract(query, path)
    n_wanted = max(top_k, reranking.n_candidates if reranking else 0)
    hits = index.search(embedder.embed_feature(query, feature), n_wanted, filters)[0]
    if reranking:
        hits = _rerank(embedder, query, feature, hits, reranking)[:top_k]
    metadata = list_metadata(index, [hit.position for hit in hits])
    return [
        Recommendation(rank, hit.id, hit.score, known)
        for rank, (hit, known) in enumerate(zip(hits, metadata, strict=True), start=1)
    ]


def _rerank(embedder: Embedder, query: Side, feature: np.ndarray, hits: list[Hit], reranking: Reranking) -> list[Hit]:
    from vmnet_pipeline.models.checkpoints import check_fingerprints
    from vmnet_pipeline.search.reranking import rerank_hits
    from vmnet_pipeline.types import MODALITY_OF

    fingerprint = reranking.store.fingerprint()
    if fingerprint:
        check_fingerprints(embedder.checkpoint, {MODALITY_OF[reranking.side]: fingerprint})
    pieces = embedder.cut_pieces(query, reranking.piece_s).embed(feature)
    return rerank_hits(hits, pieces, embedder.cut_pieces(reranking.side, reranking.piece_s), reranking)


def list_metadata(index: VectorIndex, positions: Sequence[int]) -> list[dict[str, Any]]:
    """What an index knows of the items in some of its rows, as plain values; None where it knows nothing."""
    rows = index.items.take(list(positions)).drop(columns=list(HIDDEN_COLUMNS), errors="ignore").astype(object)
    return [
        {str(name): value for name, value in row.items()} for row in rows.where(rows.notna(), None).to_dict("records")
    ]
