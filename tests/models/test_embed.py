from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from vmnet_pipeline.models.embed import embed_arrays, gather_rows
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.models.two_tower import VMNet

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model() -> VMNet:
    torch.manual_seed(0)
    return build_model("musicnn", "musicnn", (6,), (7,), embedding_dim=16)


def test_gather_keeps_the_asked_order_of_a_mapped_file(tmp_path: Path) -> None:
    array = np.arange(40, dtype=np.float64).reshape(10, 4)
    np.save(tmp_path / "a.npy", array)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    rows = gather_rows(mapped, np.array([7, 2, 2, 9, 0]))
    assert rows.dtype == torch.float32
    np.testing.assert_array_equal(rows.numpy(), array[[7, 2, 2, 9, 0]])


def test_embedding_does_not_depend_on_batch_size(model: VMNet) -> None:
    video = np.random.default_rng(0).normal(size=(11, 7)).astype(np.float32)
    whole = embed_arrays(model, video=video)
    assert whole.shape == (11, 16)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(embed_arrays(model, video=video, batch_size=3), whole, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1.0, atol=1e-6)


def test_embedding_runs_in_inference_mode_and_gives_the_mode_back(model: VMNet) -> None:
    music = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, second = embed_arrays(model, music=music), embed_arrays(model, music=music)
    assert model.training
    np.testing.assert_array_equal(first, second)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_nothing_to_embed_gives_an_empty_array(model: VMNet) -> None:
    assert embed_arrays(model, music=np.empty((0, 6), dtype=np.float32)).shape == (0, 16)


def test_exactly_one_side_is_needed(model: VMNet) -> None:
    with pytest.raises(ValueError, match="either music or video"):
        embed_arrays(model)
