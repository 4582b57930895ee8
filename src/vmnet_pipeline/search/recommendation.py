"""Rank the items of a search index for an embedding or a media file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import FeatureStoreError, ParameterError, SearchIndexError
from vmnet_pipeline.inference.reasons import can_explain, explain_answers
from vmnet_pipeline.search.grouping import keep_best_of_groups
from vmnet_pipeline.search.judgement import judge_query, judge_scores
from vmnet_pipeline.search.reranking import N_CANDIDATES, PIECE_S, Reranking, align_stored, rerank_hits
from vmnet_pipeline.search.variety import diversify_hits
from vmnet_pipeline.search.words import search_words
from vmnet_pipeline.storage.names import normalise

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    import numpy as np

    from vmnet_pipeline.features.joint import JointStore
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.inference.embedder import Embedder
    from vmnet_pipeline.search.filters import Filter
    from vmnet_pipeline.search.vector_index import Hit, VectorIndex
    from vmnet_pipeline.search.words import WordQuery
    from vmnet_pipeline.types import ItemFeature, Side

HIDDEN_COLUMNS = ("id", "source")
"""Columns of an index that are not metadata."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One recommended item.

    Attributes:
        rank: 1 is the best.
        id: Item id.
        score: Cosine similarity to the query, -1 to 1; after re-ranking mixed with the agreement over time; with words
            how well it meets them and the rest of the query, -1 to 1.
        metadata: Title, duration_s, group, licence, tags, ... from the index; None for unknown values.
        fit: Probability that it belongs to the query, if one of the items searched does, 0-1; None if not known.
        percentile: Percentage of candidates that do not belong to a query whose score is lower, 0-100; None likewise.
        reasons: Words for the descriptors that raised the score, see `inference.reasons`; empty where none is known.
    """

    rank: int
    id: str
    score: float
    metadata: dict[str, Any]
    fit: float | None = None
    percentile: float | None = None
    reasons: str = ""


class Ranking(list[Recommendation]):
    """Recommended items, best first.

    Attributes:
        remark: What to know before using them, e.g. that nothing fits; may be empty.
        in_domain: Whether the query is like what the network was trained on; None if not known.
    """

    def __init__(self, items: Iterable[Recommendation] = (), remark: str = "", in_domain: bool | None = None) -> None:
        super().__init__(items)
        self.remark = remark
        self.in_domain = in_domain


def target_side(query: Side, *, same_side: bool) -> Side:
    """The side to search: the other one for what fits, the same one for what is similar."""
    other: Side = "music" if query == "video" else "video"
    return query if same_side else other


def rank_items(
    index: VectorIndex,
    vector: np.ndarray | None,
    *,
    top_k: int,
    filters: Sequence[Filter | str] = (),
    exclude: Collection[str] = (),
    reranking: Reranking | None = None,
    variety: float = 0.0,
    direction: str = "",
    one_per_group: bool = False,
    words: WordQuery | None = None,
) -> Ranking:
    """Rank the items of an index by their similarity to one embedding, by words, or by both.

    Args:
        index: Items of the target side.
        vector: (1, E) or (E,) float32 of unit length; None if there are only words.
        top_k: Most results.
        filters: Conditions that every result meets, e.g. `["group=jazz", "duration<60"]`.
        exclude: Ids that are never returned, e.g. that of the query itself.
        reranking: Scores the best hits again; None keeps the order of the index.
        variety: Share of the distance to better results in the order, 0-1; 0 keeps the order of the scores.
        direction: `video_to_music` or `music_to_video`: results get `fit` and `percentile`, by the cosine of the whole
            items. Anything else, e.g. `music_to_music`: they are not known.
        one_per_group: Keep the best item of each group.
        words: What is asked for in words; scores are then on another scale than cosines, from -1 to 1.

    Raises:
        ParameterError: Neither an embedding nor words, or words and a re-ranking.
        SearchIndexError: The embedding or a filter cannot be used.
    """
    excluded = {normalise(item_id) for item_id in exclude}
    n_candidates = max(top_k, reranking.n_candidates if reranking else 0, N_CANDIDATES if variety else 0)
    hits, cosines = _find_hits(
        index,
        vector,
        words,
        reranking,
        top_k=n_candidates,
        filters=filters,
        exclude=excluded,
        one_per_group=one_per_group,
    )
    if variety:
        hits = diversify_hits(hits, index.take_vectors([hit.position for hit in hits]), variety, top_k)
    hits = hits[:top_k]
    pool_size = index.count(filters) - len(excluded)
    judgement = judge_scores(index.about.get("calibration"), cosines, direction, max(pool_size, len(cosines)))
    metadata = list_metadata(index, [hit.position for hit in hits])
    items = [
        Recommendation(rank, hit.id, hit.score, known, judgement.fits.get(hit.id), judgement.percentiles.get(hit.id))
        for rank, (hit, known) in enumerate(zip(hits, metadata, strict=True), start=1)
    ]
    in_domain, unlike = judge_query(index.about.get("calibration"), vector, direction.partition("_to_")[0])
    remarks = (unlike, words.remark if words else "", judgement.remark)
    return Ranking(items, " ".join(filter(None, remarks)), in_domain)


def _find_hits(
    index: VectorIndex,
    vector: np.ndarray | None,
    words: WordQuery | None,
    reranking: Reranking | None,
    *,
    top_k: int,
    filters: Sequence[Filter | str],
    exclude: Collection[str],
    one_per_group: bool,
) -> tuple[list[Hit], dict[str, float]]:
    """Hits of a query, best first, and the cosines of the candidates by id; see `rank_items`."""
    if words is not None:
        if reranking:
            raise ParameterError("words cannot be combined with re-ranking; leave one of them out")
        top_k = len(index) if one_per_group else top_k
        hits, cosines = search_words(index, vector, words, top_k=top_k, filters=filters, exclude=exclude)
        return keep_best_of_groups(hits, index.items) if one_per_group else hits, cosines
    if vector is None:
        raise ParameterError("there is nothing to search with; give an embedding, words, or both")
    found = _find_candidates(index, vector, top_k, filters, exclude, one_per_group=one_per_group)
    hits = rerank_hits(found, reranking) if reranking else found
    hits = keep_best_of_groups(hits, index.items) if one_per_group else hits
    return hits, {hit.id: hit.score for hit in found}


def _find_candidates(
    index: VectorIndex,
    vector: np.ndarray,
    n: int,
    filters: Sequence[Filter | str],
    excluded: Collection[str],
    *,
    one_per_group: bool,
) -> list[Hit]:
    """The best n hits without the excluded ones; with `one_per_group`, so many that n groups are among them."""
    n_wanted = n + len(excluded)  # excluded items may take the first places
    while True:
        hits = index.search(vector, n_wanted, filters)[0]
        found = [hit for hit in hits if hit.id not in excluded]
        if not one_per_group or len(hits) < n_wanted or len(keep_best_of_groups(found, index.items)) >= n:
            return found
        n_wanted *= 4


def recommend(
    embedder: Embedder,
    index: VectorIndex,
    path: str | Path,
    query: Side,
    *,
    same_side: bool = False,
    top_k: int = 10,
    filters: Sequence[Filter | str] = (),
    exclude: Collection[str] = (),
    rerank: float | None = None,
    store: FeatureStore | JointStore | None = None,
    variety: float = 0.0,
    one_per_group: bool = False,
    words: WordQuery | None = None,
) -> Ranking:
    """Rank the items of an index for a media file.

    Args:
        embedder: The network that made the index.
        index: Items of the target side, see `target_side`.
        path: The media file.
        query: The side of the file to use: its frames (`video`) or its audio (`music`).
        same_side: Whether the index holds items of the same side as `query`.
        top_k: Most results.
        filters: See `rank_items`.
        exclude: See `rank_items`.
        rerank: Share of the agreement over time in the score, 0-1; None does not re-rank.
        store: Features of the indexed items; `rerank` needs them, and reasons.
        variety: See `rank_items`.
        one_per_group: See `rank_items`.
        words: See `rank_items`.

    Raises:
        SearchIndexError: The index was made with another network, or a filter cannot be used.
        CheckpointError: The store holds other features than the network was trained on.
        FeatureStoreError: `rerank` needs a feature that is missing.
        ParameterError: `rerank` without a store, or these features, or this tower, cannot be cut into pieces.
        MediaError: The file cannot be used.

    Example:
        Music for a video:

        >>> from vmnet_pipeline import Embedder
        >>> from vmnet_pipeline.search.index_files import load_index
        >>> embedder = Embedder.load(checkpoint)
        >>> index = load_index(folder / "music_index")
        >>> for item in recommend(embedder, index, video, "video", top_k=2):
        ...     print(item.rank, item.id, item.metadata["title"])
        1 m2 Two
        2 m1 One
    """
    if index.about.get("checkpoint") != embedder.digest:
        raise SearchIndexError(
            "the index was made with another checkpoint; rebuild it with `kedro run --pipelines=embed,index`, or pass "
            "the checkpoint that made it"
        )
    if rerank is not None and store is None:
        raise ParameterError("re-ranking needs the features of the indexed items: pass store=FeatureStore(FOLDER)")
    feature, side = embedder.extract(query, path), target_side(query, same_side=same_side)
    reranking = None
    if rerank is not None and store is not None:
        pieces = embedder.cut_pieces(query, PIECE_S).embed(feature)
        reranking = Reranking(partial(align_stored, embedder, pieces, side, store), rerank)
    vector = embedder.embed_feature(query, feature)
    ranking = rank_items(
        index,
        vector,
        top_k=top_k,
        filters=filters,
        exclude=exclude,
        reranking=reranking,
        variety=variety,
        one_per_group=one_per_group,
        direction=f"{query}_to_{side}",
        words=words,
    )
    return ranking if same_side or store is None else add_reasons(ranking, embedder, query, feature, store)


def add_reasons(
    ranking: Ranking, embedder: Embedder, query: Side, feature: ItemFeature, store: FeatureStore | JointStore
) -> Ranking:
    """Explain the answers as far as the network has descriptors, and the store their features.

    Args:
        ranking: Answers of the other side.
        embedder: The network.
        query: Side of the query.
        feature: Of the query, as the backend stores it.
        store: Features of the answers.
    """
    reasons = explain_stored(embedder, query, feature, store, [item.id for item in ranking])
    return Ranking(
        [replace(item, reasons=reasons.get(item.id, "")) for item in ranking], ranking.remark, ranking.in_domain
    )


def explain_stored(
    embedder: Embedder, query: Side, feature: ItemFeature, store: FeatureStore | JointStore, ids: Sequence[str]
) -> dict[str, str]:
    """Id to reasons, of those items that the store has and the network explains; otherwise as `add_reasons`."""
    known = {item_id: _load_feature(store, item_id) for item_id in ids} if can_explain(embedder) else {}
    found = {item_id: own for item_id, own in known.items() if own is not None}
    texts = explain_answers(embedder, query, feature, [*found.values()]) if found else []
    return dict(zip(found, texts, strict=True))


def _load_feature(store: FeatureStore | JointStore, item_id: str) -> ItemFeature | None:
    try:
        return store.load(item_id)
    except FeatureStoreError:  # an answer without reasons is still an answer
        return None


def list_metadata(index: VectorIndex, positions: Sequence[int]) -> list[dict[str, Any]]:
    """Metadata in some rows of an index as plain values; None for empty cells."""
    rows = index.items.take(list(positions)).drop(columns=list(HIDDEN_COLUMNS), errors="ignore").astype(object)
    return [
        {str(name): value for name, value in row.items()} for row in rows.where(rows.notna(), None).to_dict("records")
    ]
