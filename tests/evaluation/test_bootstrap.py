from __future__ import annotations

import numpy as np
import pytest

from vmnet_pipeline.evaluation import bootstrap as paired
from vmnet_pipeline.evaluation.bootstrap import bootstrap_intervals, bootstrap_means, bound_constant

RNG = np.random.default_rng(3)


def test_draws_are_those_of_a_plain_loop():
    values = [RNG.random((2, 3, 10)), RNG.random((2, 3, 10))]
    groups = np.array([0, 0, 1, 1, 1, 2, 3, 3, 4, 4])
    found = bootstrap_means(values, groups, n_resamples=20, seed=5)
    rng = np.random.default_rng(5)
    times = rng.multinomial(5, np.full(5, 0.2), size=20)
    seeds = rng.multinomial(2, np.full(2, 0.5), size=20)
    for draw in range(20):
        rows = [row for group in range(5) for _ in range(times[draw, group]) for row in np.flatnonzero(groups == group)]
        for method, item in enumerate(values):
            drawn = [item[seed][:, rows].mean(axis=1) for seed in range(2) for _ in range(seeds[draw, seed])]
            np.testing.assert_allclose(found[draw, method], np.mean(drawn, axis=0))


def test_equal_methods_never_differ_and_an_offset_is_certain():
    values = RNG.random((3, 2, 40))
    draws = bootstrap_means([values, values, values + 0.25], np.arange(40), n_resamples=100)
    np.testing.assert_allclose(draws[:, 1] - draws[:, 0], 0.0, atol=1e-12)
    np.testing.assert_allclose(draws[:, 2] - draws[:, 0], 0.25)
    assert draws[:, 0].std() > 0.01


def test_copies_within_a_group_promise_no_more_certainty():
    values = RNG.random((1, 1, 50))
    single = bootstrap_means([values], np.arange(50), n_resamples=1000)
    copied = bootstrap_means([np.repeat(values, 4, axis=2)], np.repeat(np.arange(50), 4), n_resamples=1000)
    alone = bootstrap_means([np.repeat(values, 4, axis=2)], np.arange(200), n_resamples=1000)
    assert copied.std() == pytest.approx(single.std())
    assert alone.std() < 0.6 * single.std()


def test_the_spread_between_seeds_counts():
    steady, moody = np.full((3, 1, 30), 0.5), np.array([0.3, 0.5, 0.7])[:, None, None] * np.ones((3, 1, 30))
    draws = bootstrap_means([steady, moody], np.arange(30), n_resamples=2000)
    assert draws[:, 0].std() == pytest.approx(0.0, abs=1e-12)
    assert draws[:, 1].std() == pytest.approx(np.std([0.3, 0.5, 0.7]) / np.sqrt(3), rel=0.1)


def test_a_method_without_seeds_stands_beside_methods_with_seeds():
    values = RNG.random((3, 1, 20))
    draws = bootstrap_means([values, values[:1]], np.arange(20), n_resamples=30)
    repeated = bootstrap_means([values, np.repeat(values[:1], 3, axis=0)], np.arange(20), n_resamples=30)
    np.testing.assert_allclose(draws, repeated)


def test_one_group_gives_no_draws():
    assert bootstrap_means([np.ones((1, 2, 5))], ["a"] * 5).shape == (0, 1, 2)


def test_the_number_of_draws_is_met_in_blocks(monkeypatch):
    monkeypatch.setattr(paired, "_PAIRED_DRAWS_TOGETHER", 7)
    assert bootstrap_means([np.ones((1, 2, 5))], range(5), n_resamples=20).shape == (20, 1, 2)


@pytest.mark.parametrize(("n", "level"), [(2, 0.9), (18, 0.95), (400, 0.99)])
def test_no_hit_and_only_hits_have_the_exact_interval(n, level):
    low, high = bound_constant(np.zeros(n), n, level)
    assert low == 0.0
    assert (1 - high) ** n == pytest.approx((1 - level) / 2)  # so seldom is there no hit at the upper end
    assert bound_constant(np.ones(n), n, level) == pytest.approx((1 - high, 1.0))
    assert bound_constant(np.array([0.0, 1.0]), 2, level) is None


def test_a_zero_of_18_queries_is_not_certain():
    found = bootstrap_intervals(np.full(18, 9), [5, 10], n_resamples=50, others=np.zeros((18, 1)))
    assert found.recall[5] == pytest.approx((0.0, 0.185), abs=1e-3)
    assert found.recall[10] == pytest.approx((0.815, 1.0), abs=1e-3)
    assert found.others[0] == found.recall[5]
    assert found.median_rank == (9.0, 9.0)
    copied = bootstrap_intervals(np.full(36, 9), [5], n_resamples=50, groups=np.repeat(np.arange(18), 2))
    assert copied.recall[5] == found.recall[5]  # clips of one song are no further evidence
