"""Methods side by side on the same queries: a bootstrap over groups and seeds that draws the same for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Array: TypeAlias = npt.NDArray[Any]

DRAWS_AT_ONCE = 64


def bootstrap_means(
    values: Sequence[Array], groups: Sequence[object] | Array, n_resamples: int = 2000, seed: int = 0
) -> Array:
    """Draw the means of several methods anew, over groups of queries and over seeds.

    Every draw takes the same groups and the same seeds for all methods, so differences between columns of the result
    are paired. Groups are drawn because clips of one song are not independent; seeds, because another training would
    have given other numbers. With few seeds the spread between them is told too small: three give about two thirds
    of its variance.

    Args:
        values: One array per method, (n_seeds, n_metrics, n_queries); a method of one seed counts as one that gives
            the same for every seed.
        groups: (n_queries,) labels.
        n_resamples: Draws, >= 1.
        seed: Of the random generator.

    Returns:
        (n_resamples, n_methods, n_metrics) means; of no rows where there are fewer than two groups.
    """
    codes = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    sizes = np.bincount(codes).astype(np.float64)
    n_seeds = max(len(item) for item in values)
    sums = np.stack([_sum_groups(item, codes, n_seeds) for item in values])  # (methods, seeds, metrics, groups)
    if len(sizes) < 2:
        return np.empty((0, len(values), sums.shape[2]))
    rng = np.random.default_rng(seed)
    draws = []
    for start in range(0, n_resamples, DRAWS_AT_ONCE):
        n = min(DRAWS_AT_ONCE, n_resamples - start)
        times = rng.multinomial(len(sizes), np.full(len(sizes), 1.0 / len(sizes)), size=n).astype(np.float64)
        seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1.0 / n_seeds), size=n) / n_seeds  # (n, seeds)
        means = (sums @ times.T) / (times @ sizes)  # (methods, seeds, metrics, n)
        draws.append(np.einsum("rsmn,ns->nrm", means, seeds))
    return np.concatenate(draws)


def _sum_groups(values: Array, codes: Array, n_seeds: int) -> Array:
    """(n_seeds, n_metrics, n_groups) sums over the queries of each group."""
    sums = np.array([[np.bincount(codes, weights=metric) for metric in seed] for seed in values])
    return np.broadcast_to(sums, (n_seeds, *sums.shape[1:]))
