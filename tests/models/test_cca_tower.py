from __future__ import annotations

import numpy as np
import pytest
import torch

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.models.cca import fit_canonical
from vmnet_pipeline.models.cca_tower import CanonicalTower, fit_towers
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.models.factory import build_model

CORRELATIONS = np.array([0.9, 0.7, 0.5])


def make_views(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gaussian views with known correlations, mixed linearly among nuisance; also the views themselves."""
    world, rng = np.random.default_rng(9), np.random.default_rng(seed)
    u = rng.normal(size=(n, 3))
    v = CORRELATIONS * u + np.sqrt(1 - CORRELATIONS**2) * rng.normal(size=u.shape)
    sides = []
    for latent, dim in ((u, 8), (v, 12)):
        mixed = latent @ world.normal(size=(3, dim)) + rng.normal(size=(n, 4)) @ world.normal(size=(4, dim))
        sides.append((mixed + 0.01 * rng.normal(size=mixed.shape) + 5.0).astype(np.float32))
    return sides[0], sides[1], u, v


def likelihood_ratio(u: np.ndarray, v: np.ndarray, r: np.ndarray) -> np.ndarray:
    a, b = r / (1 - r**2), r**2 / (2 * (1 - r**2))
    return (u * a) @ v.T - (u**2 @ b)[:, None] - (v**2 @ b)[None, :]


def halves(n: int) -> np.ndarray:
    return np.arange(n) % 2 == 0


def test_the_analysis_finds_correlations_and_unit_variates() -> None:
    music, video, u, _ = make_views(4000)
    fit = fit_canonical(music, video, 5, halves=halves(4000))
    np.testing.assert_allclose(fit.correlations[:3], CORRELATIONS, atol=0.05)
    assert (fit.correlations[3:] < 0.1).all()
    variates = (music - music.mean(axis=0)) @ fit.music
    np.testing.assert_allclose(variates.std(axis=0), 1.0, atol=1e-3)
    for k in range(3):
        assert abs(np.corrcoef(variates[:, k], u[:, k])[0, 1]) > 0.98


def test_correlations_of_unrelated_views_are_near_zero_although_overfitting_would_find_some() -> None:
    rng = np.random.default_rng(0)
    fit = fit_canonical(rng.normal(size=(60, 40)), rng.normal(size=(60, 50)), 8, halves=halves(60))
    assert fit.correlations.mean() < 0.2


def test_chunks_do_not_change_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    music, video, _, _ = make_views(300)
    whole = fit_canonical(music, video, 3, halves=halves(300))
    monkeypatch.setattr("vmnet_pipeline.models.cca.CHUNK_ROWS", 7)
    parts = fit_canonical(music, video, 3, halves=halves(300))
    assert whole.ridge == parts.ridge
    np.testing.assert_allclose(np.abs(whole.music), np.abs(parts.music), rtol=1e-5, atol=1e-7)


def test_an_untrained_tower_gives_the_likelihood_ratio_as_dot_products() -> None:
    towers = {}
    for side in ("music", "video"):
        towers[side] = CanonicalTower(3, 7, side=side, dropout=0.0).eval()
        towers[side].set_fit(np.eye(3), CORRELATIONS)
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, 30, 3)).astype(np.float32)
    x, y = (towers[s](torch.from_numpy(a)).embedding for s, a in (("music", u), ("video", v)))
    torch.testing.assert_close(x.norm(dim=1), torch.ones(30))
    expected = likelihood_ratio(u, v, CORRELATIONS)
    found = ((x @ y.T) * towers["music"].radius ** 2).detach().numpy()
    np.testing.assert_allclose(found - found.mean(), expected - expected.mean(), atol=1e-3)


@pytest.mark.parametrize("scale", [0.0, 100.0])
def test_extreme_inputs_still_give_unit_vectors(scale: float) -> None:
    tower = CanonicalTower(3, 7, side="music", dropout=0.0).eval()
    tower.set_fit(np.eye(3), CORRELATIONS)
    embedding = tower(torch.full((2, 3), scale)).embedding
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))


def test_fitted_towers_rank_like_the_optimum() -> None:
    music, video, _, _ = make_views(3000)
    torch.manual_seed(0)
    model = build_model("canonical", "canonical", (8,), (12,), embedding_dim=9).eval()
    centred = (music - music.mean(axis=0), video - video.mean(axis=0))
    assert fit_towers(model, *centred, halves=halves(3000)) == pytest.approx(float(model.music.radius) ** 2)  # type: ignore[union-attr, arg-type]
    test_music, test_video, u, v = make_views(300, seed=1)
    x = embed_arrays(model, music=test_music - music.mean(axis=0))
    y = embed_arrays(model, video=test_video - video.mean(axis=0))

    def recall(scores: np.ndarray) -> float:
        return float(((scores > np.diag(scores)[:, None]).sum(axis=1) < 10).mean())

    optimum = recall(likelihood_ratio(u, v, CORRELATIONS))
    assert abs(recall(x @ y.T) - optimum) < 0.04
    assert x.shape == (300, 9)


@pytest.mark.parametrize("n", [2, 3])
def test_halves_of_one_item_do_not_spoil_the_fit(n: int) -> None:
    music, video, _, _ = make_views(n)
    fit = fit_canonical(music, video, 5, halves=halves(n))
    assert all(np.isfinite(part).all() for part in (fit.music, fit.video, fit.correlations))


def test_directions_that_no_item_tells_do_not_drown_the_others() -> None:
    music, video, _, _ = make_views(8)  # they span seven of eight and of twelve axes
    fit = fit_canonical(music, video, 8, halves=halves(8))
    others, _, _, _ = make_views(200, seed=1)
    variates = (others - music.mean(axis=0)) @ fit.music
    assert np.abs(variates).max() < 1000


def test_time_is_averaged() -> None:
    model = build_model("canonical", "canonical", (4, 8), (12,), embedding_dim=9).eval()
    frames = torch.randn(5, 4, 8)
    flat = build_model("canonical", "canonical", (8,), (12,), embedding_dim=9).eval()
    flat.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.embed_music(frames), flat.embed_music(frames.mean(dim=1)))


def test_a_canonical_tower_needs_its_like_and_room() -> None:
    rng = np.random.default_rng(0)
    mixed = build_model("canonical", "musicnn", (8,), (12,), embedding_dim=9)
    with pytest.raises(ParameterError, match="needs the same tower on the other side"):
        fit_towers(mixed, rng.normal(size=(9, 8)), rng.normal(size=(9, 12)), halves=halves(9))
    with pytest.raises(ParameterError, match="at least 5"):
        build_model("canonical", "canonical", (8,), (12,), embedding_dim=4)
    with pytest.raises(ParameterError, match="shape"):
        build_model("canonical", "canonical", (8, 2, 2), (12,), embedding_dim=9)
