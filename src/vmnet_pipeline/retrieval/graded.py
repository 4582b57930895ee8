"""Figures for other pool sizes than the gallery's, and for graded or several right answers."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vmnet_pipeline.errors import PairsError

Array: TypeAlias = npt.NDArray[Any]


def recall_in_pools(ranks: Array, n_gallery: int, pool_size: int, k: int) -> float:
    """Expected Recall@K when each query searches its match among a random part of the gallery.

    Exact, by the hypergeometric distribution of the better-ranked items that fall into the pool: figures of sets of
    different size become comparable without drawing pools.

    Args:
        ranks: (n,) ranks of the one match in the whole gallery, 1-based; a mid-rank is rounded up.
        n_gallery: N, size of that gallery.
        pool_size: P, 1 to N, the match included.
        k: K >= 1.

    Returns:
        Share, 0-1.

    Raises:
        PairsError: The pool does not fit the gallery, K is below 1, or a rank is outside 1 ... N.
    """
    ranks = np.ceil(np.asarray(ranks, dtype=np.float64)).astype(np.int64)
    if not 1 <= pool_size <= n_gallery or k < 1 or not ranks.size or ranks.min() < 1 or ranks.max() > n_gallery:
        raise PairsError(f"A pool of {pool_size} at K = {k} does not fit a gallery of {n_gallery} and these ranks.")
    from scipy.stats import hypergeom

    values, times = np.unique(ranks, return_counts=True)
    reached = hypergeom.cdf(k - 1, n_gallery - 1, values - 1, pool_size - 1)
    return float((reached * times).sum() / times.sum())


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
