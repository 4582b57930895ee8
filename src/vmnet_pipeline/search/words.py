"""Rank items by words, alone or together with a query by media.

Both scores are put on one scale before they are mixed. That of the media is the logarithm of the likelihood ratio that
the network's calibration gives (`evaluation.calibration`): of a network that knows nothing it is the same for all
items, and words decide. Without a calibration it is the cosine in deviations from the mean of the library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.search.judgement import read_calibration
from vmnet_pipeline.search.vector_index import Hit
from vmnet_pipeline.words.qualities import join_clauses

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from vmnet_pipeline.search.filters import Filter
    from vmnet_pipeline.search.vector_index import VectorIndex
    from vmnet_pipeline.words.asking import Clause
    from vmnet_pipeline.words.qualities import Qualities
    from vmnet_pipeline.words.understanding import Wishes

DEFAULT_WEIGHT = 0.5
N_BEST = 1000
"""Best items by words, and by the media, among which the mixed scores choose."""
N_SAMPLE = 1000
"""Items that tell the mean cosine of a library where there is no calibration."""


@dataclass(frozen=True, slots=True)
class WordQuery:
    """What is asked for in words.

    Attributes:
        ids: Items of the target side.
        scores: (n,) float64, how well each meets the words, in deviations from the mean item; -inf where not known.
        weight: Share of the words in the score of a query that has media too, 0-1.
        remark: How the words were understood; may be empty.
    """

    ids: Sequence[str]
    scores: np.ndarray
    weight: float = DEFAULT_WEIGHT
    remark: str = ""


def ask_by_qualities(wishes: Wishes, qualities: Qualities, weight: float = DEFAULT_WEIGHT) -> WordQuery:
    """A query by tags, classes and descriptors."""
    return WordQuery(qualities.ids, qualities.score(wishes), weight, wishes.remark)


def ask_in_space(
    clauses: Sequence[Clause],
    texts: np.ndarray,
    ids: Sequence[str],
    vectors: np.ndarray,
    weight: float = DEFAULT_WEIGHT,
) -> WordQuery:
    """A query in a space that items and texts are embedded in.

    Args:
        clauses: Of the text.
        texts: (n_clauses, E) their embeddings, unit rows.
        ids: Items of the target side.
        vectors: (n, E) their embeddings, unit rows.
        weight: See `WordQuery`.
    """
    likeness = np.asarray(vectors, np.float32) @ np.asarray(texts, np.float32).T
    parts = [(own.astype(np.float64), clause.is_excluded) for own, clause in zip(likeness.T, clauses, strict=True)]
    return WordQuery(ids, join_clauses(parts, np.ones(len(ids), dtype=bool)), weight)


def search_words(
    index: VectorIndex,
    vector: np.ndarray | None,
    words: WordQuery,
    *,
    top_k: int,
    filters: Sequence[Filter | str] = (),
    exclude: Collection[str] = (),
) -> tuple[list[Hit], dict[str, float]]:
    """Find the items that meet words best.

    Args:
        index: Items of the target side.
        vector: (1, E) or (E,) embedding of the media; None: there are only words.
        words: What is asked for.
        top_k: Most results.
        filters: See `rank_items`.
        exclude: Ids, normalised, that are never returned.

    Returns:
        Hits, best first, with scores from -1 to 1, 0 for a middling item; and the cosines of the candidates by id.

    Raises:
        SearchIndexError: A filter cannot be used.
    """
    ids = index.items["id"].astype("str").to_numpy()
    allowed = index.select(filters) & ~np.isin(ids, list(exclude))
    scores = _score_positions(ids, words)
    if vector is None:
        places = _take_best(np.where(allowed, scores, -np.inf), top_k)
        return [Hit(ids[place], _squash(scores[place]), int(place)) for place in places], {}
    if not allowed.any():
        return [], {}
    asked = index.search(vector, N_BEST + len(exclude), filters)[0]
    found = {hit.position for hit in asked if allowed[hit.position]}
    found |= set(_take_best(np.where(allowed, scores, -np.inf), N_BEST).tolist())
    candidates = np.array(sorted(found), np.int64)
    cosines = np.asarray(index.take_vectors(candidates.tolist()) @ np.reshape(vector, -1), np.float64)
    known = np.where(np.isfinite(scores[candidates]), scores[candidates], 0.0)  # nothing known: a middling item
    mixed = (1.0 - words.weight) * _rate_cosines(index, np.reshape(vector, -1), cosines) + words.weight * known
    order = np.lexsort((-cosines, -mixed))[:top_k]
    hits = [Hit(ids[candidates[row]], _squash(mixed[row]), int(candidates[row])) for row in order]
    return hits, dict(zip(ids[candidates].tolist(), cosines.tolist(), strict=True))


def _score_positions(ids: np.ndarray, words: WordQuery) -> np.ndarray:
    """(n,) scores by words of the rows of an index; -inf where nothing is known."""
    import pandas as pd

    scores = pd.Series(words.scores, index=list(words.ids))
    return np.asarray(scores.reindex(ids).fillna(-np.inf).to_numpy(np.float64))


def _take_best(scores: np.ndarray, n: int) -> np.ndarray:
    """Places of the n best scores that are finite, best first; of equal ones the first."""
    order = np.argsort(-scores, kind="stable")[:n]
    return np.asarray(order[np.isfinite(scores[order])])


def _rate_cosines(index: VectorIndex, vector: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    """Cosines to the scale of the words."""
    calibration = read_calibration(index.about.get("calibration"))
    if calibration is not None and calibration.curve is not None:
        return calibration.curve.find_log_ratio(cosines)
    alive = np.flatnonzero(index.alive)
    sample = alive[np.unique(np.linspace(0, len(alive) - 1, min(len(alive), N_SAMPLE)).astype(np.int64))]
    others = index.take_vectors(sample.tolist()) @ vector
    std = float(others.std())
    return np.asarray((cosines - float(others.mean())) / (std if std > 1e-9 else 1.0))


def _squash(score: float) -> float:
    return float(np.tanh(0.5 * score))
