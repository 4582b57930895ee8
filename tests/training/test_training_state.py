"""The state of a training: a killed run resumes to the same bits, another run's state is never taken up."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_training import SMALL, TINY, TRAIN, VAL, Killed, kill_after, make_pairs, same_weights, untimed

from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training import TrainingResult, train_model
from vmnet_pipeline.training.state import STATE_FILE
from vmnet_pipeline.types import PairArrays


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
    "whitened": {"whiten": {"music": 0.5, "video": 1.0}},
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


@pytest.mark.process
def test_a_run_killed_by_a_signal_resumes(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; sys.path[:0] = [sys.argv[2], sys.argv[3]]\n"
        "from tiny_training import SMALL, TRAIN, VAL\n"
        "from vmnet_pipeline.params import TrainParams; from vmnet_pipeline.training import train_model\n"
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
    assert "starts again" in caplog.text
    assert same_weights(result, whole)


def test_state_is_written_at_intervals_only(tmp_path: Path) -> None:
    params = TrainParams(**{**SMALL, "state_interval_s": 3600.0})  # type: ignore[arg-type]
    with pytest.raises(Killed):
        train_model(TRAIN, VAL, params, state_dir=tmp_path, on_epoch=kill_after(5))
    assert not list(tmp_path.iterdir())


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
    assert "does not match its checksum" in caplog.text
    assert same_weights(again, whole)
