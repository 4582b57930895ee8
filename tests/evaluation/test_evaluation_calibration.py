"""Probability, percentile and threshold of scores, on generated pairs whose truth is known, against plain loops."""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from vmnet_pipeline.evaluation.calibration import (
    COVERAGE,
    LEVELS,
    MIN_PAIRS,
    Calibration,
    Fold,
    ScoreCurve,
    _draw_best,
    calibrate,
    measure_reliability,
)
from vmnet_pipeline.evaluation.evaluate import DIRECTIONS

pytestmark = pytest.mark.long

NOISE = 1.6
CURVE = ScoreCurve(
    slope=10.0,
    tail=0.0,
    intercept=-1.0,
    quantiles=list(LEVELS),
    thresholds={"video_to_music": [{"pool_size": 1, "score": -0.5}, {"pool_size": 100, "score": 0.2}]},
)


def make_pairs(n, seed, noise=NOISE, dim=24):
    """Both sides see the same hidden vector through noise of their own."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, dim))
    sides = [hidden + noise * rng.normal(size=(n, dim)) for _ in range(2)]
    return [(side / np.linalg.norm(side, axis=1, keepdims=True)).astype(np.float32) for side in sides]


def make_fold(n, seed, noise=NOISE):
    return Fold(*make_pairs(n, seed, noise), np.arange(n), np.arange(n).astype(str))


@pytest.fixture(scope="module")
def curve():
    return calibrate([make_fold(500, 0)]).curve


def count_true_share(low, high, n_pool, n_pools=40):
    """Share of true pairs among all with a score in a range: plain loops over fresh pools."""
    n_true, n_all = 0, 0
    for seed in range(100, 100 + n_pools):
        music, video = make_pairs(n_pool, seed)
        scores = music @ video.T
        for i in range(n_pool):
            for j in np.flatnonzero((scores[i] >= low) & (scores[i] < high)):
                n_all += 1
                n_true += i == j
    return n_true / n_all, n_all


@pytest.mark.parametrize("n_pool", [10, 100])
def test_the_probability_is_the_share_of_true_pairs_in_a_library_of_that_size(curve, n_pool):
    for middle in (0.3, 0.5):
        share, n = count_true_share(middle - 0.03, middle + 0.03, n_pool)
        promised = float(curve.find_probability(middle, n_pool))
        assert promised == pytest.approx(share, abs=0.05 + 3 * math.sqrt(share * (1 - share) / n)), (middle, n)


def test_a_larger_library_makes_the_same_score_less_likely():
    log_odds = [10.0 * 0.3 - 1.0 - math.log(n - 1) for n in (2, 100, 10_000)]
    expected = [1 / (1 + math.exp(-x)) for x in log_odds]
    assert [float(CURVE.find_probability(0.3, n)) for n in (2, 100, 10_000)] == pytest.approx(expected)
    assert float(CURVE.find_probability(0.3, 1)) == pytest.approx(expected[0])
    assert CURVE.find_probability(np.array([-1e6, 1e6]), 50).tolist() == [0.0, 1.0]


def test_the_percentile_is_the_share_of_wrong_candidates_below(curve):
    music, video = make_pairs(400, 7)
    scores = music @ video.T
    wrong = scores[~np.eye(400, dtype=bool)]
    for level in (0.05, 0.5, 0.9, 0.999):
        score = float(np.quantile(wrong, level))
        assert float(curve.find_percentile(score)) == pytest.approx(100 * level, abs=1.5)
    assert curve.find_percentile([-2.0, 2.0]).tolist() == [0.0, 100.0]


def best_of_pool(queries, gallery, row, pool):
    return max(float(queries[row] @ gallery[candidate]) for candidate in pool)


@pytest.mark.parametrize(
    ("direction", "n_pool"), [("music_to_video", 5), ("video_to_music", 5), ("music_to_video", 50)]
)
def test_queries_whose_pair_is_there_are_told_that_nothing_fits_as_rarely_as_stated(direction, n_pool):
    """Coverage over many calibrations, by a double loop that knows nothing of the other code."""
    missed, n_queries, absent = 0, 0, 0
    for seed in range(30):
        threshold = calibrate([make_fold(60, 1000 + seed)]).curve.find_threshold(direction, n_pool)
        queries, gallery = make_pairs(100, 5000 + seed)[:: 1 if direction == "music_to_video" else -1]
        rng = np.random.default_rng(seed)
        for row in range(100):
            others = [int(i) for i in rng.permutation(100) if i != row][:n_pool]
            missed += best_of_pool(queries, gallery, row, [row, *others[:-1]]) < threshold
            absent += best_of_pool(queries, gallery, row, others) < threshold
            n_queries += 1
    assert missed / n_queries <= 1 - COVERAGE + 0.015
    assert missed / n_queries >= 0.02  # it is said at all
    assert absent > missed  # and more often where nothing fits


def test_a_larger_library_than_any_held_out_one_takes_the_largest_known_threshold():
    found = [CURVE.find_threshold("video_to_music", n) for n in (1, 99, 100, 10**6)]
    assert found == [-0.5, -0.5, 0.2, 0.2]
    assert CURVE.find_threshold("video_to_video", 100) is None


def test_thresholds_rise_with_the_library(curve):
    for direction in DIRECTIONS:
        items = curve.thresholds[direction]
        assert [item.pool_size for item in items] == [1, 2, 5, 10, 20, 50, 100, 200, 500]
        assert [item.score for item in items] == sorted(item.score for item in items)


def test_too_few_pairs_give_no_curve_but_say_whether_they_are_better_than_chance():
    few, enough = (calibrate([make_fold(n, 3, noise=0.3)]) for n in (MIN_PAIRS - 1, MIN_PAIRS))
    assert few.curve is None and few.n_pairs == MIN_PAIRS - 1 and few.warn_of_chance() == ""
    assert enough.curve is not None
    assert calibrate([make_fold(1, 3)]) is None
    assert calibrate([]) is None


def test_folds_of_cross_validation_count_together():
    folds = [make_fold(12, seed) for seed in range(3)]
    found = calibrate([*folds, make_fold(1, 9)])
    assert found.n_pairs == 36 and found.curve is not None
    assert found.mrr_chance == pytest.approx(sum(1 / k for k in range(1, 13)) / 12)
    assert found.curve.thresholds["music_to_video"][-1].pool_size == 12
    assert found == calibrate([*folds, make_fold(1, 9)])


def test_items_of_one_code_are_true_pairs_of_each_other():
    music, video = make_pairs(40, 2, noise=0.1)
    twice = [np.concatenate([side, side]) for side in (music, video)]
    codes = np.tile(np.arange(40), 2)
    found = calibrate([Fold(*twice, codes, codes)])
    assert found.curve.thresholds["music_to_video"][-1].pool_size == 79
    # were the doubles others, the highest score of the others would be that of a true pair
    assert found.curve.quantiles[-1] < 0.8
    assert float(found.curve.find_percentile(0.9)) == 100.0


def test_other_true_pairs_are_no_candidates_of_a_pool():
    """Each item has a double that agrees perfectly, while its own pair scores low."""
    codes = np.tile(np.arange(20), 2)
    is_pair = codes[:, None] == codes[None, :]
    scores = np.where(is_pair, 1.0, 0.2)
    np.fill_diagonal(scores, -1.0)
    best = _draw_best(scores, is_pair, [1, 2, 39], np.random.default_rng(0))
    assert best.tolist() == [[-1.0, 0.2, 0.2]] * 40


def test_models_at_chance_are_called_so_and_better_ones_are_not():
    at_chance = [calibrate([make_fold(40, seed, noise=1e6)]) for seed in range(25)]
    assert sum(bool(found.warn_of_chance()) for found in at_chance) >= 22
    assert all(found.curve.slope < 4 for found in at_chance)
    assert not any(calibrate([make_fold(40, seed)]).warn_of_chance() for seed in range(5))
    sentence = at_chance[0].warn_of_chance()
    assert sentence.startswith("this model is not better than chance on its validation pairs (MRR 0.")
    assert "95 % interval" in sentence and "chance 0.107" in sentence


def test_one_group_alone_cannot_show_that_a_model_is_better_than_chance():
    music, video = make_pairs(30, 1, noise=0.1)
    found = calibrate([Fold(music, video, np.arange(30), ["one"] * 30)])
    assert found.mrr == 1.0 and found.mrr_low is None
    assert "not better than chance" in found.warn_of_chance()


@pytest.mark.parametrize("noise", [0.3, NOISE, 1e6])
def test_a_higher_score_is_never_less_likely(noise):
    found = calibrate([make_fold(100, 6, noise)]).curve
    fits = found.find_probability(np.linspace(-1, 1, 500), 50)
    assert (np.diff(fits) >= 0).all() and min(found.slope, found.tail) >= 0


def test_few_pairs_that_agree_far_better_than_all_others_are_seen():
    """One pair in twenty is nearly the same on both sides, the others say nothing."""

    def make_mixture(n, seed):
        pairs = zip(make_pairs(n, seed, noise=0.02), make_pairs(n, seed + 1000, noise=1e6), strict=True)
        return [np.where(np.arange(n)[:, None] % 20 == 0, alike, unlike) for alike, unlike in pairs]

    found = calibrate([Fold(*make_mixture(400, 1), np.arange(400), np.arange(400))]).curve
    music, video = make_mixture(400, 2)
    scores = music @ video.T
    is_high = scores > 0.55
    share = is_high[np.eye(400, dtype=bool)].sum() / is_high.sum()
    promised = found.find_probability(scores[is_high], 400).mean()
    without = ScoreCurve(**{**found.model_dump(), "tail": 0.0}).find_probability(scores[is_high], 400).mean()
    assert without < share / 20 < share / 5 < promised < share


def test_scores_that_fall_for_true_pairs_say_nothing():
    music, video = make_pairs(60, 5, noise=0.2)
    found = calibrate([Fold(music, -video, np.arange(60), np.arange(60))])
    assert found.curve.slope == 0.0
    assert float(found.curve.find_probability(0.9, 60)) == pytest.approx(1 / 60)


def test_collapsed_embeddings_and_perfect_ones_have_finite_curves():
    collapsed = np.ones((30, 4), np.float32) / 2
    perfect = np.eye(30, dtype=np.float32)
    for side in (collapsed, perfect):
        found = calibrate([Fold(side, side, np.arange(30), np.arange(30))])
        assert Calibration.model_validate_json(found.model_dump_json()) == found
    assert float(found.curve.find_probability(1.0, 30)) > 0.9 > 0.1 > float(found.curve.find_probability(0.0, 30))


@pytest.mark.parametrize(
    "change", [{"slope": -1.0}, {"slope": math.nan}, {"intercept": math.inf}, {"quantiles": [0.0]}, {"other": 1}]
)
def test_stored_curves_are_checked(change):
    with pytest.raises(ValidationError):
        ScoreCurve.model_validate({**CURVE.model_dump(), **change})


def test_reliability_compares_probabilities_with_shares(curve):
    music, video = make_pairs(600, 11)
    found = measure_reliability(curve, music, video, np.arange(600))
    assert (found["pool_size"], found["top_k"], found["n_answers"]) == (600, 10, 12_000)
    assert found["expected_calibration_error"] < 0.02
    wrong = ScoreCurve(**{**curve.model_dump(), "intercept": curve.intercept + 3})
    assert measure_reliability(wrong, music, video, np.arange(600))["expected_calibration_error"] > 0.08


def test_reliability_is_what_plain_loops_find():
    music, video = make_pairs(30, 4)
    found = measure_reliability(CURVE, music, video, np.arange(30), top_k=3, n_bins=4)
    answers = []
    for queries, gallery in ((music, video), (video, music)):
        for i in range(30):
            scores = [float(queries[i] @ gallery[j]) for j in range(30)]
            for j in sorted(range(30), key=lambda j: -scores[j])[:3]:
                answers.append((1 / (1 + math.exp(-(10 * scores[j] - 1 - math.log(29)))), i == j))
    answers.sort()
    error = 0.0
    for place in range(4):
        chunk = answers[45 * place : 45 * (place + 1)]
        predicted, observed = (sum(column) / 45 for column in zip(*chunk, strict=True))
        error += abs(predicted - observed) / 4
        described = found["bins"][place]
        assert (described["n"], described["predicted"], described["observed"]) == (
            45,
            pytest.approx(predicted, abs=1e-6),
            pytest.approx(observed),
        )
        assert described["low"] <= observed <= described["high"]
    assert found["expected_calibration_error"] == pytest.approx(error, abs=1e-6)


def test_perfect_probabilities_have_the_error_that_chance_makes():
    music, video = make_pairs(60, 8)
    keys = np.arange(60)
    found = measure_reliability(CURVE, music, video, keys)
    assert 0 < found["ece_of_perfect"] < 0.1
    flat = ScoreCurve(**{**CURVE.model_dump(), "slope": 0.0, "intercept": 0.0})
    assert len(measure_reliability(flat, music, video, keys)["bins"]) == 10
