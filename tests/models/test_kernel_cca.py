from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import eigh

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.models.kernel_cca import assign_folds, fit_kernels
from vmnet_pipeline.models.kernel_tower import KernelTower

RNG = np.random.default_rng(0)


def draw(n, seed=0):
    """Two views that agree only in what no linear map of the first one finds: its squares."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    y = np.concatenate([x[:, :2] ** 2, rng.normal(size=(n, 2))], axis=1)
    return x, y + 0.05 * rng.normal(size=y.shape)


def apply(part, x):
    kernel = np.exp(-part.gamma * ((x[:, None] - part.landmarks[None]) ** 2).sum(axis=2))
    return kernel @ part.projection - part.offset


def test_variates_are_those_of_the_generalised_eigenproblem_of_kernels():
    x, y = draw(60)
    fit = fit_kernels(x, y, np.arange(60), 4, n_landmarks=60, seed=0, width=0.5, ridge=1e-2)

    def centred(side, gamma):
        kernel = np.exp(-gamma * ((side[:, None] - side[None]) ** 2).sum(axis=2))
        middle = np.eye(60) - 1 / 60
        return middle @ kernel @ middle / 60

    kx, ky = centred(x, fit.music.gamma), centred(y, fit.video.gamma)
    ridge = 1e-2 * np.eye(60)
    blocks = np.block([[np.zeros((60, 60)), kx @ ky], [ky @ kx, np.zeros((60, 60))]])
    # with features of a kernel, S + r I is (K / n + r I) in the span of the items
    norms = np.block([[kx @ (kx + ridge), np.zeros((60, 60))], [np.zeros((60, 60)), ky @ (ky + ridge)]])
    expected = eigh(blocks, norms + 1e-12 * np.eye(120), eigvals_only=True)[::-1][:4]
    u, v = apply(fit.music, x), apply(fit.video, y)
    # u = s a: its covariance with v is s^2 times the correlation s
    found = np.array([np.mean((a - a.mean()) * (b - b.mean())) for a, b in zip(u.T, v.T, strict=True)])
    np.testing.assert_allclose(np.cbrt(found), expected, atol=2e-3)


@pytest.mark.long
def test_it_finds_what_linear_analysis_cannot():
    x, y = draw(600)
    fit = fit_kernels(x, y, np.arange(600), 16, n_landmarks=600, seed=0)
    other_x, other_y = draw(100, seed=1)
    u, v = apply(fit.music, other_x), apply(fit.video, other_y)
    scores = u @ v.T / np.linalg.norm(u, axis=1)[:, None] / np.linalg.norm(v, axis=1)
    ranks = 1 + (scores > scores.diagonal()[:, None]).sum(axis=1)
    assert np.mean(ranks <= 10) > 0.6
    assert fit.score is not None
    assert fit.score > 0.1


def test_the_tower_computes_the_fit():
    x, y = draw(80)
    fit = fit_kernels(x, y, np.arange(80), 6, n_landmarks=50, seed=0)
    tower = KernelTower(3, 8, 50)
    tower.set_fit(fit.music)
    found = tower(torch.from_numpy(x[:7]).float()).embedding.numpy()
    expected = np.pad(apply(fit.music, x[:7]), ((0, 0), (0, 2)))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_handful_of_pairs_is_enough(n):
    x, y = draw(n)
    fit = fit_kernels(x, y, np.zeros(n), 4, n_landmarks=100, seed=0)
    assert np.isfinite(apply(fit.music, x)).all()


def test_pairs_that_are_not_finite_do_not_count_and_too_few_are_an_error():
    x, y = draw(40)
    x[3] = np.nan
    whole = fit_kernels(
        np.delete(x, 3, 0), np.delete(y, 3, 0), np.arange(39), 4, n_landmarks=39, seed=0, width=0.5, ridge=0.1
    )
    fit = fit_kernels(x, y, np.arange(40), 4, n_landmarks=39, seed=0, width=0.5, ridge=0.1)
    probe = RNG.normal(size=(5, 3))
    np.testing.assert_allclose(np.abs(apply(fit.music, probe)), np.abs(apply(whole.music, probe)), atol=1e-5)
    with pytest.raises(ParameterError, match="at least two"):
        fit_kernels(x[3:5], y[3:5], np.arange(2), 4, n_landmarks=2, seed=0)


def test_groups_stay_whole_and_folds_are_about_equal():
    groups = np.repeat(np.arange(30), RNG.integers(1, 9, size=30))
    folds = assign_folds(groups, 5, np.random.default_rng(0))
    assert all(len(set(folds[groups == group])) == 1 for group in range(30))
    sizes = np.bincount(folds)
    assert len(sizes) == 5
    assert sizes.max() - sizes.min() <= 8
    assert set(assign_folds(np.zeros(10), 5, np.random.default_rng(0))) == set(range(5))
