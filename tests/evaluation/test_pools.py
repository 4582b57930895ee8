"""Expected figures of random pools, against all pools of a small gallery."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.evaluation.evaluate import evaluate_retrieval, recall_at_k
from vmnet_pipeline.evaluation.pools import median_rank_in_pools, reach_in_pools
from vmnet_pipeline.evaluation.ranks import rank_queries
from vmnet_pipeline.params import EvaluateParams


@pytest.mark.parametrize(("pool_size", "k"), [(1, 1), (3, 1), (4, 2), (6, 2), (6, 6)])
def test_recall_in_pools_is_the_mean_over_all_pools(pool_size: int, k: int) -> None:
    ranks, n = [1, 2, 4, 6], 6
    hits = []
    for rank in ranks:
        others = [r for r in range(1, n + 1) if r != rank]
        for pool in itertools.combinations(others, pool_size - 1):
            hits.append((rank, sum(r < rank for r in pool) < k))
    expected = np.mean([np.mean([hit for rank, hit in hits if rank == wanted]) for wanted in ranks])
    assert reach_in_pools(np.array(ranks), n, pool_size, [k]).mean() == pytest.approx(expected)


def test_a_pool_of_the_whole_gallery_changes_nothing() -> None:
    ranks = np.array([1, 3, 10, 11, 1024])
    assert reach_in_pools(ranks, 1024, 1024, [10]).mean() == pytest.approx(3 / 5)
    assert reach_in_pools(ranks, 2000, 1000, [10]).mean() > 3 / 5
    for bad in ((5, 10), (2000, 0)):
        with pytest.raises(PairsError):
            reach_in_pools(ranks, bad[0], 5, [bad[1]])


def test_median_is_the_first_place_that_half_of_the_pools_reach() -> None:
    ranks, n, size = np.array([1, 2, 4, 6, 6]), 6, 3
    places = [
        1 + sum(better < rank for better in pool)
        for rank in ranks
        for pool in itertools.combinations([r for r in range(1, n + 1) if r != rank], size - 1)
    ]
    assert median_rank_in_pools(ranks, n, size) == np.quantile(places, 0.5, method="inverted_cdf")
    assert median_rank_in_pools(ranks, n, n) == 4
    assert median_rank_in_pools(np.full(9, 1), n, 5) == 1


def make_unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_pairs(n: int, noise: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(4)
    common = rng.standard_normal((n, 16))
    music, video = (make_unit(common + noise * rng.standard_normal((n, 16))) for _ in range(2))
    return music, video, [str(i) for i in range(n)]


def test_the_evaluation_tells_the_mean_over_random_pools() -> None:
    music, video, ids = make_pairs(240, 1.2)
    figures = evaluate_retrieval(music, video, ids, params=EvaluateParams(pool_sizes=(60, 20, 60, 240, 500)))
    pools = figures.directions["video_to_music"].pools
    assert list(pools) == ["20", "60"]  # the gallery itself and what is larger are left out
    rng, drawn = np.random.default_rng(0), []
    for _ in range(300):
        pool = rng.choice(240, 60, replace=False)
        drawn.append(recall_at_k(rank_queries(video[pool], music[pool]).ranks, (5,))[5])
    figure = pools["60"].recall["5"]
    assert figure.value == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 300**0.5)
    assert figure.low < figure.value < figure.high  # type: ignore[operator]
    assert figure.chance == pytest.approx(5 / 60)
    assert pools["20"].recall["5"].value > figure.value > figures.directions["video_to_music"].recall["5"].value
    assert pools["20"].recall["20"].value == 1.0


def test_intervals_of_pools_draw_groups() -> None:
    music, video, _ = make_pairs(60, 1.5)
    rows = np.repeat(np.arange(60), 3)
    ids, groups = [str(i) for i in range(180)], [f"song {row}" for row in rows]
    widths = []
    for unit in ("group", "query"):
        params = EvaluateParams(pool_sizes=(50,), resample_by=unit)
        figure = evaluate_retrieval(music[rows], video[rows], ids, groups, params).directions["music_to_video"]
        recall = figure.pools["50"].recall["10"]
        widths.append(recall.high - recall.low)  # type: ignore[operator]
    assert widths[0] > 1.4 * widths[1]


@pytest.mark.parametrize("settings", [{"pool_size": 20}, {"positives": "group"}])
def test_pools_of_the_reference_and_several_right_answers_have_no_random_pools(settings: dict[str, object]) -> None:
    music, video, ids = make_pairs(60, 1.0)
    params = EvaluateParams(pool_sizes=(10,), **settings)  # type: ignore[arg-type]
    evaluation = evaluate_retrieval(music, video, ids, [str(i // 2) for i in range(60)], params)
    assert all(figures.pools == {} for figures in evaluation.directions.values())


def test_a_mid_rank_is_rounded_up() -> None:
    assert reach_in_pools(np.array([1.5, 2.0]), 9, 5, [1]).ravel() == pytest.approx([0.5, 0.5])


def test_large_galleries_follow_the_hypergeometric_distribution() -> None:
    from scipy.stats import hypergeom

    ranks, n, size, ks = np.array([1, 7, 900, 40_000, 49_500, 50_000]), 50_000, 2000, (1, 40, 5000)
    expected = np.stack([hypergeom.cdf(k - 1, n - 1, ranks - 1, size - 1) for k in ks], axis=1)
    np.testing.assert_allclose(reach_in_pools(ranks, n, size, ks), expected, rtol=1e-7, atol=1e-15)
