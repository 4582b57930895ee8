"""What a training is set up from: pairs, device, statistics, and a checkpoint with or without Adam's moments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_training import SMALL, TRAIN, VAL, Killed, kill_after, make_pairs, same_weights

from tiny_pairs import NARROW, draw_pairs, narrow_params
from vmnet_pipeline.errors import CheckpointError, ParameterError, TrainingError
from vmnet_pipeline.models.checkpoints import Checkpoint, StartPoint
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training import train_model
from vmnet_pipeline.training.state import STATE_FILE

NARROW_TRAIN = draw_pairs(26, 1)
# Nothing depends on the number of the epoch, so three epochs and three more are six.
STEADY = {"keep": "last", "shuffle": False, "lr_decay_steps": 2, "lr_decay": 0.5, "model": {**NARROW, "dropout": 0.0}}


def take_start(folder, params, *, with_moments):
    """Where a training of six epochs stands after three."""
    with pytest.raises(Killed):
        train_model(NARROW_TRAIN, None, params, state_dir=folder, on_epoch=kill_after(3))
    state = load_file(folder / STATE_FILE)
    tensors = {name.removeprefix("model/"): value for name, value in state.items() if name.startswith("model/")}
    config = train_model(NARROW_TRAIN, None, params, state_dir=folder).model_config
    names = [name for name in tensors if "running_" not in name and "num_batches" not in name and "scaler" not in name]
    order = [name for name, _ in build(config).named_parameters()]
    assert sorted(names) == sorted(order)
    moments = {
        name: (state[f"adam/{i}/exp_avg"], state[f"adam/{i}/exp_avg_sq"]) for i, name in enumerate(order)
    }  # fmt: skip
    checkpoint = Checkpoint(config, tensors)
    return StartPoint(checkpoint, moments, 9) if with_moments else StartPoint(checkpoint)


def build(config):
    from vmnet_pipeline.models.factory import build_model

    return build_model(**config)


@pytest.mark.parametrize("epsilon_before_correction", [True, False])
def test_with_moments_it_goes_on_as_if_never_interrupted(tmp_path, epsilon_before_correction):
    params = narrow_params(**STEADY, epochs=6, epsilon_before_correction=epsilon_before_correction)
    start = take_start(tmp_path / "first", params, with_moments=True)
    whole = train_model(NARROW_TRAIN, None, params, state_dir=tmp_path / "whole")
    rest = narrow_params(**STEADY, epochs=3, epsilon_before_correction=epsilon_before_correction, start_from="x")
    result = train_model(NARROW_TRAIN, None, rest, state_dir=tmp_path / "rest", start=start)
    assert [record.steps for record in result.history] == [12, 15, 18]
    assert [record.lr for record in result.history] == [record.lr for record in whole.history[3:]]
    for name, tensor in whole.tensors.items():
        torch.testing.assert_close(result.tensors[name], tensor, rtol=0, atol=0, msg=name)


def test_without_moments_weights_go_on_and_steps_start_anew(tmp_path, caplog):
    params = narrow_params(**STEADY, epochs=6)
    start = take_start(tmp_path / "first", params, with_moments=False)
    fresh = train_model(NARROW_TRAIN, None, narrow_params(**STEADY, epochs=1), state_dir=tmp_path / "fresh")
    with caplog.at_level("INFO"):
        result = train_model(
            NARROW_TRAIN,
            None,
            narrow_params(**STEADY, epochs=1, start_from="x"),
            state_dir=tmp_path / "rest",
            start=start,
        )
    assert "Adam's moments are unknown" in caplog.text
    assert result.history[0].steps == 3
    assert result.history[0].losses["total"] < fresh.history[0].losses["total"]
    assert torch.equal(result.tensors["music_scaler.std"], start.checkpoint.tensors["music_scaler.std"])


def test_a_killed_one_resumes_to_the_same_bits(tmp_path):
    params = narrow_params(**STEADY, epochs=6)
    start = take_start(tmp_path / "first", params, with_moments=True)
    rest = narrow_params(**STEADY, epochs=4, start_from="x")
    whole = train_model(NARROW_TRAIN, None, rest, state_dir=tmp_path / "whole", start=start)
    with pytest.raises(Killed):
        train_model(NARROW_TRAIN, None, rest, state_dir=tmp_path / "cut", start=start, on_epoch=kill_after(2))
    resumed = train_model(NARROW_TRAIN, None, rest, state_dir=tmp_path / "cut", start=start)
    assert resumed.resumed_from == 2
    assert all(torch.equal(resumed.tensors[name], tensor) for name, tensor in whole.tensors.items())
    other = replace(start, steps=6)
    assert train_model(NARROW_TRAIN, None, rest, state_dir=tmp_path / "cut", start=other).history[0].steps == 9


def test_what_does_not_fit_is_refused(tmp_path):
    params = narrow_params(**STEADY, epochs=4)
    start = take_start(tmp_path / "first", params, with_moments=False)
    rest = narrow_params(**STEADY, start_from="x")
    with pytest.raises(CheckpointError, match=r"takes music features of shape \(12,\)"):
        train_model(draw_pairs(26, 1, music_shape=(7,)), None, rest, state_dir=tmp_path / "a", start=start)
    joint = replace(start, checkpoint=Checkpoint({**start.checkpoint.model_config, "n_members": 2}, {}))
    with pytest.raises(ParameterError, match="an ensemble"):
        train_model(NARROW_TRAIN, None, rest, state_dir=tmp_path / "a", start=joint)
    with pytest.raises(TrainingError, match="start_from is for"):
        train_model(NARROW_TRAIN, None, rest, state_dir=tmp_path / "a")
    with pytest.raises(ValueError, match="set n_members to 1"):
        narrow_params(**STEADY, start_from="x", n_members=2)


def test_depth_and_linearity_are_settings_of_training_too():
    from vmnet_pipeline.params import TrainParams
    from vmnet_pipeline.training.setup import model_config_of

    params = TrainParams(model={"music_layers": 1, "video_layers": 4, "linear": True})
    config = model_config_of(params, NARROW_TRAIN)
    model = build(config)
    assert (len(model.music.hidden), len(model.video.hidden)) == (0, 3)
    assert all(layer.is_linear for layer in model.video.hidden)
    assert model_config_of(TrainParams(), NARROW_TRAIN).keys().isdisjoint({"music_layers", "video_layers", "linear"})


def test_torch_is_left_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before, n_threads = torch.get_rng_state(), torch.get_num_threads()
    train_model(TRAIN, VAL, TrainParams(**{**SMALL, "epochs": 1, "n_threads": 1}), state_dir=tmp_path)  # type: ignore[arg-type]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == n_threads
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_training_pairs_are_an_error(tmp_path: Path, n: int) -> None:
    with pytest.raises(TrainingError, match=f"there are {n} training pairs"):
        train_model(make_pairs(n, 1), VAL, TrainParams(**SMALL), state_dir=tmp_path)  # type: ignore[arg-type]


def test_two_pairs_can_be_trained_on(tmp_path: Path) -> None:
    result = train_model(make_pairs(2, 1), make_pairs(2, 2), TrainParams(**SMALL), state_dir=tmp_path)  # type: ignore[arg-type]
    assert len(result.history) == 6


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
