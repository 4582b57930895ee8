"""Whitening of inputs: what the matrix does, and that it is chosen where strong directions hide what sides share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tiny_pairs import narrow_params
from vmnet_pipeline.errors import TrainingError
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training import train_model
from vmnet_pipeline.training.whitening import choose_whitening, find_whitening, settle_whitening
from vmnet_pipeline.types import PairArrays

OPEN = {"music": None, "video": None}
KERNEL = {"music_tower": "kernel", "video_tower": "kernel", "embedding_dim": 8}


def draw(n: int = 600, *, nuisance: float = 60.0) -> PairArrays:
    """Music hides the four shared factors behind two directions of all channels; video shows them as they are."""
    rng = np.random.default_rng(5)
    shared = rng.normal(size=(n, 4))
    mixed = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    music = np.concatenate([shared, 0.7 * rng.normal(size=(n, 10)), nuisance * rng.normal(size=(n, 2))], axis=1) @ mixed
    video = shared + 0.3 * rng.normal(size=(n, 4))
    ids = tuple(map(str, range(n)))
    return PairArrays(ids, ids, music.astype(np.float32), video.astype(np.float32))


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_deviations_of_principal_directions_are_raised_to_what_is_left(exponent: float) -> None:
    deviations = np.array([8.0, 2.0, 1.0])
    mixed = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    values = (np.random.default_rng(1).normal(size=(20_000, 3)) * deviations) @ mixed.T
    matrix = find_whitening(values.astype(np.float32), exponent)
    found = np.sqrt(np.linalg.eigvalsh(np.cov((values @ matrix).T)))[::-1]
    np.testing.assert_allclose(found / found[-1], deviations ** (1.0 - exponent), rtol=0.03)
    assert (values @ matrix).var(axis=0).sum() == pytest.approx(values.var(axis=0).sum(), rel=1e-3)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)


def test_it_is_chosen_for_the_side_whose_strong_directions_hide_what_is_shared() -> None:
    params = TrainParams(device="cpu", n_threads=1)
    chosen = choose_whitening(draw(), params)
    assert chosen.music
    assert chosen.video == 0.0
    assert choose_whitening(draw(400), params).list_sides() == []  # too few pairs
    assert choose_whitening(draw(), params.override({"standardise": False})).list_sides() == []


def test_only_open_exponents_are_settled() -> None:
    members = {"kernel": {"model": KERNEL, "whiten": {"music": None, "video": 0.25}}, "plain": {}}
    settled = settle_whitening(draw(), narrow_params(members=members))
    assert settled.kinds["kernel"].whiten.music
    assert settled.kinds["kernel"].whiten.video == 0.25
    assert settled.kinds["kernel"].model.music_tower == "kernel"
    assert settled.kinds["plain"].whiten.list_sides() == []
    given = narrow_params(whiten={"music": 0.5})
    assert settle_whitening(draw(), given) is given
    assert settle_whitening(draw(), narrow_params(model=KERNEL, whiten=OPEN)).whiten.music


def test_a_kernel_network_finds_more_through_it(tmp_path) -> None:
    pairs = draw(900)
    train, other = (
        replace(pairs, ids=pairs.ids[part], groups=pairs.groups[part], music=pairs.music[part], video=pairs.video[part])
        for part in (slice(0, 600), slice(600, 900))
    )
    found = []
    for name, whiten in (("plain", {}), ("open", OPEN)):
        params = narrow_params(model=KERNEL, whiten=whiten, kernel={"width": 0.8, "ridge": 1e-3})
        model = train_model(train, None, params, state_dir=tmp_path / name).build()
        scores = embed_arrays(model, music=other.music) @ embed_arrays(model, video=other.video).T
        found.append(float(((scores > np.diag(scores)[:, None]).sum(axis=1) < 10).mean()))
    assert found[1] > found[0] + 0.2


def test_the_matrix_belongs_to_the_weights(tmp_path) -> None:
    pairs = draw(60, nuisance=5.0)
    params = narrow_params(whiten={"music": 1.0}, epochs=1)
    params = params.override({"model": {"music_tower": "musicnn", "video_tower": "musicnn", "embedding_dim": 8}})
    result = train_model(pairs, None, params, state_dir=tmp_path)
    matrix = result.tensors["music_scaler.matrix"]
    assert result.model_config["whiten"] == ["music"]
    assert "video_scaler.matrix" not in result.tensors
    scaled = (pairs.music - result.tensors["music_scaler.mean"].numpy()) / result.tensors["music_scaler.std"].numpy()
    spread = np.linalg.eigvalsh(np.cov((scaled @ matrix.numpy()).T))
    assert spread.max() < 1.1 * spread.min()
    assert torch.equal(result.build().music_scaler.matrix, matrix)


@pytest.mark.parametrize("whiten", [OPEN, {"music": 0.5}])
def test_pairs_that_are_not_finite_are_named(tmp_path, whiten: dict[str, float | None]) -> None:
    pairs = draw()
    pairs.music[7] = np.nan
    with pytest.raises(TrainingError, match="features of 7 hold NaN"):
        train_model(pairs, None, narrow_params(whiten=whiten), state_dir=tmp_path)
