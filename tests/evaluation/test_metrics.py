"""Figures made of ranks, against hand counts, enumeration and known distributions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.evaluation.bootstrap import bootstrap_intervals
from vmnet_pipeline.evaluation.chance import expect_chance, expect_ndcg
from vmnet_pipeline.evaluation.metrics import mean_reciprocal_rank, median_rank, recall_at_k

TRUE_MRR = float(np.mean(1 / np.arange(1, 11)))
ranks_lists = st.lists(st.integers(2, 400).map(lambda twice: twice / 2), min_size=1, max_size=50)


def test_figures_of_a_hand_counted_list() -> None:
    ranks = np.array([1, 2, 2.5, 4, 50])
    assert recall_at_k(ranks, [1, 2, 3, 5, 100]) == {1: 0.2, 2: 0.4, 3: 0.6, 5: 0.8, 100: 1.0}
    assert median_rank(ranks) == 2.5
    assert mean_reciprocal_rank(ranks) == pytest.approx((1 + 0.5 + 0.4 + 0.25 + 0.02) / 5)


@given(ranks_lists, st.lists(st.integers(1, 300), min_size=2, max_size=6))
def test_recall_never_falls_with_k(ranks: list[float], ks: list[int]) -> None:
    recall = list(recall_at_k(np.array(ranks), sorted(ks)).values())
    assert recall == sorted(recall)
    assert 0 <= recall[0] <= recall[-1] <= 1


@given(ranks_lists, st.randoms())
def test_order_of_queries_does_not_matter(ranks: list[float], random: object) -> None:
    moved = ranks.copy()
    random.shuffle(moved)  # type: ignore[attr-defined]
    assert recall_at_k(np.array(ranks), [1, 5, 50]) == recall_at_k(np.array(moved), [1, 5, 50])
    assert median_rank(np.array(ranks)) == median_rank(np.array(moved))


@pytest.mark.parametrize("n_positives", [[1], [2], [6], [1, 3, 3]])
def test_chance_is_the_mean_over_every_order(n_positives: list[int]) -> None:
    n = 6
    best = np.concatenate([list_best_places(n, p) for p in n_positives])
    chance = expect_chance(n, n_positives, [1, 2, 5, 6, 9])
    assert chance.recall == pytest.approx(recall_at_k(best, [1, 2, 5, 6, 9]))
    assert chance.mrr == pytest.approx(mean_reciprocal_rank(best))
    assert chance.median_rank == min(r for r in range(1, n + 1) if (best <= r).mean() >= 0.5 - 1e-9)


def list_best_places(n: int, p: int) -> list[int]:
    """Best place of p positives in every order of n items, repeated to 60 so that queries weigh alike."""
    places = [1 + min(chosen) for chosen in itertools.combinations(range(n), p)]
    return places * (60 // len(places))


def test_chance_of_one_positive_is_k_over_n() -> None:
    chance = expect_chance(1024, np.ones(5), [1, 10, 100])
    assert chance.recall == pytest.approx({1: 1 / 1024, 10: 10 / 1024, 100: 100 / 1024})
    assert chance.median_rank == 512
    assert chance.mrr == pytest.approx(np.sum(1 / np.arange(1, 1025)) / 1024)


def test_intervals_of_queries_are_those_of_the_binomial() -> None:
    ranks = np.where(np.arange(400) < 120, 1.0, 20.0)  # recall at 1 of 0.3, standard error sqrt(.3 * .7 / 400)
    low, high = bootstrap_intervals(ranks, [1], seed=1).recall[1] or (0, 0)
    assert low == pytest.approx(0.3 - 1.96 * 0.0229, abs=0.006)
    assert high == pytest.approx(0.3 + 1.96 * 0.0229, abs=0.006)


@pytest.mark.long
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_intervals_cover_the_truth_as_often_as_they_say(level: float) -> None:
    rng = np.random.default_rng(8)
    hits = {"recall": 0, "mrr": 0, "median": 0}
    for trial in range(300):
        ranks = rng.integers(1, 11, 81).astype(float)  # uniform on 1 ... 10
        found = bootstrap_intervals(ranks, [3], n_resamples=200, level=level, seed=trial)
        wide = bootstrap_intervals(rng.integers(1, 1001, 81), [3], n_resamples=200, level=level, seed=trial)
        pairs = {"recall": (0.3, found.recall[3]), "mrr": (TRUE_MRR, found.mrr), "median": (500.5, wide.median_rank)}
        for name, (truth, interval) in pairs.items():
            assert interval is not None
            hits[name] += interval[0] <= truth <= interval[1]
    assert hits["recall"] / 300 == pytest.approx(level, abs=0.05)
    assert hits["mrr"] / 300 == pytest.approx(level, abs=0.05)
    assert hits["median"] / 300 == pytest.approx(level, abs=0.05)


def test_groups_that_move_together_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(50), 4)
    ranks = np.where(rng.random(50) < 0.4, 1.0, 30.0)[groups]  # the four clips of a song: all right or all wrong
    alone = bootstrap_intervals(ranks, [1], seed=0).recall[1] or (0, 0)
    together = bootstrap_intervals(ranks, [1], seed=0, groups=[f"song {g}" for g in groups]).recall[1] or (0, 0)
    assert (together[1] - together[0]) / (alone[1] - alone[0]) == pytest.approx(2.0, abs=0.25)


def test_median_interval_agrees_with_resampling_by_hand() -> None:
    rng = np.random.default_rng(4)
    ranks = rng.integers(1, 30, 12).astype(float)
    draws_rng = np.random.default_rng(9)
    draws = [np.median(ranks[draws_rng.integers(0, 12, 12)]) for _ in range(500)]
    found = bootstrap_intervals(ranks, [1], n_resamples=500, seed=9).median_rank
    assert found == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))


def test_same_seed_same_interval() -> None:
    ranks = np.array([1.0, 1.0, 3.0, 9.0])
    assert bootstrap_intervals(ranks, [1, 9], seed=3) == bootstrap_intervals(ranks, [1, 9], seed=3)


def test_one_group_gives_no_interval() -> None:
    found = bootstrap_intervals(np.array([1.0, 5.0]), [1], groups=["song", "song"])
    assert found.recall == {1: None}
    assert found.median_rank is found.mrr is found.mean_average_precision is None


def test_bad_input_is_refused() -> None:
    with pytest.raises(PairsError, match=">= 1"):
        recall_at_k(np.array([0.5]), [1])
    with pytest.raises(PairsError, match=">= 1"):
        recall_at_k(np.array([np.nan]), [1])
    with pytest.raises(PairsError, match="non-empty"):
        median_rank(np.array([]))
    with pytest.raises(PairsError, match="K >= 1"):
        recall_at_k(np.array([1.0]), [0])
    with pytest.raises(PairsError, match="2 groups for 3 ranks"):
        bootstrap_intervals(np.ones(3), [1], groups=["a", "b"])
    with pytest.raises(PairsError, match="1 to 4 positives"):
        expect_chance(4, [5], [1])


@pytest.mark.parametrize("n_right", [1, 2, 5])
def test_ndcg_by_chance_is_the_mean_over_all_orders(n_right: int) -> None:
    orders = np.array(list(itertools.permutations(range(5))), dtype=float)
    gains = np.tile((np.arange(5) < n_right).astype(float), (len(orders), 1))
    expected = ndcg_score(gains, orders, k=10)
    assert expect_ndcg(5, [n_right]) == pytest.approx(expected)
    assert expect_ndcg(5, [n_right, 5]) == pytest.approx((expected + 1.0) / 2)


def test_intervals_of_further_values_are_drawn_with_the_ranks() -> None:
    ranks = np.random.default_rng(0).integers(1, 60, 80)
    reciprocal = 1.0 / ranks
    found = bootstrap_intervals(ranks, [5], groups=np.arange(80) // 2, others=np.column_stack([reciprocal, ranks <= 5]))
    np.testing.assert_allclose(found.others, [found.mrr, found.recall[5]])
    assert bootstrap_intervals(ranks, [5]).others == ()
    alone = bootstrap_intervals(ranks, [5], groups=np.zeros(80), others=reciprocal[:, None])
    assert alone.others == (None,)
