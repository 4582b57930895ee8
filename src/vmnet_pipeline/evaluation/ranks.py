"""Exact ranks of the right answers in galleries that are too large for a full similarity matrix.

Scores are inner products. A float32 matrix product finds, chunk by chunk, what is clearly above a
positive; whatever lies within the rounding error of that product is scored again in float64. So ranks
are those of a float64 loop, whatever the chunk size and the linear algebra library.

Both directions can share one set of scores: a chunk is read by rows for its queries and by columns for its
gallery rows, so that the whole costs one matrix product instead of two.

Memory: the two sides, about `chunk_size * GALLERY_CHUNK * 8` bytes (70 MB at the default), and some tens of numbers
per item.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.evaluation.counting import PairCounter, Ties, bound_rounding, combine_positives
from vmnet_pipeline.evaluation.nearest import GALLERY_CHUNK, TopAnswers

if TYPE_CHECKING:
    from collections.abc import Sequence

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class RankedQueries:
    """What retrieval gives for each of n queries.

    Attributes:
        ranks: (n,) float64, >= 1, rank of the best positive.
        average_precision: (n,) float64, in (0, 1], over all positives of the query.
        ndcg: (n,) float64, in [0, 1], normalised discounted cumulative gain at 10, every positive counting 1.
        n_positives: (n,) int64, >= 1, positives of the query in the gallery.
        top: (n, top_n) int64, gallery rows of the best answers, best first.
    """

    ranks: Array
    average_precision: Array
    ndcg: Array
    n_positives: Array
    top: Array

    @classmethod
    def join(cls, parts: Sequence[RankedQueries]) -> RankedQueries:
        """The queries of all parts, in order."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


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
    queries, gallery = _check_sides(queries, gallery, chunk_size)
    positives = _find_positives(query_keys, gallery_keys, len(queries), len(gallery))
    task = _Task(queries, gallery, bound_rounding(queries, gallery), ties, top_n)
    return _run_chunks(task, positives, None, chunk_size)[0]


def rank_both(
    music: Array,
    video: Array,
    music_keys: Sequence[object] | Array | None = None,
    video_keys: Sequence[object] | Array | None = None,
    *,
    ties: Ties = "mid",
    top_n: int = 0,
    chunk_size: int = 1024,
) -> tuple[RankedQueries, RankedQueries]:
    """Rank in both directions from one set of scores; see `rank_queries`, which this equals for each direction.

    Returns:
        Music items as queries among the videos, and videos as queries among the music items.

    Raises:
        PairsError: As `rank_queries`.
    """
    music, video = _check_sides(music, video, chunk_size)
    there = _find_positives(music_keys, video_keys, len(music), len(video))
    back = _find_positives(video_keys, music_keys, len(video), len(music))
    task = _Task(music, video, bound_rounding(music, video), ties, top_n)
    forward, backward = _run_chunks(task, there, back, chunk_size)
    return forward, backward


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


def _check_sides(queries: Array, gallery: Array, chunk_size: int) -> tuple[Array, Array]:
    if chunk_size < 1:
        raise PairsError(f"chunk_size is {chunk_size}; give 1 or more.")
    queries, gallery = check_side(queries, "queries"), check_side(gallery, "gallery")
    if queries.shape[1] != gallery.shape[1]:
        raise PairsError(
            f"Queries have {queries.shape[1]} dimensions, the gallery {gallery.shape[1]}; embed both alike."
        )
    return queries, gallery


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


@dataclass(frozen=True, slots=True)
class _Task:
    """What all chunks of one direction have in common."""

    queries: Array
    gallery: Array
    tolerance: float
    ties: Ties
    top_n: int

    def turn(self) -> _Task:
        """The other direction."""
        return _Task(self.gallery, self.queries, self.tolerance, self.ties, self.top_n)


class _Chunk:
    """Some queries on their way through the gallery."""

    def __init__(self, task: _Task, positives: _Positives, first: int, size: int) -> None:
        start = positives.start[first : first + size + 1]
        self.n_positives, self.gallery = np.diff(start), task.gallery
        self.queries, self.ties = task.queries[first : first + size], task.ties
        column = positives.column[start[0] : start[-1]]
        self.counter = PairCounter(self.queries, task.gallery, self.n_positives, column, task.tolerance, task.ties)
        self.top = TopAnswers(len(self.queries), min(task.top_n, len(task.gallery)))

    def settle(self) -> RankedQueries:
        above, equal = self.counter.settle()
        figures = combine_positives(self.counter.row, self.counter.score, above, equal, self.ties)
        return RankedQueries(*figures, self.n_positives, self.top.sort(self.queries, self.gallery))


def _run_chunks(task: _Task, positives: _Positives, back: _Positives | None, chunk_size: int) -> list[RankedQueries]:
    """Rank the queries of a task and, with the positives of the other direction, those of its turn."""
    columns = range(0, len(task.gallery), GALLERY_CHUNK)
    turned = [] if back is None else [_Chunk(task.turn(), back, column, GALLERY_CHUNK) for column in columns]
    done = []
    for first in range(0, len(task.queries), chunk_size):
        chunk = _Chunk(task, positives, first, chunk_size)
        for number, column in enumerate(columns):
            scores = chunk.queries @ task.gallery[column : column + GALLERY_CHUNK].T  # (q, g)
            views = [(chunk, scores, column), *((other, scores.T, first) for other in turned[number : number + 1])]
            for reader, view, seen in views:
                reader.top.update(view, seen)
            for reader, view, seen in views:  # only now: counting overwrites the scores of the positives
                reader.counter.update(view, seen)
        done.append(chunk.settle())
    return [RankedQueries.join(done), *([RankedQueries.join([chunk.settle() for chunk in turned])] if turned else [])]


CHUNK_ROWS = 1024


def rank_matches(queries: Tensor, gallery: Tensor, codes: Tensor, chunk_size: int = CHUNK_ROWS) -> Tensor:
    """Rank of each query's best match in the whole gallery, 1-based, ties by mid-rank.

    Args:
        queries: (n, E) unit vectors.
        gallery: (n, E) unit vectors; row i matches query j when their codes are equal.
        codes: (n,) integers.
        chunk_size: Queries per step; memory is chunk_size x n.

    Returns:
        (n,) float64, 1 to n.
    """
    ranks = []
    for start in range(0, len(queries), chunk_size):
        similarity = queries[start : start + chunk_size] @ gallery.T
        matches = codes[start : start + chunk_size, None] == codes[None, :]
        best = similarity.masked_fill(~matches, -torch.inf).amax(dim=1, keepdim=True)
        n_above = ((similarity > best) & ~matches).sum(dim=1)
        n_equal = ((similarity == best) & ~matches).sum(dim=1)
        ranks.append(1.0 + n_above.double() + 0.5 * n_equal.double())
    return torch.cat(ranks)
