from __future__ import annotations

import time

import numpy as np
import pytest
import scipy.linalg
import torch

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.models import cca
from vmnet_pipeline.models.cca import decompose, fit_canonical
from vmnet_pipeline.models.checkpoints import Checkpoint, build_from_checkpoint, load_checkpoint, save_checkpoint
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.models.reduced_cca import RANKS, RIDGES, fit_reduced, list_ranks
from vmnet_pipeline.models.reduced_tower import ReducedTower, fit_reduced_towers


def draw(n, widths, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 5))
    return [shared @ rng.normal(size=(5, width)) + noise * rng.normal(size=(n, width)) for width in widths]


def test_every_block_holds_the_canonical_directions_of_its_ridge():
    x, y = draw(80, (9, 7))
    music, video = fit_reduced(x, y, [9], [7])
    xx, yy = np.cov(x.T, bias=True), np.cov(y.T, bias=True)
    xy = (x - x.mean(0)).T @ (y - y.mean(0)) / 80
    starts = np.cumsum([0, *list_ranks(1, 1)])
    for number, ridge in enumerate(RIDGES):
        a, b = (
            part + ridge * np.trace(part) / len(part) * np.eye(len(part)) for part in (xx, yy)
        )  # the generalised eigenproblem of regularised CCA
        blocks = np.block([[np.zeros((9, 9)), xy], [xy.T, np.zeros((7, 7))]])
        expected = scipy.linalg.eigh(blocks, scipy.linalg.block_diag(a, b), eigvals_only=True)[::-1]
        first = starts[number * len(RANKS) + 1]  # that of rank 4
        u, v = music[:, first : first + 4], video[:, first : first + 4]
        np.testing.assert_allclose(np.einsum("dn,dn->n", u, xy @ v), expected[:4], atol=1e-9)
        np.testing.assert_allclose(u.T @ a @ u, np.eye(4), atol=1e-9)


def test_backends_of_a_side_are_analysed_each_by_itself():
    x, y = draw(40, (6, 30))
    together, _ = fit_reduced(x, y, [2, 4], [30])
    alone, _ = fit_reduced(x[:, 2:], y, [4], [30])
    half = sum(list_ranks(1, 1))
    np.testing.assert_allclose(np.abs(together[2:, half:]), np.abs(alone), atol=1e-9)
    assert not together[2:, :half].any()
    assert not together[:2, half:].any()


def test_the_cosine_of_two_items_is_the_mean_of_those_of_the_blocks():
    x, y = draw(60, (8, 300))
    model = build_model("reduced", "reduced", (8,), (300,), ranks=list_ranks(1, 1)).eval()
    fit_reduced_towers(model, x.astype("f4"), y.astype("f4"), [8], [300])
    projections = fit_reduced(x.astype("f4").astype(float), y.astype("f4").astype(float), [8], [300])
    music, video = ((side - side.mean(0)) @ part for side, part in zip((x, y), projections, strict=True))
    stops = np.cumsum(list_ranks(1, 1))
    unit = lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)  # noqa: E731
    expected = np.mean(
        [
            unit(music[:, stop - rank : stop]) @ unit(video[:, stop - rank : stop]).T
            for stop, rank in zip(stops, list_ranks(1, 1), strict=True)
        ],
        axis=0,
    )
    with torch.no_grad():
        found = model.embed_music(torch.from_numpy(x).float()) @ model.embed_video(torch.from_numpy(y).float()).T
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)


def test_wide_features_of_few_pairs_take_no_time():
    x, y = draw(60, (2000, 1500))
    start = time.process_time()
    music, _ = fit_reduced(x, y, [2000], [1500])
    fit_canonical(x, y, 8, halves=np.arange(60) % 2 == 0)
    assert time.process_time() - start < 3.0  # an eigendecomposition of 2,000 entries for each half takes ten
    assert np.isfinite(music).all()


def test_canonical_directions_of_wide_features_are_those_of_all_their_entries(monkeypatch):
    halves = np.arange(50) % 2 == 0
    x, y = draw(50, (120, 20), noise=0.3)
    quick = fit_canonical(x, y, 5, halves=halves)
    monkeypatch.setattr(cca, "_rotate_wide", lambda side, _: (side, None))
    whole = fit_canonical(x, y, 5, halves=halves)
    assert quick.ridge == whole.ridge
    np.testing.assert_allclose(quick.correlations, whole.correlations, atol=1e-9)
    np.testing.assert_allclose(np.abs(quick.music), np.abs(whole.music), atol=1e-8)
    np.testing.assert_allclose(np.abs(quick.video), np.abs(whole.video), atol=1e-8)


@pytest.mark.parametrize("constant", ["music", "video", "both"])
def test_constant_features_give_unit_vectors(constant):
    x, y = (side.astype("f4") for side in draw(12, (5, 6)))
    x = np.ones_like(x) if constant != "video" else x
    y = np.ones_like(y) if constant != "music" else y
    model = build_model("reduced", "reduced", (5,), (6,), ranks=list_ranks(1, 1)).eval()
    fit_reduced_towers(model, x, y, [5], [6])
    with torch.no_grad():
        for embedded in (model.embed_music(torch.from_numpy(x)), model.embed_video(torch.from_numpy(y))):
            np.testing.assert_allclose(embedded.norm(dim=1).numpy(), 1.0, atol=1e-5)


@pytest.mark.parametrize("n", [2, 3])
def test_two_pairs_are_enough(n):
    x, y = draw(n, (5, 6))
    assert all(np.isfinite(part).all() for part in fit_reduced(x, y, [5], [6]))


def test_one_side_alone_is_refused():
    model = build_model("reduced", "musicnn", (5,), (6,))
    x, y = (side.astype("f4") for side in draw(12, (5, 6)))
    with pytest.raises(ParameterError, match="the same tower on the other side"):
        fit_reduced_towers(model, x, y, [5], [6])


def test_a_matrix_that_the_fast_method_fails_on_is_decomposed(monkeypatch):
    def fail(*_, **__):
        raise torch.linalg.LinAlgError("linalg.svd: The algorithm failed to converge")

    monkeypatch.setattr(torch.linalg, "svd", fail)
    matrix = np.random.default_rng(0).normal(size=(7, 5))
    left, values, right = decompose(matrix)
    np.testing.assert_allclose(left * values @ right, matrix, atol=1e-12)


def test_a_checkpoint_of_it_is_read_as_it_was_saved(tmp_path):
    x, y = (side.astype("f4") for side in draw(12, (5, 6)))
    config = {"music_tower": "reduced", "video_tower": "reduced", "music_shape": [5], "video_shape": [6]}
    config |= {"embedding_dim": sum(list_ranks(1, 1)), "dropout": 0.0, "standardise": False, "ranks": list_ranks(1, 1)}
    model = build_model(**config).eval()
    fit_reduced_towers(model, x, y, [5], [6])
    save_checkpoint(tmp_path, Checkpoint(config, model.state_dict()))
    read = build_from_checkpoint(load_checkpoint(tmp_path))
    with torch.no_grad():
        assert torch.equal(read.embed_music(torch.from_numpy(x)), model.embed_music(torch.from_numpy(x)))


def test_its_size_is_that_of_its_blocks():
    assert ReducedTower(3, [2, 4]).embedding_dim == 6
