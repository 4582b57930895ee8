"""Training on sequences: learns what a mean loses, resumes to the same bits, names bad items, says what cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from vmnet_pipeline.errors import ParameterError, TrainingError
from vmnet_pipeline.pairs.sequences import stack_sequences
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training import data, train_model
from vmnet_pipeline.training.batches import add_noise
from vmnet_pipeline.types import EpochRecord, PairArrays

if TYPE_CHECKING:
    from pathlib import Path

    from vmnet_pipeline.training import TrainingResult

PLAIN = {"batch_size": 16, "learning_rate": 1e-3, "device": "cpu", "n_threads": 1, "loss": {"name": "contrastive"}}
PLAIN |= {"state_interval_s": 0.0}  # a state after every epoch
MODEL = {"embedding_dim": 16, "max_steps": 8}


def make_pairs(n: int, seed: int) -> PairArrays:
    """Two views of four factors. Music is 3 to 8 steps of which one, marked, carries them; the others are as strong."""
    world, rng = np.random.default_rng(7), np.random.default_rng(seed)
    shared = rng.normal(size=(n, 4))
    items = []
    for row in shared:
        steps = rng.normal(size=(rng.integers(3, 9), 6))
        steps[:, 4:] = -1.0
        steps[rng.integers(len(steps))] = [*row, 1.0, 1.0]
        items.append(steps)
    video = (shared + 0.1 * rng.normal(size=shared.shape)) @ world.normal(size=(4, 10))
    ids = tuple(f"{seed}-{k}" for k in range(n))
    return PairArrays(ids, ids, stack_sequences(items, 8), video.astype(np.float32))


def pool(pairs: PairArrays) -> PairArrays:
    rows, mask = pairs.music.take(np.arange(len(pairs)))
    return replace(pairs, music=(rows.sum(axis=1) / mask.sum(axis=1, keepdims=True)).astype(np.float32))


def train(folder: Path, pairs: PairArrays, val: PairArrays, tower: str, **settings: object) -> TrainingResult:
    model = {**MODEL, "music_tower": tower, "video_tower": "musicnn"}
    params = TrainParams(**{**PLAIN, "model": model, **settings})  # type: ignore[arg-type]
    on_epoch = settings.pop("on_epoch", None)
    return train_model(pairs, val, params, state_dir=folder, on_epoch=on_epoch)  # type: ignore[arg-type]


def test_a_tower_over_steps_finds_what_the_mean_loses(tmp_path: Path) -> None:
    pairs, val = make_pairs(160, 1), make_pairs(40, 2)
    chosen = train(tmp_path / "a", pairs, val, "sequence", epochs=12).metrics
    pairs, val = (replace(item, music=item.music[:, None]) for item in (pool(pairs), pool(val)))
    mean = train(tmp_path / "b", pairs, val, "sequence", epochs=12).metrics
    assert chosen["recall_at_1_xy"] > 0.6
    assert mean["recall_at_1_xy"] < 0.4  # chance: 0.025


class Killed(BaseException):
    pass


def kill_after_first(record: EpochRecord) -> None:
    if record.epoch == 1:
        raise Killed


@pytest.mark.long
@pytest.mark.parametrize("tower", ["sequence", "transformer"])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path, tower: str) -> None:
    pairs, val = make_pairs(32, 1), make_pairs(10, 2)
    model = {**MODEL, "music_tower": tower, "video_tower": "musicnn"}
    params = TrainParams(**{**PLAIN, "model": model, "epochs": 3, "feature_noise": 0.3})  # type: ignore[arg-type]
    whole = train_model(pairs, val, params, state_dir=tmp_path / "whole")
    with pytest.raises(Killed):
        train_model(pairs, val, params, state_dir=tmp_path / "cut", on_epoch=kill_after_first)
    resumed = train_model(pairs, val, params, state_dir=tmp_path / "cut")
    assert resumed.resumed_from == 1
    assert all(torch.equal(whole.tensors[name], resumed.tensors[name]) for name in whole.tensors)
    assert whole.model_config["music_shape"] == [8, 6]
    assert resumed.metrics == whole.metrics


def test_a_bad_step_names_its_item(tmp_path: Path) -> None:
    pairs = make_pairs(16, 1)
    values = pairs.music.values.copy()
    values[pairs.music.offsets[5]] = np.nan
    broken = replace(pairs, music=replace(pairs.music, values=values))
    with pytest.raises(TrainingError, match=r"features of 1-5 hold NaN"):
        train(tmp_path, broken, make_pairs(10, 2), "sequence", epochs=1, standardise=False, batch_size=8)


def test_towers_and_features_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    pairs, val = make_pairs(16, 1), make_pairs(10, 2)
    with pytest.raises(ParameterError, match="'sequence' takes features of shape"):
        train(tmp_path, pool(pairs), pool(val), "sequence", epochs=1)
    with pytest.raises(ParameterError, match="music features are sequences"):
        train(tmp_path, replace(pairs, music=replace(pairs.music, max_steps=9)),
              replace(val, music=replace(val.music, max_steps=9)), "vggish", epochs=1)  # fmt: skip
    with pytest.raises(TrainingError, match="validation pairs have shape"):
        train(tmp_path, pairs, pool(val), "sequence", epochs=1)


@pytest.mark.parametrize("model", [{"music_tower": "sequence"}, {"video_tower": "transformer"}])
def test_mixing_of_sequences_is_refused(tmp_path: Path, model: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="set mixup_alpha to 0"):
        TrainParams(mixup_alpha=1.0, model=model)
    params = TrainParams(mixup_alpha=1.0, model={"music_tower": "musicnn"})
    with pytest.raises(ParameterError, match="mixup_alpha needs features of one shape"):
        train_model(make_pairs(16, 1), None, params, state_dir=tmp_path)


def data_of(pairs: PairArrays):
    from vmnet_pipeline.models.embed import gather_rows

    return gather_rows(pairs.music, np.arange(len(pairs)))


def test_noise_is_added_to_the_steps() -> None:
    sequences = data_of(make_pairs(4, 1))
    noisy = add_noise(sequences, 0.5)
    assert torch.equal(noisy.mask, sequences.mask)
    assert float((noisy.values - sequences.values).std()) == pytest.approx(0.5, rel=0.2)


def test_scale_is_that_of_steps_and_not_of_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "CHUNK_BYTES", 64)
    sequences = make_pairs(20, 1).music
    part = sequences[5:15]
    mean, std = data.measure_scale(part)
    steps = part.values[part.offsets[0] : part.offsets[-1]]
    np.testing.assert_allclose(mean, steps.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(std, steps.std(axis=0), atol=1e-6)


def test_digest_sees_where_items_begin() -> None:
    pairs = make_pairs(6, 1)
    offsets = pairs.music.offsets.copy()
    offsets[2] += 1
    changed = [
        pairs,
        replace(pairs, music=replace(pairs.music, offsets=offsets)),
        replace(pairs, music=replace(pairs.music, max_steps=9)),
        pool(pairs),
    ]
    assert len({data.digest_pairs(item) for item in changed}) == 4
    # Of a part, only its own steps count.
    part = replace(pairs, ids=pairs.ids[3:], groups=pairs.groups[3:], music=pairs.music[3:], video=pairs.video[3:])
    copy = replace(
        part, music=replace(part.music, values=part.music.steps, offsets=part.music.offsets - part.music.offsets[0])
    )
    assert data.digest_pairs(part) == data.digest_pairs(copy)


@pytest.mark.parametrize(
    ("model", "steps"),
    [
        ({}, (None, None)),
        ({"music_tower": "sequence"}, (128, 128)),
        ({"music_tower": "sequence", "video_tower": "musicnn", "max_steps": 9}, (9, None)),
        ({"video_tower": "transformer", "max_steps": 9}, (None, 9)),
    ],
)
def test_towers_decide_the_form_of_the_features(model: dict[str, object], steps: tuple[int | None, int | None]) -> None:
    params = TrainParams(model=model).model  # type: ignore[arg-type]
    assert (params.music_steps, params.video_steps) == steps
