"""Hubs: items that are among the best answers to far too many queries, and a correction of scores against them.

Source: M. Radovanovic, A. Nanopoulos, M. Ivanovic, Hubs in space, JMLR 11 (2010); A. Conneau et al., Word translation
without parallel data, arXiv:1710.04087, section 2.3 (CSLS).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vmnet_pipeline.errors import PairsError

Array: TypeAlias = npt.NDArray[Any]


def count_occurrences(queries: Array, gallery: Array, *, k: int = 10, chunk_size: int = 1024) -> Array:
    """How often each gallery item is among the K best answers.

    Args:
        queries: (Nq, D) floating point; the score is the dot product.
        gallery: (Ng, D).
        k: K, cut to Ng; at least 1. Which of several items with equal scores is counted is not defined.
        chunk_size: Queries scored together.

    Returns:
        (Ng,) int64, Nq K in all; K Nq / Ng each without hubs.

    Raises:
        PairsError: Widths differ, or K is below 1.
    """
    _check(queries, gallery, k)
    k = min(k, len(gallery))
    counts = np.zeros(len(gallery), dtype=np.int64)
    for start in range(0, len(queries), chunk_size):
        scores = queries[start : start + chunk_size] @ gallery.T
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        counts += np.bincount(best.ravel(), minlength=len(gallery))
    return counts


def measure_hubness(counts: Array) -> dict[str, float]:
    """Summary of `count_occurrences`: `skewness` (0 without hubs), `max`, and the `unreached` share, 0-1."""
    deviation = counts.std()
    skewness = float((((counts - counts.mean()) / deviation) ** 3).mean()) if deviation > 0 else 0.0
    return {"skewness": skewness, "max": float(counts.max()), "unreached": float((counts == 0).mean())}


def correct_scores(queries: Array, gallery: Array, *, k: int = 10, chunk_size: int = 1024) -> tuple[Array, Array]:
    """Append a coordinate so that dot products are CSLS scores, up to a constant of each query, and ranks theirs.

    CSLS is 2 s_ij - r_i - r_j with r the mean of an item's K highest scores on the other side. r_i changes no rank of
    query i, so the vectors [2 q_i, -1] and [g_j, r_j] suffice, and every index for dot products can serve them.

    Args:
        queries: (Nq, D) floating point; also what the gallery's neighbourhoods are measured on.
        gallery: (Ng, D).
        k: K, cut to Nq; at least 1.
        chunk_size: Gallery items scored together.

    Returns:
        (Nq, D + 1) and (Ng, D + 1) float32; not of unit length.

    Raises:
        PairsError: Widths differ, or K is below 1.
    """
    _check(queries, gallery, k)
    k = min(k, len(queries))
    closeness = [
        np.partition(gallery[start : start + chunk_size] @ queries.T, -k, axis=1)[:, -k:].mean(axis=1)
        for start in range(0, len(gallery), chunk_size)
    ]
    minus_one = np.full((len(queries), 1), -1.0)
    return (
        np.hstack([2.0 * queries, minus_one]).astype(np.float32),
        np.hstack([gallery, np.concatenate(closeness)[:, None]]).astype(np.float32),
    )


def _check(queries: Array, gallery: Array, k: int) -> None:
    if (
        queries.ndim != 2
        or gallery.ndim != 2
        or queries.shape[1] != gallery.shape[1]
        or not len(queries) * len(gallery)
    ):
        raise PairsError(f"Queries {queries.shape} and gallery {gallery.shape} must be non-empty and of one width.")
    if k < 1:
        raise PairsError(f"Hubness needs K >= 1, got {k}.")
