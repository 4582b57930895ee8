from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.evaluation.graded import ndcg_at_k


def naive_ndcg(scores: list[float], gains: list[float], k: int) -> float:
    def discounted(order: list[int]) -> float:
        return sum(gains[j] / math.log2(place + 2) for place, j in enumerate(order[:k]))

    orders = [o for o in itertools.permutations(range(len(scores))) if [scores[j] for j in o] == sorted(scores)[::-1]]
    best = discounted(sorted(range(len(gains)), key=lambda j: -gains[j]))
    return sum(discounted(list(order)) for order in orders) / len(orders) / best


@pytest.mark.parametrize("k", [1, 3, 5, 9])
def test_ndcg_matches_a_naive_mean_over_orders_of_ties(k: int) -> None:
    rng = np.random.default_rng(k)
    scores, gains = rng.integers(0, 3, (8, 5)).astype(float), rng.integers(0, 3, (8, 5)) / 2 + 0.1
    expected = [naive_ndcg(list(s), list(g), k) for s, g in zip(scores, gains, strict=True)]
    np.testing.assert_allclose(ndcg_at_k(scores, gains, k), expected)


def test_ndcg_of_a_query_without_gain_is_undefined_and_bad_gains_are_refused() -> None:
    scores = np.array([[3.0, 2.0, 1.0]])
    assert np.isnan(ndcg_at_k(scores, np.zeros((1, 3)), 2)).all()
    assert ndcg_at_k(scores, np.array([[1.0, 0.5, 0.0]]), 2).tolist() == [1.0]
    with pytest.raises(PairsError):
        ndcg_at_k(scores, -np.ones((1, 3)), 2)
