"""Sequences on disk and in memory: what is written is read, thinned evenly, padded with a mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.pairs.sequences import SequenceWriter, offsets_path, read_sequences, stack_sequences, take_steps

LENGTHS = (3, 1, 7, 2)


def make_items(lengths: tuple[int, ...] = LENGTHS, width: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(length, width)).astype(np.float32) for length in lengths]


def write(path: Path, items: list[np.ndarray]) -> None:
    writer = SequenceWriter(path, items[0].shape[1])
    for item in items:
        writer.add(item)
    writer.close()


def test_what_is_written_is_read_and_stays_on_disk(tmp_path: Path) -> None:
    items = make_items((*LENGTHS, 20_000))  # the header is rewritten with a longer number than it began with
    write(tmp_path / "music.npy", items)
    read = read_sequences(tmp_path / "music.npy", 20_000)
    assert isinstance(read.values, np.memmap)
    np.testing.assert_array_equal(np.load(tmp_path / "music.npy"), np.concatenate(items))
    assert read.lengths.tolist() == [3, 1, 7, 2, 20_000]
    assert (len(read), read.shape, read.dtype) == (5, (5, 20_000, 4), np.float32)


def test_items_come_padded_with_a_mask_in_the_asked_order() -> None:
    items = make_items()
    values, mask = stack_sequences(items, 8).take(np.array([2, 0, 1, 2]))
    assert (values.shape, values.dtype, mask.dtype) == ((4, 7, 4), np.float32, bool)
    for row, number in enumerate([2, 0, 1, 2]):
        length = len(items[number])
        np.testing.assert_array_equal(values[row, :length], items[number])
        assert not values[row, length:].any()
        assert mask[row].tolist() == [True] * length + [False] * (7 - length)


def test_parts_are_views_with_their_own_lengths() -> None:
    whole = stack_sequences(make_items(), 8)
    part = whole[1:3]
    assert part.lengths.tolist() == [1, 7]
    np.testing.assert_array_equal(part.steps, whole.values[3:11])
    assert np.shares_memory(part.steps, whole.values)
    assert len(whole[2:2]) == len(whole[3:1]) == 0
    assert whole[2:2].steps.shape == (0, 4)


@pytest.mark.parametrize(("n_steps", "max_steps"), [(10, 4), (61, 60), (100, 1), (4, 4), (3, 4)])
def test_long_sequences_are_thinned_evenly(n_steps: int, max_steps: int) -> None:
    kept = take_steps(np.arange(n_steps, dtype=np.float64)[:, None], max_steps)[:, 0]
    assert kept.dtype == np.float32
    assert len(kept) == min(n_steps, max_steps)
    gaps = np.diff(kept)
    assert len(gaps) == 0 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)
    assert abs(kept.mean() - (n_steps - 1) / 2) <= 1.0  # from all of the item, not from its beginning


def test_patches_are_averaged_over_time_and_mel() -> None:
    feature = np.random.default_rng(0).random((5, 6, 3, 2), dtype=np.float32)
    np.testing.assert_allclose(take_steps(feature, 9), feature.mean(axis=(2, 3)), rtol=1e-6)


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4), (0, 4), (0, 4, 2, 2)])
def test_features_without_time_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PairsError, match="neither"):
        take_steps(np.zeros(shape), 9)


@pytest.mark.parametrize("offsets", [[0, 3, 4], [0, 3, 4, 11, 14], [1, 3, 4, 13], [0, 4, 4, 8, 13], [0, 13]])
def test_files_that_do_not_belong_together_are_refused(tmp_path: Path, offsets: list[int]) -> None:
    write(tmp_path / "a.npy", make_items())
    np.save(offsets_path(tmp_path / "a.npy"), np.array(offsets))
    with pytest.raises(ValueError, match="do not belong together"):
        read_sequences(tmp_path / "a.npy", 8)
