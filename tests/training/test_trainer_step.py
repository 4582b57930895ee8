from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vmnet_pipeline.errors import TrainingError
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training import train_model, trainer
from vmnet_pipeline.training.batches import Batch
from vmnet_pipeline.training.trainer import Trainer
from vmnet_pipeline.types import PairArrays

BASE = {"epochs": 2, "batch_size": 6, "device": "cpu", "n_threads": 1, "model": {"embedding_dim": 8}}


def make_pairs(n: int, seed: int) -> PairArrays:
    rng = np.random.default_rng(seed)
    ids = tuple(map(str, range(n)))
    return PairArrays(ids, ids, rng.random((n, 5), np.float32), rng.random((n, 7), np.float32))


@pytest.mark.parametrize(("precision", "expected"), [("auto", False), ("f32", False), ("bf16", True)])
def test_precision_is_that_of_the_network_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, expected: bool
) -> None:
    computes_in_bf16, inputs = [], []
    original = Trainer._make_loss_inputs

    def record(self: Trainer, output: object, batch: Batch) -> object:
        result = original(self, output, batch)  # type: ignore[arg-type]
        inputs.append(result)
        return result

    monkeypatch.setattr(Trainer, "_make_loss_inputs", record)
    forward = torch.nn.Linear.forward

    def watch(layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        y = forward(layer, x)
        if layer.training:
            computes_in_bf16.append(y.dtype == torch.bfloat16)
        return y

    monkeypatch.setattr(torch.nn.Linear, "forward", watch)
    params = TrainParams(**BASE, precision=precision)  # type: ignore[arg-type]
    result = train_model(make_pairs(20, 0), make_pairs(6, 1), params, state_dir=tmp_path)
    assert set(computes_in_bf16) == {expected}
    assert all(tensor.dtype == torch.float32 for batch in inputs for tensor in batch[:4])
    assert {tensor.dtype for tensor in result.tensors.values()} <= {torch.float32, torch.int64}
    norms = inputs[0].music.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-5, rtol=0)


def test_losses_of_all_steps_count_and_the_first_bad_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "CHECK_STEPS", 4)  # 10 steps: two full looks and a shorter one
    totals: list[float] = []
    original = Trainer.train_step

    def record(self: Trainer, batch: Batch) -> dict[str, torch.Tensor]:
        terms = original(self, batch)
        totals.append(float(terms["total"]))
        return {**terms, "total": terms["total"] * (torch.nan if self.steps == 17 else 1.0)}

    monkeypatch.setattr(Trainer, "train_step", record)
    params = TrainParams(**BASE)  # type: ignore[arg-type]
    records = []
    with pytest.raises(TrainingError, match=r"epoch 2, step 17, though all features are"):
        train_model(make_pairs(60, 0), None, params, state_dir=tmp_path, on_epoch=records.append)
    assert records[0].losses["total"] == pytest.approx(np.mean(totals[:10]))
    assert records[0].grad_norm > 0
