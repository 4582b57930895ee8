"""Rank the relevant items of queries in galleries too large for a whole score matrix.

Scores are inner products. A matrix product in the type of the embeddings, made block by block, finds what is clearly
above a positive; what lies within its rounding error is scored again in float64, and what lies within the rounding
error of that is a tie. So neither block sizes nor the linear algebra library change a rank. Why not float64 at once:
such a product takes twice the time of a float32 one, and is most of the work.

Each block serves both directions, by rows and by columns: one matrix product instead of two.

Memory: both sets of embeddings, about `chunk_size * GALLERY_CHUNK * 8` bytes (35 MB at the default), and some tens of
numbers per item.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vmnet_pipeline.evaluation.masks import count_true, locate_true
from vmnet_pipeline.evaluation.positives import (
    Positives,
    Ties,
    check_both,
    combine_positives,
    find_positives,
    match_codes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vmnet_pipeline.evaluation.positives import Keys
    from vmnet_pipeline.types import Array


GALLERY_CHUNK = 4096  # columns of scores made at a time
# A query with more near ties than this is a collapsed embedding: its near ties count as ties, whatever their scores, as
# to score all of them again would take hours. Less than a chunk, so that it is recognised in the first one.
MAX_RESCORED = 1000
_RESCORED_TOGETHER = 512  # small enough that the temporaries stay in the cache of a core


@dataclass(frozen=True, slots=True)
class RankedQueries:
    """Result of n queries.

    Attributes:
        ranks: (n,) float64, >= 1, rank of the best positive; fractions come from ties.
        average_precision: (n,) float64, in (0, 1], over all positives of the query.
        ndcg: (n,) float64, in [0, 1], normalised discounted cumulative gain at 10, every positive counting 1.
        n_positives: (n,) int64, >= 1, positives of the query in the gallery.
        top: (n, top_n) int64, gallery rows of the highest scores, best first.
    """

    ranks: Array
    average_precision: Array
    ndcg: Array
    n_positives: Array
    top: Array

    @classmethod
    def join(cls, parts: Sequence[RankedQueries]) -> RankedQueries:
        """Concatenate the queries of all parts, in order."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def rank_queries(
    queries: Array,
    gallery: Array,
    query_keys: Keys = None,
    gallery_keys: Keys = None,
    *,
    ties: Ties = "mid",
    top_n: int = 0,
    chunk_size: int = 1024,
) -> RankedQueries:
    """Rank all positives of every query in the whole gallery.

    A gallery row is a positive of a query when their keys are equal. The best positive gives the rank;
    the other positives never push it down, they only count in the average precision.

    Args:
        queries: (n_queries, dim) floating; taken as float32.
        gallery: (n_gallery, dim) floating; taken as float32.
        query_keys: (n_queries,) labels; None means that row i of one set belongs to row i of the other.
        gallery_keys: (n_gallery,) labels; None together with `query_keys`.
        ties: `mid`: the expected place under random order of the tied items, which for one positive is the
            mid-rank. `lower_index`: of tied items the one with the lower gallery row is first.
        top_n: Number of gallery rows to return for each query.
        chunk_size: Queries scored together, >= 1. It changes memory, never the result.

    Raises:
        PairsError: Shapes do not fit, values are NaN or infinite, or a query has no positive.

    Example:
        >>> music = np.eye(3)
        >>> video = music[[0, 2, 1]]  # the second and the third are mixed up
        >>> rank_queries(music, video).ranks.tolist()
        [1.0, 2.5, 2.5]
    """
    queries, gallery = check_both(queries, gallery, chunk_size)
    positives = find_positives(query_keys, gallery_keys, len(queries), len(gallery))
    forward = _Direction(_wrap(queries), _wrap(gallery), ties, top_n, positives)
    _score_blocks(forward, None, chunk_size)
    return forward.finish()


def rank_both(
    music: Array,
    video: Array,
    music_keys: Keys = None,
    video_keys: Keys = None,
    *,
    ties: Ties = "mid",
    top_n: int = 0,
    chunk_size: int = 1024,
) -> tuple[RankedQueries, RankedQueries]:
    """Rank in both directions from one set of scores; equals `rank_queries` of each direction.

    Returns:
        Music items as queries among the videos, and videos as queries among the music items.
    """
    music, video = check_both(music, video, chunk_size)
    there = find_positives(music_keys, video_keys, len(music), len(video))
    back = find_positives(video_keys, music_keys, len(video), len(music))
    x, y = _wrap(music), _wrap(video)
    forward, backward = _Direction(x, y, ties, top_n, there), _Direction(y, x, ties, top_n, back)
    _score_blocks(forward, backward, chunk_size)
    return forward.finish(), backward.finish()


def rank_on_device(music: Tensor, video: Tensor, codes: Tensor, *, chunk_size: int = 1024) -> tuple[Array, Array]:
    """Rank pairs in both directions where their embeddings are, ties by mid-rank; values are not checked.

    The product is float64 here: graphics cards may be told to round float32 ones to ten bits (TF32).

    Args:
        music: (n, E) floating, on any device that has float64.
        video: (n, E), on the same.
        codes: (n,) integers; music row i and video row j match when their codes are equal.
        chunk_size: Queries scored together.

    Returns:
        Two (n,) float64 arrays, 1 to n, of music -> video and video -> music.
    """
    keys = codes.cpu().numpy()
    positives = match_codes(keys, keys)
    music, video = music.double(), video.double()
    forward, backward = (_Direction(x, y, "mid", 0, positives) for x, y in ((music, video), (video, music)))
    _score_blocks(forward, backward, chunk_size)
    return forward.finish().ranks, backward.finish().ranks


def score_nearest(queries: Array, gallery: Array, n: int, chunk_size: int = 1024) -> tuple[Array, Array]:
    """Find the highest scores of every query and of every gallery row, from one set of scores.

    Args:
        queries: (Nq, D) float32; the score is the inner product.
        gallery: (Ng, D) float32.
        n: Scores wanted, cut to the size of the other set.
        chunk_size: Queries scored together.

    Returns:
        (Nq, n) and (Ng, n) float32, falling.
    """
    x, y = _wrap(queries), _wrap(gallery)
    forward, backward = _Direction(x, y, "mid", n), _Direction(y, x, "mid", n)
    _score_blocks(forward, backward, chunk_size)
    return forward.top_score.numpy(), backward.top_score.numpy()


def _wrap(array: Array) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of memory that cannot be written: nothing here writes to it
        return torch.from_numpy(array)


def _score_blocks(forward: _Direction, backward: _Direction | None, chunk_size: int) -> None:
    """Show every score to one direction, or to both."""
    for column in range(0, len(forward.gallery), GALLERY_CHUNK):
        items = forward.gallery[column : column + GALLERY_CHUNK]
        for row in range(0, len(forward.queries), chunk_size):
            scores = forward.queries[row : row + chunk_size] @ items.T  # (q, g)
            views = [(forward, scores, row, column)]
            if backward is not None:
                views.append((backward, scores.T, column, row))
            for direction, view, first, start in views:
                direction.keep_top(view, first, start)
            forward.hide_positives(scores, row, column)  # the same pairs in both directions
            for direction, view, first, start in views:
                direction.count_negatives(view, first, start)


class _Direction:
    """Counts and highest scores of all queries of one direction, from blocks of scores in any order.

    Args:
        queries: (n_queries, dim) floating.
        gallery: (n_gallery, dim) floating, on the same device.
        ties: As `rank_queries`.
        top_n: Number of gallery rows to keep for each query.
        positives: None where nothing is to be ranked.
    """

    def __init__(
        self, queries: Tensor, gallery: Tensor, ties: Ties, top_n: int, positives: Positives | None = None
    ) -> None:
        self.queries, self.gallery, self.ties, device = queries, gallery, ties, queries.device
        self.top_n = min(top_n, len(gallery))
        self.top_score = torch.full((len(queries), self.top_n), -torch.inf, dtype=queries.dtype, device=device)
        self.top = torch.zeros((len(queries), self.top_n), dtype=torch.int64, device=device)
        if positives is None:
            positives = Positives(np.zeros(len(queries) + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))
        self.start, self.n_positives = positives.start, np.diff(positives.start)
        query = np.repeat(np.arange(len(queries)), self.n_positives)
        self.slot = np.arange(len(query)) - self.start[query]  # place of a positive among those of its query
        self.query, self.column = (torch.from_numpy(part).to(device) for part in (query, positives.column))
        self.score = self._score_pairs(self.query, self.column)  # (n_pairs,) float64
        self.tie = _bound_rounding(queries, gallery, torch.float64)
        reach = _bound_rounding(queries, gallery, queries.dtype)
        self.low, self.high = ((self.score + side * reach).to(queries.dtype) for side in (-1.0, 1.0))
        # Of each positive: negatives clearly above it; near it; near it with a lower row; and of those near it that
        # were scored again, the ones above it and the ones that tie.
        self.above, self.near, self.near_lower, self.above_after, self.tied_after = torch.zeros(
            (5, len(query)), dtype=torch.int64, device=device
        )

    def keep_top(self, scores: Tensor, first: int, column: int) -> None:
        """Merge the (q, g) scores of the queries from `first` and the gallery rows from `column` into the highest."""
        if not self.top_n:
            return
        # After the first blocks few queries find anything better: only these are sorted.
        better = scores > self.top_score[first : first + len(scores), -1:]
        changed = torch.nonzero(better.any(dim=1)).squeeze(1)
        block = scores if len(changed) == len(scores) else scores[changed]
        score, local = block.topk(min(self.top_n, scores.shape[1]), dim=1)
        score = torch.cat([self.top_score[first + changed], score], dim=1)
        item = torch.cat([self.top[first + changed], local + column], dim=1)
        score, best = score.topk(self.top_n, dim=1)
        self.top_score[first + changed], self.top[first + changed] = score, item.gather(1, best)

    def hide_positives(self, scores: Tensor, first: int, column: int) -> None:
        """Overwrite the scores of positives in a block, so that only negatives are counted."""
        pairs = self._pairs_of(first, len(scores))
        inside = (self.column[pairs] >= column) & (self.column[pairs] < column + scores.shape[1])
        scores[self.query[pairs][inside] - first, self.column[pairs][inside] - column] = -torch.inf

    def count_negatives(self, scores: Tensor, first: int, column: int) -> None:
        """Count a block without its positives, `slot` by `slot`: each holds one positive of every query that has it."""
        for pairs in self._split_slots(first, len(scores)):
            block = scores if len(pairs) == len(scores) else scores[self.query[pairs] - first]
            above = block > self.high[pairs, None]
            near = (block >= self.low[pairs, None]).logical_xor_(above)
            self.above[pairs] += count_true(above)
            self.near[pairs] += count_true(near)
            if self.ties == "lower_index":
                rows = torch.arange(column, column + scores.shape[1], device=scores.device)
                self.near_lower[pairs] += count_true(near & (rows < self.column[pairs, None]))
            few = torch.nonzero(self.near[pairs] <= MAX_RESCORED).squeeze(1)
            local, offset = locate_true(near if len(few) == len(pairs) else near[few])
            self._rescore(pairs[few[local]], offset + column)

    def _rescore(self, pair: Tensor, column: Tensor) -> None:
        """Decide near ties; `pair` and `column` are (n,)."""
        excess = self._score_pairs(self.query[pair], column) - self.score[pair]
        tied = excess.abs() <= self.tie
        if self.ties == "lower_index":
            tied &= column < self.column[pair]
        self.above_after += torch.bincount(pair[excess > self.tie], minlength=len(self.column))
        self.tied_after += torch.bincount(pair[tied], minlength=len(self.column))

    def _pairs_of(self, first: int, n_queries: int) -> slice:
        return slice(int(self.start[first]), int(self.start[first + n_queries]))

    def _split_slots(self, first: int, n_queries: int) -> Iterator[Tensor]:
        pairs = self._pairs_of(first, n_queries)
        slots = self.slot[pairs]
        for slot in range(int(slots.max(initial=-1)) + 1):
            yield torch.from_numpy(pairs.start + np.flatnonzero(slots == slot)).to(self.score.device)

    def _score_pairs(self, query: Tensor, column: Tensor) -> Tensor:
        """Score chosen (query, gallery row) pairs; (n,) float64."""
        # Into one array: a small result kept between the large temporaries would fragment the heap, by up to a GiB.
        scores = torch.empty(len(query), dtype=torch.float64, device=query.device)
        parts = (torch.split(part, _RESCORED_TOGETHER) for part in (scores, query, column))
        for out, i, j in zip(*parts, strict=True):
            torch.sum(self.queries[i].double() * self.gallery[j].double(), dim=1, out=out)
        return scores

    def finish(self) -> RankedQueries:
        """Combine the counts, after every block."""
        collapsed = self.near > MAX_RESCORED
        near = self.near_lower if self.ties == "lower_index" else self.near
        counts = self.above + self.above_after.masked_fill(collapsed, 0), torch.where(collapsed, near, self.tied_after)
        query, score, above, tied = (part.cpu().numpy() for part in (self.query, self.score, *counts))
        metrics = combine_positives(query, score, above, tied, self.ties, self.tie)
        return RankedQueries(*metrics, self.n_positives, self._sort_top())

    def _sort_top(self) -> Array:
        """(n_queries, top_n) gallery rows by falling score, ties to the lower row."""
        rows = torch.arange(len(self.queries), device=self.top.device).repeat_interleave(self.top_n)
        # Scored alone, equal rows have equal scores; in a matrix product they may differ in the last bit.
        exact = self._score_pairs(rows, self.top.reshape(-1)).reshape(self.top.shape).cpu().numpy()
        top = self.top.cpu().numpy()
        return np.take_along_axis(top, np.lexsort((top, -exact), axis=1), axis=1)


def _bound_rounding(queries: Tensor, gallery: Tensor, dtype: torch.dtype) -> float:
    """Bound how far evaluations of one inner product can differ: 2 dim u |q| |g|, and some u for rounding the limits.

    Source: N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., eq. 3.5.
    """
    lengths = [float(torch.linalg.vector_norm(rows, dim=1).max()) for rows in (queries, gallery)]
    return (queries.shape[1] + 8) * torch.finfo(dtype).eps * lengths[0] * lengths[1] * 1.001
