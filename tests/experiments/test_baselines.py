from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tiny_pairs import draw_pairs
from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.evaluation.ranks import rank_queries
from vmnet_pipeline.experiments import baselines
from vmnet_pipeline.experiments.baselines import fit_baseline
from vmnet_pipeline.params import BASELINES
from vmnet_pipeline.types import FeaturePart, Sequences

TRAIN, VAL, TEST = draw_pairs(200, 1), draw_pairs(60, 2), draw_pairs(80, 3)


def recall(name, train=TRAIN, val=VAL):
    music, video = fit_baseline(name, train, val, seed=4)(TEST)
    return float((rank_queries(music, video).ranks <= 10).mean())


@pytest.mark.parametrize("name", BASELINES)
def test_both_sides_are_unit_vectors_of_one_space(name):
    music, video = fit_baseline(name, TRAIN, VAL)(TEST)
    assert music.shape == video.shape
    assert music.dtype == video.dtype == np.float32
    for side in (music, video):
        np.testing.assert_allclose(np.linalg.norm(side, axis=1), 1.0, atol=1e-5)


def test_methods_learn_the_pairing_and_chance_does_not():
    assert recall("cca") > 0.6  # chance: 0.125
    assert recall("pls") > 0.5
    assert recall("neighbours") > 0.4
    assert recall("chance") < 0.25
    mismatched = replace(TRAIN, video=np.roll(TRAIN.video, 1, axis=0))
    assert recall("cca", mismatched) < 0.35


@pytest.mark.parametrize("name", BASELINES)
def test_blocks_change_memory_and_not_the_result(name, monkeypatch):
    whole = fit_baseline(name, TRAIN, VAL)(TEST)
    monkeypatch.setattr(baselines, "CHUNK_ROWS", 7)
    for a, b in zip(whole, fit_baseline(name, TRAIN, VAL)(TEST), strict=True):
        np.testing.assert_allclose(a @ a.T, b @ b.T, atol=1e-4)


def test_cca_is_that_of_the_covariances_of_all_pairs():
    music, video = TRAIN.music.astype(float), TRAIN.video.astype(float)
    x, y = music - music.mean(axis=0), video - video.mean(axis=0)
    moments = baselines._measure_moments(TRAIN)
    np.testing.assert_allclose(moments.xx, x.T @ x / 200, atol=1e-10)
    np.testing.assert_allclose(moments.yy, y.T @ y / 200, atol=1e-10)
    np.testing.assert_allclose(moments.xy, x.T @ y / 200, atol=1e-10)


def test_pls_is_scikit_learns():
    from sklearn.cross_decomposition import PLSSVD

    embed = baselines._fit_pls(TRAIN, VAL)
    x, y = PLSSVD(n_components=embed.px.shape[1]).fit(TRAIN.music, TRAIN.video).transform(TEST.music, TEST.video)
    for ours, theirs in zip(embed(TEST), (x, y), strict=True):
        np.testing.assert_allclose(ours, theirs / np.linalg.norm(theirs, axis=1, keepdims=True), atol=1e-4)


def test_the_product_of_neighbours_is_the_mean_of_two_cosines():
    embed = baselines._fit_neighbours(TRAIN, VAL)
    music, video = embed(TEST)
    (mx, ax), (my, ay) = embed.places
    x, y = (TEST.music - mx) @ ax, (TEST.video - my) @ ay

    def cosine(a, b):
        return (a / np.linalg.norm(a, axis=-1, keepdims=True)) @ (b / np.linalg.norm(b, axis=-1, keepdims=True)).T

    def guess(query, own, other):
        near = np.argsort(-cosine(query[None], own)[0])[: embed.n]
        return other[near].mean(axis=0)

    x_guess = np.stack([guess(row, embed.known[0], embed.known[1]) for row in x])
    y_guess = np.stack([guess(row, embed.known[1], embed.known[0]) for row in y])
    np.testing.assert_allclose(music @ video.T, (cosine(x_guess, y) + cosine(x, y_guess)) / 2, atol=1e-5)


@pytest.mark.parametrize("name", ["cca", "pls", "neighbours"])
def test_time_is_averaged_whether_in_an_array_or_in_sequences(name):
    rng = np.random.default_rng(0)

    def spread(pairs, as_sequences):
        noise = rng.normal(size=(len(pairs), 2, 12)).astype(np.float32)
        frames = [item + np.concatenate([own, -own]) for item, own in zip(pairs.music, noise, strict=True)]
        if not as_sequences:
            return replace(pairs, music=np.stack(frames))
        ragged = [frames[place] if place % 2 else pairs.music[place][None] for place in range(len(pairs))]
        offsets = np.cumsum([0, *(len(item) for item in ragged)])
        return replace(pairs, music=Sequences(np.concatenate(ragged), offsets, 4))

    expected = fit_baseline(name, TRAIN, VAL)(TEST)[0]
    for as_sequences in (False, True):
        train, val, test = (spread(pairs, as_sequences) for pairs in (TRAIN, VAL, TEST))
        found = fit_baseline(name, train, val)(test)[0]
        np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-3)


def test_settings_are_chosen_on_validation_pairs():
    class Fixed:
        def __init__(self, seed):
            self.seed = seed

        def __call__(self, pairs):
            return baselines._draw_chance(len(pairs), self.seed)

    candidates = [Fixed(seed) for seed in range(12)]
    hits = [sum(float((rank_queries(*pair).ranks <= 10).mean()) for pair in (c(VAL), c(VAL)[::-1])) for c in candidates]
    assert baselines._choose(candidates, VAL).seed == int(np.argmax(hits))


def test_a_large_set_is_thinned_evenly(monkeypatch):
    monkeypatch.setattr(baselines, "MAX_FIT_PAIRS", 50)
    music, video = baselines._gather_fit(TRAIN)
    np.testing.assert_allclose(music, TRAIN.music[::4])
    np.testing.assert_allclose(video, TRAIN.video[::4])


@pytest.mark.parametrize("n", [2, 4, 12])
@pytest.mark.parametrize("name", BASELINES)
def test_very_small_sets_are_no_error(name, n):
    music, video = fit_baseline(name, draw_pairs(n, 1), draw_pairs(2, 2))(TEST)
    assert np.isfinite(music @ video.T).all()


def test_a_side_without_pairs_is_named():
    with pytest.raises(PairsError, match="at least 2 validation pairs, not 1"):
        fit_baseline("cca", TRAIN, draw_pairs(1, 2))


@pytest.mark.parametrize("name", ["cca", "pls", "neighbours"])
def test_units_of_joined_backends_do_not_matter(name):
    """As in training; else a backend in Hz would be all that a baseline sees."""

    def join(pairs, unit):
        noise = np.random.default_rng(len(pairs)).normal(size=(len(pairs), 4)).astype(np.float32)
        parts = (FeaturePart("own", pairs.music.shape[1]), FeaturePart("noise", 4))
        return replace(pairs, music=np.concatenate([pairs.music, unit * noise], axis=1), parts={"music": parts})

    found = [fit_baseline(name, join(TRAIN, unit), join(VAL, unit))(join(TEST, unit)) for unit in (1.0, 1e4)]
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
