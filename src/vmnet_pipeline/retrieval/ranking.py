"""Exact ranks of the right answers in galleries that are too large for a full similarity matrix.

Scores are inner products. A float32 matrix product finds, chunk by chunk, what is clearly above a
positive; whatever lies within the rounding error of that product is scored again in float64. So ranks
are those of a float64 loop, whatever the chunk size and the linear algebra library.

Memory: the two sides, plus about `chunk_size * GALLERY_CHUNK * 8` bytes (70 MB at the default).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from vmnet_pipeline.errors import PairsError

if TYPE_CHECKING:
    from collections.abc import Sequence

Array: TypeAlias = npt.NDArray[Any]
Ties = Literal["mid", "lower_index"]

GALLERY_CHUNK = 8192
# A query with more near ties than this is a collapsed embedding: its near ties count as ties, unscored.
MAX_RESCORED = 1024
_RESCORE_BLOCK = 8192
_FLOAT32_ROUNDING = 2.0**-24


@dataclass(frozen=True, slots=True)
class RankedQueries:
    """What retrieval gives for each of n queries.

    Attributes:
        ranks: (n,) float64, >= 1, rank of the best positive.
        average_precision: (n,) float64, in (0, 1], over all positives of the query.
        n_positives: (n,) int64, >= 1, positives of the query in the gallery.
        top: (n, top_n) int64, gallery rows of the best answers, best first.
    """

    ranks: Array
    average_precision: Array
    n_positives: Array
    top: Array


@dataclass(frozen=True, slots=True)
class _Positives:
    """All (query, positive) pairs, sorted by query; `start` is (n_queries + 1,), `column` is (n_pairs,)."""

    start: Array
    column: Array


def rank_positives(
    queries: Array,
    gallery: Array,
    query_keys: Sequence[object] | Array | None = None,
    gallery_keys: Sequence[object] | Array | None = None,
    *,
    ties: Ties = "mid",
    chunk_size: int = 1024,
) -> Array:
    """Rank the best positive of every query; see `rank_queries`.

    Returns:
        (n_queries,) float64, >= 1; halves (and, with several positives, other fractions) come from ties.

    Raises:
        PairsError: As `rank_queries`.
    """
    return rank_queries(queries, gallery, query_keys, gallery_keys, ties=ties, chunk_size=chunk_size).ranks


def rank_queries(
    queries: Array,
    gallery: Array,
    query_keys: Sequence[object] | Array | None = None,
    gallery_keys: Sequence[object] | Array | None = None,
    *,
    ties: Ties = "mid",
    top_n: int = 0,
    chunk_size: int = 1024,
) -> RankedQueries:
    """Rank all positives of every query in the whole gallery.

    A gallery row is a positive of a query when their keys are equal. The best positive gives the rank;
    the other positives never push it down, they only count in the average precision.

    Args:
        queries: (n_queries, dim) floating; computed as float32.
        gallery: (n_gallery, dim) floating; computed as float32.
        query_keys: (n_queries,) labels; None means that row i of one side belongs to row i of the other.
        gallery_keys: (n_gallery,) labels; None together with `query_keys`.
        ties: `mid`: the expected place under random order of the tied items, which for one positive is the
            mid-rank. `lower_index`: of tied items the one with the lower gallery row is first.
        top_n: How many of the best answers to return for each query.
        chunk_size: Queries that are scored together, >= 1. It changes memory, never the result.

    Raises:
        PairsError: The sides do not fit together, hold NaN or infinity, or a query has no positive.
    """
    if chunk_size < 1:
        raise PairsError(f"chunk_size is {chunk_size}; give 1 or more.")
    queries, gallery = check_side(queries, "queries"), check_side(gallery, "gallery")
    if queries.shape[1] != gallery.shape[1]:
        raise PairsError(
            f"Queries have {queries.shape[1]} dimensions, the gallery {gallery.shape[1]}; embed both alike."
        )
    positives = _find_positives(query_keys, gallery_keys, len(queries), len(gallery))
    tolerance = _bound_rounding(queries, gallery)
    chunks = [
        _rank_chunk(queries, gallery, positives, (first, min(first + chunk_size, len(queries))), tolerance, ties, top_n)
        for first in range(0, len(queries), chunk_size)
    ]
    return RankedQueries(
        ranks=np.concatenate([chunk.ranks for chunk in chunks]),
        average_precision=np.concatenate([chunk.average_precision for chunk in chunks]),
        n_positives=np.diff(positives.start),
        top=np.concatenate([chunk.top for chunk in chunks]),
    )


def check_side(side: Array, name: str, ids: Sequence[str] | None = None) -> Array:
    """Check one side of a retrieval problem and give it as contiguous (n, dim) float32, n >= 1, dim >= 1.

    Args:
        side: (n, dim) floating.
        name: What to call it in messages.
        ids: (n,) names of the rows for messages; None uses row numbers.

    Raises:
        PairsError: Wrong number of dimensions or type, empty, or NaN or infinity; names the first rows.
    """
    array = np.asarray(side)
    if array.ndim != 2 or 0 in array.shape:
        raise PairsError(f"{name} has shape {array.shape}; it must be (n, dim) with n >= 1 and dim >= 1.")
    if array.dtype.kind != "f":
        raise PairsError(f"{name} has type {array.dtype}; it must be floating, e.g. float32.")
    array = np.ascontiguousarray(array, dtype=np.float32)
    # A row's sum is finite exactly when no entry is NaN or infinite (float64 cannot overflow here).
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(~np.isfinite(array.sum(axis=1, dtype=np.float64)))
    if bad.size:
        rows = bad[:5].tolist() if ids is None or len(ids) != len(array) else [str(ids[row]) for row in bad[:5]]
        raise PairsError(f"{name} holds NaN or infinity in {bad.size} row(s), first {rows}; embed them again.")
    return array


def _find_positives(
    query_keys: Sequence[object] | Array | None,
    gallery_keys: Sequence[object] | Array | None,
    n_query: int,
    n_gallery: int,
) -> _Positives:
    if query_keys is None and gallery_keys is None:
        if n_query != n_gallery:
            raise PairsError(
                f"{n_query} queries, {n_gallery} gallery rows: give keys, or equally many rows in pair order."
            )
        return _Positives(np.arange(n_query + 1), np.arange(n_query))
    if query_keys is None or gallery_keys is None or len(query_keys) != n_query or len(gallery_keys) != n_gallery:
        raise PairsError("query_keys and gallery_keys go together, one key for each row of their side.")
    labels = np.concatenate([np.asarray(query_keys), np.asarray(gallery_keys)])
    codes = np.unique(labels, return_inverse=True)[1].reshape(-1)
    return _match_codes(codes[:n_query], codes[n_query:])


def _match_codes(query_codes: Array, gallery_codes: Array) -> _Positives:
    order = np.argsort(gallery_codes, kind="stable")
    first = np.searchsorted(gallery_codes[order], query_codes, side="left")
    counts = np.searchsorted(gallery_codes[order], query_codes, side="right") - first
    if (counts == 0).any():
        lone = np.flatnonzero(counts == 0)
        raise PairsError(
            f"{lone.size} query row(s) have no positive in the gallery, first {lone[:5].tolist()}; leave them out."
        )
    start = np.concatenate([[0], np.cumsum(counts)])
    within = np.arange(start[-1]) - np.repeat(start[:-1], counts)
    return _Positives(start, order[np.repeat(first, counts) + within])


def _bound_rounding(queries: Array, gallery: Array) -> float:
    """Bound the error of a float32 inner product: dim u |q| |g|, and a few u for rounding the limits.

    Source: N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., eq. 3.5.
    """
    norm_q, norm_g = (float(np.sqrt(np.einsum("ij,ij->i", side, side).max())) for side in (queries, gallery))
    return float((queries.shape[1] + 8) * _FLOAT32_ROUNDING * norm_q * norm_g * 1.001)


def _rank_chunk(
    queries: Array,
    gallery: Array,
    positives: _Positives,
    span: tuple[int, int],
    tolerance: float,
    ties: Ties,
    top_n: int,
) -> RankedQueries:
    start = positives.start[span[0] : span[1] + 1]
    column = positives.column[start[0] : start[-1]]
    counts = np.diff(start)
    counter = _PairCounter(queries[span[0] : span[1]], gallery, counts, column, tolerance, ties)
    top = _TopAnswers(len(counts), min(top_n, len(gallery)))
    for first in range(0, len(gallery), GALLERY_CHUNK):
        scores = counter.queries @ gallery[first : first + GALLERY_CHUNK].T  # (q, g)
        top.update(scores, first)
        counter.update(scores, first)
    above, equal = counter.settle()
    ranks, precision = _combine_positives(counter.row, counter.score, above, equal, ties)
    return RankedQueries(ranks, precision, counts, top.sort(counter.queries, gallery))


class _PairCounter:
    """Counts, for every (query, positive) pair of a chunk, the negatives above it and level with it."""

    def __init__(
        self, queries: Array, gallery: Array, counts: Array, column: Array, tolerance: float, ties: Ties
    ) -> None:
        self.queries, self.gallery, self.column, self.lower_only = queries, gallery, column, ties == "lower_index"
        self.row = np.repeat(np.arange(len(counts)), counts)
        self.score = _score_pairs(queries, gallery, self.row, column)  # (n_pairs,) float64
        self.low = (self.score - tolerance).astype(np.float32)
        self.high = (self.score + tolerance).astype(np.float32)
        self.above = np.zeros(len(column), dtype=np.int64)
        self.n_near = np.zeros(len(column), dtype=np.int64)
        self.near_equal = np.zeros(len(column), dtype=np.int64)
        self.near: list[tuple[Array, Array]] = []
        slot = np.arange(len(column)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.slots = [np.flatnonzero(slot == s) for s in range(int(counts.max()))]

    def update(self, scores: Array, first: int) -> None:
        """Take in the (q, g) scores of the gallery rows from `first`; overwrites the positives' entries."""
        inside = (self.column >= first) & (self.column < first + scores.shape[1])
        scores[self.row[inside], self.column[inside] - first] = -np.inf
        for pairs in self.slots:
            block = scores if len(pairs) == len(scores) else scores[self.row[pairs]]
            above = block > self.high[pairs, None]
            self.above[pairs] += np.count_nonzero(above, axis=1)
            near = (block >= self.low[pairs, None]) ^ above
            local, offset = np.nonzero(near)
            self._keep_near(pairs[local], offset + first)

    def _keep_near(self, pair: Array, column: Array) -> None:
        self.n_near += np.bincount(pair, minlength=len(self.column))
        weight = (column < self.column[pair]) if self.lower_only else None
        self.near_equal += np.bincount(pair, weights=weight, minlength=len(self.column)).astype(np.int64)
        few = self.n_near[pair] <= MAX_RESCORED
        self.near.append((pair[few], column[few]))

    def settle(self) -> tuple[Array, Array]:
        """Score the near ties exactly; (n_pairs,) negatives above and negatives that tie."""
        collapsed = self.n_near > MAX_RESCORED
        equal = np.where(collapsed, self.near_equal, 0)
        pair = np.concatenate([kept[0] for kept in self.near])
        column = np.concatenate([kept[1] for kept in self.near])
        pair, column = pair[~collapsed[pair]], column[~collapsed[pair]]
        exact = _score_pairs(self.queries, self.gallery, self.row[pair], column)
        self.above += np.bincount(pair[exact > self.score[pair]], minlength=len(self.column))
        tied = exact == self.score[pair]
        if self.lower_only:
            tied &= column < self.column[pair]
        return self.above, equal + np.bincount(pair[tied], minlength=len(self.column))


def _score_pairs(queries: Array, gallery: Array, row: Array, column: Array) -> Array:
    """Inner products of chosen pairs, float64; equal rows give equal scores to the last bit."""
    scores = np.empty(len(row), dtype=np.float64)
    for first in range(0, len(row), _RESCORE_BLOCK):
        part = slice(first, first + _RESCORE_BLOCK)
        # multiply and sum: the order of additions depends on dim only, not on the place of the row
        scores[part] = np.multiply(queries[row[part]], gallery[column[part]], dtype=np.float64).sum(axis=1)
    return scores


def _combine_positives(row: Array, score: Array, above: Array, equal: Array, ties: Ties) -> tuple[Array, Array]:
    """Ranks of the best positives and average precisions, from the pairs of a chunk sorted by query.

    Of p positives that tie with n negatives in random order, the t-th has t n / (p + 1) of them before it.
    """
    order = np.lexsort((above + equal, -score, row)) if ties == "lower_index" else np.lexsort((-score, row))
    row, score = row[order], score[order]
    before = (above + equal)[order].astype(np.float64)
    if ties == "mid":
        place, size = _number_runs((np.diff(row) != 0) | (np.diff(score) != 0))
        before = above[order] + equal[order] * place / (size + 1.0)
    place, size = _number_runs(np.diff(row) != 0)
    precision = np.bincount(row, weights=place / (place + before)) / np.bincount(row)
    return 1.0 + before[place == 1], precision


def _number_runs(breaks: Array) -> tuple[Array, Array]:
    """For n entries with n - 1 breaks between them: 1-based place in the run, and size of the run."""
    first = np.flatnonzero(np.concatenate([[True], breaks]))
    size = np.diff(np.append(first, len(breaks) + 1))
    return np.arange(len(breaks) + 1) - np.repeat(first, size) + 1, np.repeat(size, size)


class _TopAnswers:
    """The best `n` gallery rows of each query, merged over gallery chunks."""

    def __init__(self, n_queries: int, n: int) -> None:
        self.n = n
        self.score = np.full((n_queries, n), -np.inf, dtype=np.float32)
        self.column = np.zeros((n_queries, n), dtype=np.int64)

    def update(self, scores: Array, first: int) -> None:
        """Take in the (q, g) scores of the gallery rows from `first`."""
        if self.n == 0:
            return
        better = np.flatnonzero(scores.max(axis=1) > self.score.min(axis=1))
        block = scores[better]
        keep = max(block.shape[1] - self.n, 0)
        local = (
            np.argpartition(block, keep, axis=1)[:, keep:]
            if keep
            else np.tile(np.arange(block.shape[1]), (len(block), 1))
        )
        score = np.concatenate([self.score[better], np.take_along_axis(block, local, axis=1)], axis=1)
        column = np.concatenate([self.column[better], local + first], axis=1)
        best = np.lexsort((column, -score), axis=1)[:, : self.n]
        self.score[better] = np.take_along_axis(score, best, axis=1)
        self.column[better] = np.take_along_axis(column, best, axis=1)

    def sort(self, queries: Array, gallery: Array) -> Array:
        """Gallery rows (q, n) int64 by falling float64 score, ties to the lower row."""
        rows = np.repeat(np.arange(len(self.column)), self.n)
        exact = _score_pairs(queries, gallery, rows, self.column.reshape(-1)).reshape(self.column.shape)
        return np.take_along_axis(self.column, np.lexsort((self.column, -exact), axis=1), axis=1)
