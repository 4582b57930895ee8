from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from vmnet_pipeline.errors import TrainingError
from vmnet_pipeline.models.factory import MUSIC_TOWERS, VIDEO_TOWERS
from vmnet_pipeline.models.pooled_tower import PooledTower
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training import TrainingResult, train_model
from vmnet_pipeline.training.batches import Batch
from vmnet_pipeline.training.state import STATE_FILE
from vmnet_pipeline.training.trainer import Trainer
from vmnet_pipeline.types import EpochRecord, PairArrays

if TYPE_CHECKING:
    from collections.abc import Callable

TINY = {"music_tower": "tiny", "video_tower": "tiny", "embedding_dim": 16}
SMALL = {"epochs": 6, "batch_size": 8, "model": TINY, "state_interval_s": 0.0, "device": "cpu", "n_threads": 1}


def build_tiny(input_shape: tuple[int, ...], embedding_dim: int, dropout: float) -> torch.nn.Module:
    return PooledTower(input_shape[0], (32,), embedding_dim, normalise_first=True, dropout=dropout)


# A narrow tower beside the real ones: what is tested here is the loop.
MUSIC_TOWERS["tiny"] = VIDEO_TOWERS["tiny"] = build_tiny


def make_pairs(n: int, seed: int, music_shape: tuple[int, ...] = (12,), noise: float = 0.3) -> PairArrays:
    """Two noisy, non-linear views of five shared Gaussian factors."""
    world, rng = np.random.default_rng(7), np.random.default_rng(seed)
    shared = rng.normal(size=(n, 5))

    def view(dim: int) -> np.ndarray:
        seen = np.sqrt(1 - noise**2) * shared + noise * rng.normal(size=shared.shape)
        return np.tanh(seen @ world.normal(size=(5, dim)) / 2).astype(np.float32)

    ids = tuple(f"{seed}-{i}" for i in range(n))
    music = view(int(np.prod(music_shape))).reshape(n, *music_shape)
    return PairArrays(ids, ids, music, view(20))


TRAIN, VAL = make_pairs(26, 1), make_pairs(10, 2)


class Killed(BaseException):
    pass


def kill_after(epoch: int) -> Callable[[EpochRecord], None]:
    def on_epoch(record: EpochRecord) -> None:
        if record.epoch == epoch:
            raise Killed

    return on_epoch


def same_weights(a: TrainingResult, b: TrainingResult) -> bool:
    return a.tensors.keys() == b.tensors.keys() and all(torch.equal(a.tensors[k], b.tensors[k]) for k in a.tensors)


def untimed(history: tuple[EpochRecord, ...]) -> list[EpochRecord]:
    return [replace(record, seconds=0.0) for record in history]


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("epoch", [1, 4])
def test_a_killed_and_resumed_run_gives_the_same_bits(tmp_path: Path, keep: str, epoch: int) -> None:
    params = TrainParams(**SMALL, keep=keep)  # type: ignore[arg-type]
    whole = train_model(TRAIN, VAL, params, state_dir=tmp_path / "whole")
    with pytest.raises(Killed):
        train_model(TRAIN, VAL, params, state_dir=tmp_path / "cut", on_epoch=kill_after(epoch))
    seen: list[int] = []
    resumed = train_model(
        TRAIN, VAL, params, state_dir=tmp_path / "cut", on_epoch=lambda record: seen.append(record.epoch)
    )
    assert resumed.resumed_from == epoch
    assert seen == list(range(epoch + 1, 7))
    assert same_weights(whole, resumed)
    assert untimed(whole.history) == untimed(resumed.history)
    assert whole.best_epoch == resumed.best_epoch


OPTIONS = {
    "average": {"average_decay": 0.9, "weight_decay": 0.1, "lr_schedule": "cosine", "warmup_epochs": 1.5},
    "augmented": {"feature_noise": 0.5, "mixup_alpha": 1.0},
    "memory": {"loss": {"name": "contrastive", "memory_size": 20}},
    "semi_hard": {"loss": {"negatives": "semi_hard", "top_k": 4}},
    "sampled": {"loss": {"structure_triples": "sampled", "n_structure_triples": 50, "hinge": "sum"}},
    "best": {"protocol": "best", "model": {"embedding_dim": 9}, "batch_size": 13},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("keep", ["best", "last"])
def test_every_option_resumes_to_the_same_bits(tmp_path: Path, name: str, keep: str) -> None:
    params = TrainParams(**{**SMALL, "model": {**TINY}, **OPTIONS[name], "keep": keep})  # type: ignore[arg-type]
    whole = train_model(TRAIN, VAL, params, state_dir=tmp_path / "whole")
    with pytest.raises(Killed):
        train_model(TRAIN, VAL, params, state_dir=tmp_path / "cut", on_epoch=kill_after(3))
    resumed = train_model(TRAIN, VAL, params, state_dir=tmp_path / "cut")
    assert resumed.resumed_from == 3
    assert same_weights(whole, resumed)
    assert untimed(whole.history) == untimed(resumed.history)


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


def test_a_resumed_run_keeps_a_best_epoch_from_before_the_kill(tmp_path: Path) -> None:
    params = TrainParams(**{**SMALL, "epochs": 60, "patience": 3, "learning_rate": 3e-3})  # type: ignore[arg-type]
    whole = train_model(TRAIN, VAL, params, state_dir=tmp_path / "whole")
    cut_at = whole.best_epoch + 1
    assert len(whole.history) == cut_at + 2  # patience ends the run, so the best epoch is before the kill
    with pytest.raises(Killed):
        train_model(TRAIN, VAL, params, state_dir=tmp_path / "cut", on_epoch=kill_after(cut_at))
    resumed = train_model(TRAIN, VAL, params, state_dir=tmp_path / "cut")
    assert (resumed.resumed_from, resumed.best_epoch) == (cut_at, whole.best_epoch)
    assert same_weights(whole, resumed)


def test_a_run_killed_by_a_signal_resumes(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; sys.path[:0] = [sys.argv[2], sys.argv[3]]\n"
        "from test_training import SMALL, TRAIN, VAL, TrainParams, train_model\n"
        "def on_epoch(r):\n"
        "    if r.epoch == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "train_model(TRAIN, VAL, TrainParams(**SMALL), state_dir=Path(sys.argv[1]), on_epoch=on_epoch)\n"
    )
    here = Path(__file__).parent
    arguments = [str(tmp_path / "cut"), str(here), str(here.parents[1] / "src")]
    done = subprocess.run([sys.executable, "-c", script, *arguments], check=False)
    assert done.returncode == -signal.SIGKILL
    params = TrainParams(**SMALL)  # type: ignore[arg-type]
    resumed = train_model(TRAIN, VAL, params, state_dir=tmp_path / "cut")
    assert resumed.resumed_from == 3
    whole = train_model(TRAIN, VAL, params, state_dir=tmp_path / "whole")
    assert untimed(whole.history) == untimed(resumed.history)
    assert same_weights(whole, resumed)


def test_two_runs_give_the_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    params = TrainParams(**SMALL)  # type: ignore[arg-type]
    torch.manual_seed(1)
    first = train_model(TRAIN, VAL, params, state_dir=tmp_path / "a")
    torch.manual_seed(2)
    second = train_model(TRAIN, VAL, params, state_dir=tmp_path / "b")
    other = train_model(TRAIN, VAL, params.model_copy(update={"seed": 1}), state_dir=tmp_path / "c")
    assert same_weights(first, second)
    assert not same_weights(first, other)


def test_torch_is_left_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before, n_threads = torch.get_rng_state(), torch.get_num_threads()
    train_model(TRAIN, VAL, TrainParams(**{**SMALL, "epochs": 1, "n_threads": 1}), state_dir=tmp_path)  # type: ignore[arg-type]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == n_threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_finished_run_is_not_repeated_until_its_state_is_removed(tmp_path: Path) -> None:
    params = TrainParams(**SMALL)  # type: ignore[arg-type]
    epochs: list[int] = []

    def train() -> TrainingResult:
        return train_model(TRAIN, VAL, params, state_dir=tmp_path, on_epoch=lambda record: epochs.append(record.epoch))

    first, second = train(), train()
    assert epochs == list(range(1, 7))
    assert same_weights(first, second)
    assert first.history == second.history
    assert first.metrics == second.metrics
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]
    with safe_open(tmp_path / STATE_FILE, framework="pt") as file:
        assert all(name.startswith("model/") for name in file.keys())  # noqa: SIM118
    (tmp_path / STATE_FILE).unlink()
    assert same_weights(first, train())
    assert epochs == [*range(1, 7), *range(1, 7)]


def changed_video() -> PairArrays:
    video = TRAIN.video.copy()
    video[3, 3] += 0.5
    return replace(TRAIN, video=video)


@pytest.mark.parametrize(
    ("train", "val", "update"),
    [
        (TRAIN, VAL, {"margin": 0.2}),
        (changed_video(), VAL, {}),
        (TRAIN, make_pairs(10, 3), {}),
    ],
    ids=["parameters", "training data", "validation data"],
)
def test_a_state_of_another_run_is_not_used(
    tmp_path: Path, train: PairArrays, val: PairArrays, update: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    params = TrainParams(**SMALL)  # type: ignore[arg-type]
    with pytest.raises(Killed):
        train_model(TRAIN, VAL, params, state_dir=tmp_path / "s", on_epoch=kill_after(2))
    other = TrainParams(**SMALL, loss=update)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO):
        result = train_model(train, val, other, state_dir=tmp_path / "s")
    assert result.resumed_from == 0
    assert "other parameters or data" in caplog.text
    assert same_weights(result, train_model(train, val, other, state_dir=tmp_path / "fresh"))


def test_best_weights_of_another_run_are_never_taken_up(tmp_path: Path) -> None:
    params = TrainParams(**SMALL)  # type: ignore[arg-type]
    other = params.model_copy(update={"seed": 1})
    for killed in (params, other):  # the first epoch is the best one of both so far
        with pytest.raises(Killed):
            train_model(TRAIN, VAL, killed, state_dir=tmp_path / "both", on_epoch=kill_after(1))
    with pytest.raises(Killed):
        train_model(TRAIN, VAL, other, state_dir=tmp_path / "alone", on_epoch=kill_after(1))
    first, second = (load_file(tmp_path / name / "best-1.safetensors") for name in ("both", "alone"))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_best_weights_that_another_run_has_replaced_start_the_training_anew(tmp_path: Path) -> None:
    params = TrainParams(**SMALL)  # type: ignore[arg-type]
    other = params.model_copy(update={"seed": 1})
    for name, killed in (("own", params), ("other", other)):
        with pytest.raises(Killed):
            train_model(TRAIN, VAL, killed, state_dir=tmp_path / name, on_epoch=kill_after(1))
    (tmp_path / "other/best-1.safetensors").replace(tmp_path / "own/best-1.safetensors")  # killed before its state
    result = train_model(TRAIN, VAL, params, state_dir=tmp_path / "own")
    assert result.resumed_from == 0
    assert same_weights(result, train_model(TRAIN, VAL, params, state_dir=tmp_path / "fresh"))


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


def test_settings_that_change_nothing_do_not_spoil_a_state(tmp_path: Path) -> None:
    params = TrainParams(**SMALL)  # type: ignore[arg-type]
    with pytest.raises(Killed):
        train_model(TRAIN, VAL, params, state_dir=tmp_path, on_epoch=kill_after(2))
    update = {"state_interval_s": 5.0, "n_threads": None}
    assert train_model(TRAIN, VAL, params.model_copy(update=update), state_dir=tmp_path).resumed_from == 2


@pytest.mark.parametrize("damage", ["truncated", "noise", "empty", "no_best", "json"])
def test_a_damaged_state_starts_anew(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    params = TrainParams(**SMALL)  # type: ignore[arg-type]
    whole = train_model(TRAIN, VAL, params, state_dir=tmp_path / "whole")
    cut = tmp_path / "cut"
    with pytest.raises(Killed):
        train_model(TRAIN, VAL, params, state_dir=cut, on_epoch=kill_after(3))
    state = cut / STATE_FILE
    content = state.read_bytes()
    if damage == "no_best":
        for path in cut.glob("best-*.safetensors"):
            path.unlink()
    else:
        broken = {
            "truncated": content[: len(content) // 2],
            "noise": os.urandom(1000),
            "empty": b"",
            "json": content.replace(b'\\"history\\"', b'\\"histori\\"'),
        }
        state.write_bytes(broken[damage])
    result = train_model(TRAIN, VAL, params, state_dir=cut)
    assert result.resumed_from == 0
    assert "starts anew" in caplog.text
    assert same_weights(result, whole)


def test_state_is_written_at_intervals_only(tmp_path: Path) -> None:
    params = TrainParams(**{**SMALL, "state_interval_s": 3600.0})  # type: ignore[arg-type]
    with pytest.raises(Killed):
        train_model(TRAIN, VAL, params, state_dir=tmp_path, on_epoch=kill_after(5))
    assert not list(tmp_path.iterdir())


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
    assert "the last one is kept" in caplog.text
    last = train_model(TRAIN, VAL, TrainParams(**SMALL, keep="last"), state_dir=tmp_path / "b")  # type: ignore[arg-type]
    assert same_weights(result, last)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_training_pairs_are_an_error(tmp_path: Path, n: int) -> None:
    with pytest.raises(TrainingError, match=f"there are {n} training pairs"):
        train_model(make_pairs(n, 1), VAL, TrainParams(**SMALL), state_dir=tmp_path)  # type: ignore[arg-type]


def test_two_pairs_can_be_trained_on(tmp_path: Path) -> None:
    result = train_model(make_pairs(2, 1), make_pairs(2, 2), TrainParams(**SMALL), state_dir=tmp_path)  # type: ignore[arg-type]
    assert len(result.history) == 6


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


def test_missing_cuda_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match="no CUDA device"):
        train_model(TRAIN, VAL, TrainParams(**{**SMALL, "device": "cuda"}), state_dir=tmp_path)  # type: ignore[arg-type]


def test_mapped_arrays_train_like_arrays_in_memory(tmp_path: Path) -> None:
    pairs = make_pairs(16, 1, music_shape=(18, 12))
    for side in ("music", "video"):
        np.save(tmp_path / f"{side}.npy", getattr(pairs, side))
    mapped = replace(
        pairs,
        music=np.load(tmp_path / "music.npy", mmap_mode="r"),
        video=np.load(tmp_path / "video.npy", mmap_mode="r"),
    )
    params = TrainParams(**{**SMALL, "epochs": 2, "model": {"embedding_dim": 16}})  # type: ignore[arg-type]
    a = train_model(pairs, None, params, state_dir=tmp_path / "a")
    b = train_model(mapped, None, params, state_dir=tmp_path / "b")
    assert same_weights(a, b)
    assert a.model_config["music_tower"] == a.model_config["video_tower"] == "vggish"
    assert a.model_config["music_shape"] == [18, 12]


def test_standardisation_uses_training_statistics(tmp_path: Path) -> None:
    result = train_model(TRAIN, VAL, TrainParams(**{**SMALL, "epochs": 1}), state_dir=tmp_path)  # type: ignore[arg-type]
    torch.testing.assert_close(result.tensors["video_scaler.mean"], torch.from_numpy(TRAIN.video.mean(axis=0)))
    torch.testing.assert_close(result.tensors["video_scaler.std"], torch.from_numpy(TRAIN.video.std(axis=0)))


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


@pytest.mark.parametrize("name", ["state", "best"])
def test_weights_that_the_disk_has_changed_are_not_trained_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    params = TrainParams(**SMALL)  # type: ignore[arg-type]
    whole = train_model(TRAIN, VAL, params, state_dir=tmp_path / "whole")
    with pytest.raises(Killed):
        train_model(TRAIN, VAL, params, state_dir=tmp_path / "cut", on_epoch=kill_after(3))
    (path,) = (tmp_path / "cut").glob(f"{name}*")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    again = train_model(TRAIN, VAL, params, state_dir=tmp_path / "cut")
    assert again.resumed_from == 0
    assert "does not fit its checksum" in caplog.text
    assert same_weights(again, whole)
