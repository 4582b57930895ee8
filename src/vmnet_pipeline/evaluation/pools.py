"""Metrics expected with a smaller gallery, so that sets of different size become comparable.

Papers report pools of 1,000, 1,024 or 2,000 candidates. The expectation over all random pools of a size follows from
the ranks in the whole gallery, so no pool is drawn: there is no seed, and no noise of drawing.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.errors import PairsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vmnet_pipeline.types import Array

_SLACK = 1e-9  # of sums of probabilities


def reach_in_pools(ranks: Array, n_gallery: int, pool_size: int, ks: Sequence[int]) -> Array:
    """Probability of each query to find its match in the first K places of a random part of the gallery.

    Of the items that are better than the match, those that fall into the pool follow the hypergeometric distribution.

    Args:
        ranks: (n,) ranks of the one match in the whole gallery, 1-based; a mid-rank is rounded up.
        n_gallery: N, size of that gallery.
        pool_size: P, 1 to N, the match included.
        ks: Cut-offs, each >= 1.

    Returns:
        (n, len(ks)) float64, 0-1.

    Raises:
        PairsError: The pool does not fit the gallery, a K is below 1, or a rank is outside 1 ... N.
    """
    values, query = _check(ranks, n_gallery, pool_size, min(ks))
    wanted = {min(k, pool_size) for k in ks}
    places = islice(_reach_places(values, n_gallery, pool_size), max(wanted))
    reached = {k: shares.copy() for k, shares in enumerate(places, start=1) if k in wanted}
    return np.stack([reached[min(k, pool_size)][query] for k in ks], axis=1)


def median_rank_in_pools(ranks: Array, n_gallery: int, pool_size: int) -> int:
    """Smallest K whose expected recall in pools of that size is at least one half, 1 to the pool size."""
    values, query = _check(ranks, n_gallery, pool_size, 1)
    weights = np.bincount(query) / len(query)
    places = enumerate(_reach_places(values, n_gallery, pool_size), start=1)
    return next(k for k, shares in places if k == pool_size or shares @ weights >= 0.5 - _SLACK)


def _check(ranks: Array, n_gallery: int, pool_size: int, k: int) -> tuple[Array, Array]:
    """The different whole ranks in rising order, and which of them each query has."""
    ranks = np.ceil(np.asarray(ranks, dtype=np.float64)).astype(np.int64)
    if not 1 <= pool_size <= n_gallery or k < 1 or not ranks.size or ranks.min() < 1 or ranks.max() > n_gallery:
        raise PairsError(f"A pool of {pool_size} at K = {k} does not fit a gallery of {n_gallery} and these ranks.")
    values, query = np.unique(ranks, return_inverse=True)
    return values, query.reshape(-1)


def _reach_places(values: Array, n_gallery: int, pool_size: int) -> Iterator[Array]:
    """For K = 1, 2, ... P: probability of at most K - 1 better items in the pool, for each of the rising ranks.

    The array is the same one every time, with more added. Sums of logarithms of factorials: SciPy's distribution takes
    seconds for some of the ranks of a gallery of 60,000.
    """
    from scipy.special import gammaln

    log_factorial = gammaln(np.arange(n_gallery + 1) + 1.0)
    better, worse, drawn = values - 1, n_gallery - values, pool_size - 1
    n_pools = log_factorial[n_gallery - 1] - log_factorial[drawn] - log_factorial[n_gallery - 1 - drawn]
    base = log_factorial[better] + log_factorial[worse] - n_pools
    reached = np.zeros(len(values))
    for n in range(pool_size):  # n of the better ones are in the pool: there must be so many, and enough worse ones
        first, stop = np.searchsorted(better, n), np.searchsorted(better, n_gallery - 1 - drawn + n, side="right")
        some = slice(int(first), int(stop))
        left_out = log_factorial[better[some] - n] + log_factorial[worse[some] - drawn + n]
        reached[some] += np.exp(base[some] - log_factorial[n] - log_factorial[drawn - n] - left_out)
        yield np.minimum(reached, 1.0, out=reached) if n < drawn else np.ones_like(reached)
