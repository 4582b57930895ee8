"""Find the relevant gallery rows of each query, and combine their counts into ranks, precisions and gains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from vmnet_pipeline.errors import PairsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmnet_pipeline.types import Array

Keys: TypeAlias = "Sequence[object] | Array | None"
Ties = Literal["mid", "lower_index"]

NDCG_K = 10


def check_embeddings(embeddings: Array, name: str, ids: Sequence[str] | None = None) -> Array:
    """Check one set of embeddings and give it as contiguous (n, dim) float32, n >= 1, dim >= 1.

    Args:
        embeddings: (n, dim) floating.
        name: What to call it in messages.
        ids: (n,) names of the rows for messages; None uses row numbers.

    Raises:
        PairsError: Wrong number of dimensions or type, empty, or NaN or infinity; names the first rows.
    """
    array = np.asarray(embeddings)
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


def check_both(queries: Array, gallery: Array, chunk_size: int) -> tuple[Array, Array]:
    """Check the embeddings of a retrieval problem; see `check_embeddings`."""
    if chunk_size < 1:
        raise PairsError(f"chunk_size is {chunk_size}; give 1 or more.")
    queries, gallery = check_embeddings(queries, "queries"), check_embeddings(gallery, "gallery")
    if queries.shape[1] != gallery.shape[1]:
        raise PairsError(
            f"Queries have {queries.shape[1]} dimensions, the gallery {gallery.shape[1]}; embed both alike."
        )
    return queries, gallery


@dataclass(frozen=True, slots=True)
class Positives:
    """All (query, positive) pairs, sorted by query; `start` is (n_queries + 1,), `column` is (n_pairs,)."""

    start: Array
    column: Array


def find_positives(query_keys: Keys, gallery_keys: Keys, n_query: int, n_gallery: int) -> Positives:
    """Match rows by equal keys, or by position without keys.

    Raises:
        PairsError: Keys do not fit the rows, or a query has no positive.
    """
    if query_keys is None and gallery_keys is None:
        if n_query != n_gallery:
            raise PairsError(
                f"{n_query} queries, {n_gallery} gallery rows: give keys, or equally many rows in pair order."
            )
        return Positives(np.arange(n_query + 1), np.arange(n_query))
    if query_keys is None or gallery_keys is None or len(query_keys) != n_query or len(gallery_keys) != n_gallery:
        raise PairsError("query_keys and gallery_keys go together, one key for each row of their embeddings.")
    labels = np.concatenate([np.asarray(query_keys), np.asarray(gallery_keys)])
    codes = np.unique(labels, return_inverse=True)[1].reshape(-1)
    return match_codes(codes[:n_query], codes[n_query:])


def match_codes(query_codes: Array, gallery_codes: Array) -> Positives:
    """Match rows by equal (n,) integers.

    Raises:
        PairsError: A query has no positive.
    """
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
    return Positives(start, order[np.repeat(first, counts) + within])


def combine_positives(
    query: Array, score: Array, above: Array, tied: Array, ties: Ties, tolerance: float
) -> tuple[Array, Array, Array]:
    """Ranks of the best positives, average precisions and nDCG at 10, from (n_pairs,) counts sorted by query.

    Of p positives that tie with n negatives in random order, the t-th has t n / (p + 1) of them before it, and each
    of them is equally often on every one of the p + n places.
    """
    order = np.lexsort((above + tied, query)) if ties == "lower_index" else np.lexsort((-score, query))
    query, score, above, tied = query[order], score[order], above[order], tied[order]
    place, n_positives = _number_runs(np.diff(query) != 0)
    if ties == "mid":
        tied_place, n_tied = _number_runs((np.diff(query) != 0) | (np.diff(score) < -tolerance))
        before = above + tied * tied_place / (n_tied + 1.0)
        start, width = above + place - tied_place, n_tied + tied
    else:
        before = (above + tied).astype(np.float64)
        start, width = above + tied + place - 1, np.ones_like(place)
    best = place == 1
    precision = np.bincount(query, weights=place / (place + before)) / np.bincount(query)
    gain = np.bincount(query, weights=(sum_discounts(start + width) - sum_discounts(start)) / width)
    return 1.0 + before[best], precision, gain / sum_discounts(n_positives[best])


def sum_discounts(n_places: Array) -> Array:
    """Sum the discounts 1 / log2(place + 1) of the first places, those after `NDCG_K` being 0."""
    total = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, NDCG_K + 2)))])
    summed: Array = total[np.minimum(n_places, NDCG_K)]
    return summed


def _number_runs(breaks: Array) -> tuple[Array, Array]:
    """For n entries with n - 1 breaks between them: 1-based place in the run, and size of the run."""
    first = np.flatnonzero(np.concatenate([[True], breaks]))
    size = np.diff(np.append(first, len(breaks) + 1))
    return np.arange(len(breaks) + 1) - np.repeat(first, size) + 1, np.repeat(size, size)
