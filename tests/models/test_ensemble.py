from __future__ import annotations

import numpy as np
import pytest
import torch

from vmnet_pipeline.errors import CheckpointError
from vmnet_pipeline.models.checkpoints import Checkpoint, build_from_checkpoint, load_checkpoint, save_checkpoint
from vmnet_pipeline.models.embed import embed_arrays, embedding_dim
from vmnet_pipeline.models.ensemble import join_tensors
from vmnet_pipeline.models.factory import build_model

SHAPES = {"musicnn": [7], "vggish": [9, 5], "canonical": [7]}
RNG = np.random.default_rng(0)


def make_members(tower, n=3):
    config = {
        "music_tower": tower, "video_tower": tower, "music_shape": SHAPES[tower], "video_shape": [4],
        "embedding_dim": 6, "dropout": 0.1, "standardise": True,
    }  # fmt: skip
    members = []
    for seed in range(n):
        torch.manual_seed(seed)
        member = build_model(**config).eval()
        member.music_scaler.mean += seed
        if tower == "canonical":
            for side in (member.music, member.video):
                side.projection.normal_()
                side.weight.uniform_()
                torch.nn.init.uniform_(side.scale)
                side.radius.fill_(3.0)
        members.append(member)
    return config, members


def join(tower, n=3):
    config, members = make_members(tower, n)
    return {**config, "n_members": n}, members, join_tensors([dict(member.state_dict()) for member in members])


@pytest.mark.parametrize("tower", SHAPES)
def test_a_cosine_is_the_mean_of_the_members_cosines(tower, tmp_path):
    config, members, tensors = join(tower)
    save_checkpoint(tmp_path, Checkpoint(config, tensors))
    model = build_from_checkpoint(load_checkpoint(tmp_path))
    music, video = RNG.normal(size=(5, *SHAPES[tower])).astype(np.float32), RNG.normal(size=(8, 4)).astype(np.float32)
    x, y = embed_arrays(model, music=music), embed_arrays(model, video=video)
    assert x.shape == (5, 18)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), 1.0, atol=1e-5)
    cosines = [embed_arrays(member, music=music) @ embed_arrays(member, video=video).T for member in members]
    np.testing.assert_allclose(x @ y.T, np.mean(cosines, axis=0), atol=1e-5)
    assert not np.allclose(cosines[0], cosines[1], atol=1e-3)


def test_forward_gives_the_same_embeddings():
    config, _, tensors = join("musicnn", 2)
    model = build_model(**config).eval()
    model.load_state_dict(tensors)
    music, video = torch.randn(3, 7), torch.randn(3, 4)
    output = model(music, video)
    torch.testing.assert_close(output.music.embedding, model.embed_music(music))
    torch.testing.assert_close(output.video.embedding, model.embed_video(video))
    assert embedding_dim(model) == 12


def test_a_checkpoint_without_members_reads_as_before(tmp_path):
    config, (member,) = make_members("musicnn", 1)
    save_checkpoint(tmp_path, Checkpoint(config, dict(member.state_dict())))
    assert load_checkpoint(tmp_path).model_config == config


def test_another_number_of_members_than_the_weights_is_refused():
    config, _, tensors = join("musicnn", 2)
    with pytest.raises(CheckpointError, match="do not fit"):
        build_from_checkpoint(Checkpoint({**config, "n_members": 3}, tensors))
