"""Expected metrics of a random ranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.evaluation.positives import sum_discounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmnet_pipeline.types import Array


@dataclass(frozen=True, slots=True)
class Chance:
    """Expected metrics of a random ranking.

    Attributes:
        recall: K to the expected recall, in [0, 1].
        median_rank: Smallest rank that at least half of the queries are expected to reach.
        mrr: Expected mean reciprocal rank.
    """

    recall: dict[int, float]
    median_rank: float
    mrr: float


def expect_chance(n_gallery: int, n_positives: Sequence[int] | Array, ks: Sequence[int]) -> Chance:
    """Expect the metrics of a random order, for queries with `n_positives` relevant items among `n_gallery`.

    For one positive: K / N, about N / 2, and H_N / N. In general the best of P positives has a rank above K with
    probability C(N - P, K) / C(N, K).

    Args:
        n_gallery: N, >= 1.
        n_positives: (n,) P of each query, 1 <= P <= N.
        ks: Cut-offs, each >= 1.

    Raises:
        PairsError: A number of positives outside 1 ... N.

    Example:
        >>> round(expect_chance(1000, [1], [10]).recall[10], 6)
        0.01
    """
    values, weights = np.unique(np.asarray(n_positives), return_counts=True)
    if not len(values) or values[0] < 1 or values[-1] > n_gallery:
        raise PairsError(f"Every query needs 1 to {n_gallery} positives in a gallery of {n_gallery}.")
    reached = np.zeros(n_gallery)  # reached[r - 1]: probability of a rank <= r
    for n_relevant, weight in zip(values, weights, strict=True):
        reached += _reach_by_chance(n_gallery, int(n_relevant)) * (weight / weights.sum())
    exactly = np.diff(reached, prepend=0.0)
    return Chance(
        recall={int(k): float(reached[min(k, n_gallery) - 1]) for k in ks},
        median_rank=float(np.argmax(reached >= 0.5 - 1e-12) + 1),
        mrr=float((exactly / np.arange(1, n_gallery + 1)).sum()),
    )


def expect_ndcg(n_gallery: int, n_positives: Sequence[int] | Array) -> float:
    """Normalised discounted cumulative gain at 10 of a random order: every place is equally likely.

    Args:
        n_gallery: N, >= 1.
        n_positives: (n,) P of each query, 1 <= P <= N.
    """
    n_relevant = np.asarray(n_positives)
    ideal = sum_discounts(n_relevant)
    return float((n_relevant / n_gallery * sum_discounts(np.array(n_gallery)) / ideal).mean())


def _reach_by_chance(n: int, n_relevant: int) -> Array:
    """(n,) probability that at least one of `n_relevant` positives is among the first 1 ... n places."""
    drawn = np.arange(n)
    with np.errstate(divide="ignore"):
        missed = np.cumsum(np.log(np.maximum(n - n_relevant - drawn, 0) / (n - drawn)))
    reached: Array = -np.expm1(missed)
    return reached
