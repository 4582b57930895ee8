from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from vmnet_pipeline.errors import TrainingError
from vmnet_pipeline.training import data
from vmnet_pipeline.training.batches import order_epoch
from vmnet_pipeline.types import PairArrays

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def pairs() -> PairArrays:
    rng = np.random.default_rng(0)
    ids = ("007", "a", "b", "a")
    return PairArrays(ids, ("g", "g", "h", "h"), rng.random((4, 9, 3), np.float32), rng.random((4, 5), np.float32))


def test_every_row_is_seen_once_per_epoch_and_the_partial_batch_is_dropped() -> None:
    batches = list(order_epoch(10, 3, 1, seed=0, shuffle=True))
    assert [len(batch) for batch in batches] == [3, 3, 3]
    assert len(set(np.concatenate(batches).tolist())) == 9


def test_order_is_new_each_epoch_and_the_same_each_time() -> None:
    def order(epoch: int, seed: int = 0) -> list[int]:
        return np.concatenate(list(order_epoch(64, 64, epoch, seed=seed, shuffle=True))).tolist()

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != order(1, seed=1)


def test_without_shuffling_the_order_is_that_of_the_file() -> None:
    for epoch in (1, 2):
        batches = list(order_epoch(7, 3, epoch, seed=0, shuffle=False))
        assert [batch.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5]]


def test_seeds_of_epochs_differ() -> None:
    seeds = {data.derive_seed((seed, epoch)) for seed in range(20) for epoch in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_matches_are_found_by_id_group_or_position(pairs: PairArrays) -> None:
    assert data.encode_matches(pairs, "id").tolist() == [0, 1, 2, 1]
    assert data.encode_matches(pairs, "group").tolist() == [0, 0, 1, 1]
    assert data.encode_matches(pairs, "position").tolist() == [0, 1, 2, 3]


def test_digest_sees_every_part(pairs: PairArrays, monkeypatch: pytest.MonkeyPatch) -> None:
    video = pairs.video.copy()
    video[-1, -1] += 1e-6
    changed = [
        replace(pairs, ids=("7", "a", "b", "a")),
        replace(pairs, groups=("g", "g", "h", "i")),
        replace(pairs, video=video),
        replace(pairs, music=pairs.music.reshape(4, 3, 9)),
        replace(pairs, music=pairs.music[:, ::-1]),
        replace(pairs, ids=("007a", "", "b", "a")),
    ]
    digests = {data.digest_pairs(item) for item in [pairs, *changed]}
    assert len(digests) == 7
    before = data.digest_pairs(pairs)
    monkeypatch.setattr(data, "CHUNK_BYTES", 8)
    assert data.digest_pairs(pairs) == before


def test_scale_is_the_mean_and_deviation_of_each_channel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(3.0, 2.0, size=(50, 4, 6)).astype(np.float32)
    array[:, :, 2] = 7.0
    np.save(tmp_path / "a.npy", array)
    monkeypatch.setattr(data, "CHUNK_BYTES", 1000)
    mean, std = data.measure_scale(np.load(tmp_path / "a.npy", mmap_mode="r"))
    flat = array.reshape(-1, 6).astype(np.float64)
    expected = flat.std(axis=0)
    expected[2] = 1.0
    np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(std, expected, rtol=1e-5)
    assert mean.dtype == std.dtype == np.float32


def test_batch_is_cut_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert data.fit_batch_size(64, 64, shuffle=False) == 64
        assert data.fit_batch_size(64, 128, shuffle=True) == 64
        assert not caplog.records
        assert data.fit_batch_size(1024, 130, shuffle=False) == 130
        assert data.fit_batch_size(128, 130, shuffle=True) == 65
        assert [data.fit_batch_size(8, n, shuffle=True) for n in (2, 3, 4, 5)] == [2, 3, 2, 2]
    assert "cut to 130" in caplog.text
    assert "cut to 65" in caplog.text


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_pairs_cannot_be_trained_on(n: int) -> None:
    with pytest.raises(TrainingError, match=f"there are {n} training pairs"):
        data.fit_batch_size(8, n, shuffle=True)


def test_pairs_that_do_not_belong_together_are_refused(pairs: PairArrays) -> None:
    data.check_pairs(pairs, "training")
    with pytest.raises(TrainingError, match="unequal lengths"):
        data.check_pairs(replace(pairs, ids=("a",)), "training")
    with pytest.raises(TrainingError, match="video features are int64"):
        data.check_pairs(replace(pairs, video=np.zeros((4, 5), np.int64)), "training")
    with pytest.raises(TrainingError, match="music features of the validation pairs"):
        data.check_same_shapes(pairs, replace(pairs, music=pairs.music[:, :, :2]))
