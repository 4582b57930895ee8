"""Training on a CUDA device: `python -m pytest -m gpu`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny_pairs import Killed, draw_pairs
from vmnet_pipeline.models.checkpoints import Checkpoint, save_checkpoint
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training import TrainingResult, train_model
from vmnet_pipeline.types import EpochRecord, PairArrays

pytestmark = pytest.mark.gpu

SMALL = {"epochs": 5, "batch_size": 32, "state_interval_s": 0.0, "n_threads": 1, "shuffle": True, "seed": 3}
SHAPES = {"musicnn": (500,), "vggish": (62, 512)}


def make_pairs(n: int, seed: int, variant: str) -> PairArrays:
    return draw_pairs(n, seed, music_shape=SHAPES[variant], video_dim=2048)


def train(folder: Path, device: str, variant: str = "musicnn", on_epoch: Any = None, **settings: Any) -> TrainingResult:
    params = TrainParams.model_validate({**SMALL, "device": device, **settings})
    train_pairs, val_pairs = make_pairs(96, 1, variant), make_pairs(40, 2, variant)
    return train_model(train_pairs, val_pairs, params, state_dir=folder, on_epoch=on_epoch, progress=False)


def losses(result: TrainingResult) -> list[float]:
    return [record.losses["total"] for record in result.history]


@pytest.mark.parametrize("variant", SHAPES)
def test_f32_on_cuda_follows_the_cpu(tmp_path: Path, variant: str) -> None:
    settings: dict[str, Any] = {"precision": "f32", "model": {"dropout": 0.0}, "epochs": 3}
    cpu = train(tmp_path / "cpu", "cpu", variant, **settings)
    cuda = train(tmp_path / "cuda", "cuda", variant, **settings)
    np.testing.assert_allclose(losses(cuda), losses(cpu), rtol=2e-3)


SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "compiled": {"compile": True},
    "best": {"protocol": "best", "batch_size": 48},
    "memory": {"loss": {"name": "contrastive", "memory_size": 64}},
    "semi_hard": {"loss": {"negatives": "semi_hard", "top_k": 4}},
    "sampled": {"loss": {"structure_triples": "sampled", "n_structure_triples": 50}},
    "average": {"average_decay": 0.9, "feature_noise": 0.2, "mixup_alpha": 1.0},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_bf16_on_cuda_learns(tmp_path: Path, name: str) -> None:
    result = train(tmp_path, "cuda", **{"precision": "bf16", "epochs": 8, **SETTINGS[name]})
    assert np.isfinite(losses(result)).all()
    assert losses(result)[-1] < losses(result)[0]
    assert all(tensor.device.type == "cpu" for tensor in result.tensors.values())


def test_a_run_killed_on_cuda_goes_on(tmp_path: Path) -> None:
    def kill(record: EpochRecord) -> None:
        if record.epoch == 3:
            raise Killed

    whole = train(tmp_path / "whole", "cuda")
    with pytest.raises(Killed):
        train(tmp_path / "cut", "cuda", on_epoch=kill)
    resumed = train(tmp_path / "cut", "cuda")
    assert resumed.resumed_from == 3
    np.testing.assert_allclose(losses(resumed), losses(whole), rtol=1e-3)


def test_a_network_trained_on_cuda_embeds_alike_on_both(tmp_path: Path) -> None:
    from vmnet_pipeline import Embedder

    result = train(tmp_path / "state", "cuda")
    save_checkpoint(tmp_path / "checkpoint", Checkpoint(result.model_config, result.tensors))
    features = make_pairs(20, 5, "musicnn").music
    cpu, cuda = (
        Embedder.load(tmp_path / "checkpoint", device=device)([features, None], pooled=True).music
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(cuda, cpu, atol=1e-5)
    assert torch.cuda.max_memory_allocated() > 0
