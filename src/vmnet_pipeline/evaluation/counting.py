"""How many wrong answers stand above each right one: counted chunk by chunk, exact in spite of float32.

A float32 matrix product tells what is clearly above or below a positive. Whatever lies within the rounding error of
that product is scored again in float64 by a sum whose order does not depend on the place of the rows.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from vmnet_pipeline.evaluation.nearest import count_true, locate_true, score_pairs

Array: TypeAlias = npt.NDArray[Any]
Ties = Literal["mid", "lower_index"]

NDCG_K = 10
# A query with more near ties than this is a collapsed embedding: its near ties count as ties, whatever their scores.
# Less than the usual chunk, so that collapsed sides are recognised in the first one.
MAX_RESCORED = 1000
_FLOAT32_ROUNDING = 2.0**-24


def bound_rounding(queries: Array, gallery: Array) -> float:
    """Bound the error of a float32 inner product: dim u |q| |g|, and a few u for rounding the limits.

    Source: N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., eq. 3.5.
    """
    norm_q, norm_g = (float(np.sqrt(np.einsum("ij,ij->i", side, side).max())) for side in (queries, gallery))
    return float((queries.shape[1] + 8) * _FLOAT32_ROUNDING * norm_q * norm_g * 1.001)


class PairCounter:
    """Counts, for every (query, positive) pair of a chunk, the negatives above it and level with it.

    Args:
        queries: (q, dim) float32, a chunk of the queries.
        gallery: (n_gallery, dim) float32.
        counts: (q,) positives of each query.
        column: (n_pairs,) gallery rows of the positives, sorted by query.
        tolerance: Bound of the rounding error of a score.
        ties: Whether every equal negative counts as level, or only those of a lower gallery row.
    """

    def __init__(
        self, queries: Array, gallery: Array, counts: Array, column: Array, tolerance: float, ties: Ties
    ) -> None:
        self.queries, self.gallery, self.column, self.lower_only = queries, gallery, column, ties == "lower_index"
        self.row = np.repeat(np.arange(len(counts)), counts)
        self.score = score_pairs(queries, gallery, self.row, column)  # (n_pairs,) float64
        self.low = (self.score - tolerance).astype(np.float32)
        self.high = (self.score + tolerance).astype(np.float32)
        self.above, self.n_near, self.near_lower, self.exact_above, self.exact_equal = np.zeros(
            (5, len(column)), dtype=np.int64
        )
        slot = np.arange(len(column)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.slots = [np.flatnonzero(slot == s) for s in range(int(counts.max()))]

    def update(self, scores: Array, first: int) -> None:
        """Take in the (q, g) scores of the gallery rows from `first`; overwrites the positives' entries."""
        inside = (self.column >= first) & (self.column < first + scores.shape[1])
        scores[self.row[inside], self.column[inside] - first] = -np.inf
        for pairs in self.slots:
            block = scores if len(pairs) == len(scores) else scores[self.row[pairs]]
            above = block > self.high[pairs, None]
            near = block >= self.low[pairs, None]
            np.logical_xor(near, above, out=near)
            self.above[pairs] += count_true(above)
            self.n_near[pairs] += count_true(near)
            if self.lower_only:
                lower = first + np.arange(near.shape[1]) < self.column[pairs, None]
                self.near_lower[pairs] += count_true(near & lower)
            few = self.n_near[pairs] <= MAX_RESCORED
            local, offset = locate_true(near if few.all() else near[few])
            self._rescore(pairs[few][local], offset + first)

    def _rescore(self, pair: Array, column: Array) -> None:
        """Decide near ties; `pair` and `column` are (n,)."""
        exact = score_pairs(self.queries, self.gallery, self.row[pair], column)
        tied = exact == self.score[pair]
        if self.lower_only:
            tied &= column < self.column[pair]
        self.exact_above += self._sum_pairs(pair[exact > self.score[pair]])
        self.exact_equal += self._sum_pairs(pair[tied])

    def _sum_pairs(self, pair: Array) -> Array:
        return np.bincount(pair, minlength=len(self.column))

    def settle(self) -> tuple[Array, Array]:
        """(n_pairs,) negatives above and negatives that tie, after the whole gallery was taken in."""
        collapsed = self.n_near > MAX_RESCORED
        above = self.above + np.where(collapsed, 0, self.exact_above)
        return above, np.where(collapsed, self.near_lower if self.lower_only else self.n_near, self.exact_equal)


def combine_positives(row: Array, score: Array, above: Array, equal: Array, ties: Ties) -> tuple[Array, Array, Array]:
    """Ranks of the best positives, average precisions and nDCG at 10, from the pairs of a chunk sorted by query.

    Of p positives that tie with n negatives in random order, the t-th has t n / (p + 1) of them before it, and each
    of them is equally often on every one of the p + n places.
    """
    order = np.lexsort((above + equal, -score, row)) if ties == "lower_index" else np.lexsort((-score, row))
    row, score, above, equal = row[order], score[order], above[order], equal[order]
    place, n_positives = _number_runs(np.diff(row) != 0)
    if ties == "mid":
        tied_place, tied = _number_runs((np.diff(row) != 0) | (np.diff(score) != 0))
        before = above + equal * tied_place / (tied + 1.0)
        start, width = above + place - tied_place, tied + equal
    else:
        before = (above + equal).astype(np.float64)
        start, width = above + equal + place - 1, np.ones_like(place)
    best = place == 1
    precision = np.bincount(row, weights=place / (place + before)) / np.bincount(row)
    gain = np.bincount(row, weights=(sum_discounts(start + width) - sum_discounts(start)) / width)
    return 1.0 + before[best], precision, gain / sum_discounts(n_positives[best])


def sum_discounts(n_places: Array) -> Array:
    """Sum of the discounts 1 / log2(place + 1) of the first places, those after `NDCG_K` being 0."""
    total = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, NDCG_K + 2)))])
    summed: Array = total[np.minimum(n_places, NDCG_K)]
    return summed


def _number_runs(breaks: Array) -> tuple[Array, Array]:
    """For n entries with n - 1 breaks between them: 1-based place in the run, and size of the run."""
    first = np.flatnonzero(np.concatenate([[True], breaks]))
    size = np.diff(np.append(first, len(breaks) + 1))
    return np.arange(len(breaks) + 1) - np.repeat(first, size) + 1, np.repeat(size, size)
