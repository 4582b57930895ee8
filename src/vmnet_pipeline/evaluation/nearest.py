"""The nearest items of the other side, found in one pass over chunks of both sides."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

GALLERY_CHUNK = 8192  # columns of scores made at a time
_RESCORE_BLOCK = 512  # small enough that its temporaries stay in the cache of a core


class TopAnswers:
    """The best `n` gallery rows of each query, merged over gallery chunks that come in rising order.

    Attributes:
        score: (n_queries, n) float32, falling; -inf where fewer than `n` rows were seen.
        column: (n_queries, n) int64 gallery rows.
    """

    def __init__(self, n_queries: int, n: int) -> None:
        self.n, self.n_seen = n, 0
        self.score = np.full((n_queries, n), -np.inf, dtype=np.float32)
        self.column = np.zeros((n_queries, n), dtype=np.int64)

    def update(self, scores: Array, first: int) -> None:
        """Take in the (q, g) scores of the gallery rows from `first`; in rows or in columns of memory."""
        if self.n == 0:
            return
        if self.n_seen < self.n:
            self._take_all(scores, first)
        else:
            self._take_better(scores, first)
        self.n_seen += scores.shape[1]

    def _take_all(self, scores: Array, first: int) -> None:
        keep = max(scores.shape[1] - self.n, 0)
        if keep:
            local = np.argpartition(scores, keep, axis=1)[:, keep:]
        else:
            local = np.tile(np.arange(scores.shape[1]), (len(scores), 1))
        score = np.concatenate([self.score, np.take_along_axis(scores, local, axis=1)], axis=1)
        column = np.concatenate([self.column, local + first], axis=1)
        best = np.lexsort((column, -score), axis=1)[:, : self.n]
        self.score = np.take_along_axis(score, best, axis=1)
        self.column = np.take_along_axis(column, best, axis=1)

    def _take_better(self, scores: Array, first: int) -> None:
        """After the first chunks few entries are better than the worst one kept: only these are sorted."""
        row, local = locate_true(scores > self.score[:, -1:])
        if not row.size:
            return
        changed = np.unique(row)
        kept_row = np.repeat(changed, self.n)
        rows = np.concatenate([kept_row, row])
        score = np.concatenate([self.score[changed].reshape(-1), scores[row, local]])
        column = np.concatenate([self.column[changed].reshape(-1), local + first])
        order = np.lexsort((column, -score, rows))
        size = np.bincount(np.searchsorted(changed, rows))
        start = np.cumsum(size) - size
        best = order[start[:, None] + np.arange(self.n)]  # (n_changed, n)
        self.score[changed], self.column[changed] = score[best], column[best]

    def sort(self, queries: Array, gallery: Array) -> Array:
        """Gallery rows (q, n) int64 by falling float64 score, ties to the lower row."""
        rows = np.repeat(np.arange(len(self.column)), self.n)
        exact = score_pairs(queries, gallery, rows, self.column.reshape(-1)).reshape(self.column.shape)
        return np.take_along_axis(self.column, np.lexsort((self.column, -exact), axis=1), axis=1)


def find_nearest(queries: Array, gallery: Array, n: int, chunk_size: int = 1024) -> tuple[TopAnswers, TopAnswers]:
    """The `n` nearest items of the other side for every query and for every gallery row, from one set of scores.

    Args:
        queries: (Nq, D) float32; the score is the inner product.
        gallery: (Ng, D) float32.
        n: Cut to the size of the other side.
        chunk_size: Queries scored together.
    """
    there = TopAnswers(len(queries), min(n, len(gallery)))
    back = TopAnswers(len(gallery), min(n, len(queries)))
    for first in range(0, len(queries), chunk_size):
        part = slice(first, first + chunk_size)
        row = TopAnswers(len(queries[part]), there.n)
        for column in range(0, len(gallery), GALLERY_CHUNK):
            scores = queries[part] @ gallery[column : column + GALLERY_CHUNK].T  # (q, g)
            row.update(scores, column)
            span = slice(column, column + scores.shape[1])
            _update_part(back, span, scores.T, first)
        there.score[part], there.column[part] = row.score, row.column
    return there, back


def _update_part(whole: TopAnswers, span: slice, scores: Array, first: int) -> None:
    """Update some queries only; `first` tells how many gallery rows these have seen."""
    part = TopAnswers(0, whole.n)
    part.n_seen, part.score, part.column = first, whole.score[span], whole.column[span]
    part.update(scores, first)
    whole.score[span], whole.column[span] = part.score, part.column


def score_pairs(queries: Array, gallery: Array, row: Array, column: Array) -> Array:
    """Inner products of chosen pairs, float64; equal rows give equal scores to the last bit."""
    scores = np.empty(len(row), dtype=np.float64)
    for first in range(0, len(row), _RESCORE_BLOCK):
        part = slice(first, first + _RESCORE_BLOCK)
        # multiply and sum: the order of additions depends on dim only, not on the place of the row
        scores[part] = np.multiply(queries[row[part]], gallery[column[part]], dtype=np.float64).sum(axis=1)
    return scores


def locate_true(mask: Array) -> tuple[Array, Array]:
    """Row and column of every true entry of a matrix, in the order of memory; fast where few are true."""
    if not mask.flags.c_contiguous and mask.flags.f_contiguous:
        column, row = locate_true(mask.T)
        return row, column
    row, column = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return row, column


def count_true(mask: Array) -> Array:
    """(n,) int64 true entries of each row of a matrix that lies in rows or in columns of memory."""
    if mask.flags.c_contiguous:
        return np.array([np.count_nonzero(row) for row in mask], dtype=np.int64)
    lines, counts = mask.T.view(np.uint8), np.zeros(len(mask), dtype=np.int64)
    for first in range(0, len(lines), 255):  # so many ones fit into a byte
        counts += np.add.reduce(lines[first : first + 255], axis=0, dtype=np.uint8)
    return counts
