from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import SMALL, TINY, TRAIN, VAL, make_pairs, same_weights

from tiny_pairs import draw_pairs, narrow_params
from vmnet_pipeline.errors import TrainingError
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training import train_model, trainer
from vmnet_pipeline.training.batches import Batch
from vmnet_pipeline.training.trainer import Trainer
from vmnet_pipeline.types import EpochRecord, PairArrays


def test_the_average_is_what_is_evaluated_and_kept(tmp_path: Path) -> None:
    from vmnet_pipeline.models.losses import VMNetLoss
    from vmnet_pipeline.training.validation import evaluate_model

    params = TrainParams(**{**SMALL, "average_decay": 0.9})  # type: ignore[arg-type]
    result = train_model(TRAIN, VAL, params, state_dir=tmp_path / "a")
    metrics = evaluate_model(result.build(), VMNetLoss(), VAL, np.arange(len(VAL)), 8)
    assert metrics == pytest.approx(result.metrics, rel=1e-5)
    plain = train_model(TRAIN, VAL, TrainParams(**SMALL), state_dir=tmp_path / "b")  # type: ignore[arg-type]
    assert [r.losses for r in plain.history] == [r.losses for r in result.history]  # averaging does not steer training
    assert not same_weights(plain, result)


def test_best_protocol_learns_small_sets_of_one_group(tmp_path: Path) -> None:
    train = replace(make_pairs(130, 1), groups=("song",) * 130)
    result = train_model(train, make_pairs(40, 2), TrainParams(protocol="best", n_threads=1), state_dir=tmp_path)
    assert result.metrics["recall_at_10_xy"] > 0.6  # chance: 0.25


def test_a_bad_feature_is_named_by_the_best_protocol_too(tmp_path: Path) -> None:
    video = TRAIN.video.copy()
    video[4, 2] = np.nan
    params = TrainParams(protocol="best", batch_size=13, standardise=False)
    with pytest.raises(TrainingError, match=r"features of 1-4 hold NaN"):
        train_model(replace(TRAIN, video=video), VAL, params, state_dir=tmp_path)


def test_two_runs_give_the_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    params = TrainParams(**SMALL)  # type: ignore[arg-type]
    torch.manual_seed(1)
    first = train_model(TRAIN, VAL, params, state_dir=tmp_path / "a")
    torch.manual_seed(2)
    second = train_model(TRAIN, VAL, params, state_dir=tmp_path / "b")
    other = train_model(TRAIN, VAL, params.model_copy(update={"seed": 1}), state_dir=tmp_path / "c")
    assert same_weights(first, second)
    assert not same_weights(first, other)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_validation_loss_that_is_not_finite_ends_the_training(tmp_path: Path, keep: str) -> None:
    video = VAL.video.copy()
    video[4, 2] = np.inf
    params = TrainParams(**SMALL, keep=keep)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=r"validation pairs is not finite after epoch 1: features of 2-4 hold NaN"):
        train_model(TRAIN, replace(VAL, video=video), params, state_dir=tmp_path)


def test_weights_that_the_last_step_broke_are_never_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Trainer.train_step

    def break_weights(trainer: Trainer, batch: Batch) -> dict[str, torch.Tensor]:
        terms = original(trainer, batch)
        if trainer.steps == 18:  # the last one of six epochs; its loss is that before the step
            next(trainer.model.parameters()).data.fill_(torch.nan)
        return terms

    monkeypatch.setattr(Trainer, "train_step", break_weights)
    with pytest.raises(TrainingError, match=r"not finite after epoch 6, though all features are"):
        train_model(TRAIN, VAL, TrainParams(**SMALL), state_dir=tmp_path)  # type: ignore[arg-type]


def test_history_counts_steps_and_holds_every_term(tmp_path: Path) -> None:
    params = TrainParams(**{**SMALL, "eval_every": 4, "lr_decay_steps": 4, "lr_decay": 0.5})  # type: ignore[arg-type]
    records: list[EpochRecord] = []
    result = train_model(TRAIN, VAL, params, state_dir=tmp_path, on_epoch=records.append)
    assert tuple(records) == result.history
    assert [record.steps for record in records] == [3, 6, 9, 12, 15, 18]  # 26 pairs in batches of 8
    assert [record.lr for record in records] == pytest.approx([3e-4 * 0.5 ** ((3 * e - 1) // 4) for e in range(1, 7)])
    assert [bool(record.val) for record in records] == [False, False, False, True, False, True]
    weights = {"ranking_xy": 3.0, "ranking_yx": 1.0, "structure_music": 0.2, "structure_video": 0.2}
    for record in records:
        total = sum(weight * record.losses[name] for name, weight in weights.items())
        assert record.losses["total"] == pytest.approx(total, rel=1e-5)
        assert record.grad_norm > 0
    row = records[3].to_row()
    assert row["loss"] == records[3].losses["total"]
    assert row["val_mrr"] == records[3].val["mrr"]
    json.dumps(row, allow_nan=False)


def test_the_best_epoch_is_kept_and_its_network_gives_its_metrics(tmp_path: Path) -> None:
    from vmnet_pipeline.models.losses import VMNetLoss
    from vmnet_pipeline.training.validation import evaluate_model

    params = TrainParams(**{**SMALL, "epochs": 12, "learning_rate": 3e-3})  # type: ignore[arg-type]
    result = train_model(TRAIN, VAL, params, state_dir=tmp_path)
    scores = [(record.val["mrr"], -record.val["loss"]) for record in result.history]
    assert result.best_epoch == 1 + scores.index(max(scores))
    assert result.best_epoch != 12  # else the test shows nothing
    metrics = evaluate_model(result.build(), VMNetLoss(), VAL, np.arange(len(VAL)), 8)
    assert metrics == pytest.approx(result.metrics, rel=1e-5)


def test_patience_ends_a_run_that_no_longer_gains(tmp_path: Path) -> None:
    params = TrainParams(**{**SMALL, "epochs": 60, "patience": 3, "learning_rate": 3e-3})  # type: ignore[arg-type]
    result = train_model(TRAIN, VAL, params, state_dir=tmp_path / "a")
    assert len(result.history) == result.best_epoch + 3 < 60
    again = train_model(TRAIN, VAL, params, state_dir=tmp_path / "a")
    assert len(again.history) == len(result.history)


@pytest.mark.parametrize("val", [None, make_pairs(0, 2), make_pairs(1, 2)], ids=["none", "empty", "one"])
def test_without_validation_the_last_epoch_is_kept(
    tmp_path: Path, val: PairArrays | None, caplog: pytest.LogCaptureFixture
) -> None:
    result = train_model(TRAIN, val, TrainParams(**SMALL), state_dir=tmp_path / "a")  # type: ignore[arg-type]
    assert result.best_epoch == 6
    assert result.metrics == {}
    assert "the last epoch is kept" in caplog.text
    last = train_model(TRAIN, VAL, TrainParams(**SMALL, keep="last"), state_dir=tmp_path / "b")  # type: ignore[arg-type]
    assert same_weights(result, last)


def test_a_bad_feature_is_named(tmp_path: Path) -> None:
    video = TRAIN.video.copy()
    video[[4, 9], 2] = np.nan
    params = TrainParams(**{**SMALL, "standardise": False, "batch_size": 26, "shuffle": False})  # type: ignore[arg-type]
    with pytest.raises(
        TrainingError, match=r"epoch 1, step 1: features of .*1-[49].*extract these items again"
    ) as info:
        train_model(replace(TRAIN, video=video), VAL, params, state_dir=tmp_path)
    assert "1-4" in str(info.value)
    assert "1-9" in str(info.value)


def test_a_diverging_run_names_epoch_step_and_remedy(tmp_path: Path) -> None:
    params = TrainParams(**{**SMALL, "learning_rate": 1e30, "standardise": False})  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=r"epoch \d, step \d.*smaller learning_rate"):
        train_model(TRAIN, VAL, params, state_dir=tmp_path)


def test_reference_protocol_keeps_file_order_and_the_last_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[list[int]] = []
    original = Trainer.train_step

    def record_step(trainer: Trainer, batch: Batch) -> dict[str, torch.Tensor]:
        orders.append(batch.rows.tolist())
        return original(trainer, batch)

    monkeypatch.setattr(Trainer, "train_step", record_step)
    params = TrainParams(protocol="reference", epochs=2, batch_size=10, model=TINY, device="cpu")
    result = train_model(TRAIN, VAL, params, state_dir=tmp_path)
    assert orders == [list(range(10)), list(range(10, 20))] * 2
    assert result.best_epoch == 2
    assert result.model_config["standardise"] is False
    assert not any("scaler" in name for name in result.tensors)
    assert result.history[-1].val  # still watched, only not used to choose


@pytest.mark.long
def test_training_learns_to_match_unseen_pairs(tmp_path: Path) -> None:
    train, val, test = make_pairs(130, 1), make_pairs(25, 2), make_pairs(50, 3)
    params = TrainParams(epochs=10, device="cpu", n_threads=1)
    result = train_model(train, val, params, state_dir=tmp_path)
    from vmnet_pipeline.evaluation.ranks import rank_on_device
    from vmnet_pipeline.models.embed import embed_arrays

    model = result.build()
    x, y = (
        torch.from_numpy(embed_arrays(model, music=test.music)),
        torch.from_numpy(embed_arrays(model, video=test.video)),
    )
    recall = float((rank_on_device(x, y, torch.arange(50))[0] <= 10).mean())
    shuffled = float((rank_on_device(x, y.roll(1, 0), torch.arange(50))[0] <= 10).mean())
    assert recall > 0.6  # chance: 0.2
    assert shuffled < 0.4


STEPS = {"epochs": 2, "batch_size": 6, "device": "cpu", "n_threads": 1, "model": {"embedding_dim": 8}}


def make_uniform_pairs(n: int, seed: int) -> PairArrays:
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
    params = TrainParams(**STEPS, precision=precision)  # type: ignore[arg-type]
    result = train_model(make_uniform_pairs(20, 0), make_uniform_pairs(6, 1), params, state_dir=tmp_path)
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
    params = TrainParams(**STEPS)  # type: ignore[arg-type]
    records = []
    with pytest.raises(TrainingError, match=r"epoch 2, step 17, though all features are"):
        train_model(make_uniform_pairs(60, 0), None, params, state_dir=tmp_path, on_epoch=records.append)
    assert records[0].losses["total"] == pytest.approx(np.mean(totals[:10]))
    assert records[0].grad_norm > 0


@pytest.mark.parametrize("option", ["epsilon_before_correction", "population_variance"])
def test_the_option_reaches_training_and_the_default_is_as_before(tmp_path, option) -> None:
    train = draw_pairs(26, 1)
    given = {"keep": "last", "adam_epsilon": 1e-4}
    results = {
        value: train_model(train, None, narrow_params(**given, **{option: value}), state_dir=tmp_path / str(value))
        for value in (True, False)
    }
    default = train_model(train, None, narrow_params(**given), state_dir=tmp_path / "default")
    assert all(torch.equal(default.tensors[name], tensor) for name, tensor in results[False].tensors.items())
    changed = {
        name
        for name, tensor in results[True].tensors.items()
        if not torch.allclose(tensor, default.tensors[name], atol=1e-6)
    }
    if option == "population_variance":
        assert changed == {name for name in default.tensors if name.endswith("running_var")}
    else:
        assert "music.fc.weight" in changed
