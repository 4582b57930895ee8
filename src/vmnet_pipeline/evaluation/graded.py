"""Figures for graded right answers."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vmnet_pipeline.errors import PairsError

Array: TypeAlias = npt.NDArray[Any]


def ndcg_at_k(scores: Array, gains: Array, k: int) -> Array:
    """Normalised discounted cumulative gain of every query; for several or graded right answers.

    Args:
        scores: (Nq, Ng), higher is better; ties share the mean gain of their places.
        gains: (Nq, Ng) >= 0, e.g. 1 for right answers and 0.5 for the same song.
        k: Cut-off, >= 1.

    Returns:
        (Nq,) in [0, 1]; NaN for a query without any gain.

    Raises:
        PairsError: Shapes differ, a gain is negative or not finite, or K is below 1.

    Source: K. Järvelin, J. Kekäläinen, Cumulated gain-based evaluation of IR techniques, ACM TOIS 20 (2002); ties as in
    F. McSherry, M. Najork, Computing information retrieval performance measures efficiently in the presence of ties
    (2008).
    """
    if scores.shape != gains.shape or scores.ndim != 2 or k < 1 or not (np.isfinite(gains) & (gains >= 0)).all():
        raise PairsError(f"nDCG needs K >= 1 and gains >= 0 of the shape of the scores {scores.shape}.")
    k = min(k, scores.shape[1])
    discount = np.zeros(scores.shape[1])
    discount[:k] = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = -np.sort(-gains, axis=1) @ discount
    found = np.array([_discounted(s, g, discount) for s, g in zip(scores, gains, strict=True)])
    share: Array = np.divide(found, ideal, out=np.full(len(found), np.nan), where=ideal > 0)
    return share


def _discounted(scores: Array, gains: Array, discount: Array) -> float:
    """Expected discounted gain of one query over random orders of its ties."""
    _, place, size = np.unique(-scores, return_inverse=True, return_counts=True)
    total_gain = np.bincount(place, weights=gains)
    total_discount = np.add.reduceat(discount, np.concatenate([[0], np.cumsum(size)[:-1]]))
    return float((total_gain / size * total_discount).sum())
