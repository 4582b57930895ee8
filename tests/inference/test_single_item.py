"""One item in numpy gives what the network gives."""

import numpy as np
import pytest
import torch

from vmnet_pipeline.inference.single_item import build_single
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.models.factory import build_model

SHAPES = {"musicnn": (6,), "vggish": (22, 5), "canonical": (6,), "sequence": (9, 6)}


def make_network(tower, *, standardise, whiten=()):
    torch.manual_seed(0)
    music, video = SHAPES[tower], SHAPES["sequence" if tower == "sequence" else "musicnn"]
    model = build_model(tower, tower, music, video, embedding_dim=8, standardise=standardise, whiten=whiten)
    model.requires_grad_(False)
    for name, part in [*model.named_buffers(), *model.named_parameters()]:
        if part.is_floating_point() and ("bn." in name or "scaler" in name or "bias" in name):
            part.copy_(torch.rand_like(part) + 0.3)
    return model.eval()


@pytest.mark.parametrize(("standardise", "whiten"), [(True, ()), (False, ()), (True, ("music",)), (True, ("video",))])
@pytest.mark.parametrize("tower", ["musicnn", "vggish"])
def test_it_is_the_network(tower, standardise, whiten):
    model = make_network(tower, standardise=standardise, whiten=whiten)
    music = np.random.default_rng(0).normal(size=(5, *SHAPES[tower])).astype(np.float32)
    video = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
    run_music, run_video = build_single(model.music_scaler, model.music), build_single(model.video_scaler, model.video)
    found = np.stack([run_music(item) for item in music])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, embed_arrays(model, music=music), atol=1e-6)
    found = np.stack([run_video(item) for item in video])
    np.testing.assert_allclose(found, embed_arrays(model, video=video), atol=1e-6)


@pytest.mark.parametrize("tower", ["canonical", "sequence"])
def test_other_towers_have_none(tower):
    model = make_network(tower, standardise=True)
    assert build_single(model.music_scaler, model.music) is None


def test_weights_are_not_copied():
    model = make_network("musicnn", standardise=False)
    run = build_single(model.music_scaler, model.music)
    item = np.ones(6, np.float32)
    before = run(item)
    model.music.hidden[0].fc.weight.neg_()
    assert not np.allclose(run(item), before, atol=1e-3)


@pytest.mark.parametrize("options", [{"linear": True}, {"music_layers": 1, "video_layers": 5}])
@pytest.mark.parametrize("tower", ["musicnn", "vggish"])
def test_it_is_the_network_at_any_depth_with_and_without_relu(tower, options):
    torch.manual_seed(0)
    model = build_model(tower, tower, SHAPES[tower], (6,), embedding_dim=8, **options).requires_grad_(False).eval()
    music = np.random.default_rng(0).normal(size=(5, *SHAPES[tower])).astype(np.float32)
    video = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
    run_music, run_video = build_single(model.music_scaler, model.music), build_single(model.video_scaler, model.video)
    np.testing.assert_allclose([run_music(item) for item in music], embed_arrays(model, music=music), atol=1e-6)
    np.testing.assert_allclose([run_video(item) for item in video], embed_arrays(model, video=video), atol=1e-6)
