import sys

import numpy as np
import pytest

from vmnet_pipeline.storage.arrays import ArrayWriter, map_array


@pytest.mark.parametrize("shape", [(), (3,), (2, 4)])
def test_an_array_is_written_piece_by_piece(tmp_path, shape):
    rows = np.random.default_rng(0).normal(size=(5, *shape))
    with ArrayWriter(tmp_path / "a.npy", shape) as writer:
        writer.add(rows[:2])
        writer.add(rows[2:2])
        writer.add(rows[2:])
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), rows.astype(np.float32))
    np.testing.assert_array_equal(map_array(tmp_path / "a.npy"), rows.astype(np.float32))


def test_an_array_without_rows_has_its_width(tmp_path):
    with ArrayWriter(tmp_path / "a.npy", (3,)):
        pass
    assert np.load(tmp_path / "a.npy").shape == (0, 3)


def test_rows_of_another_shape_are_refused(tmp_path):
    with ArrayWriter(tmp_path / "a.npy", (3,)) as writer, pytest.raises(ValueError, match="do not fit"):
        writer.add(np.zeros((1, 4)))


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is of Linux")
def test_a_full_disk_is_an_error(tmp_path):
    (tmp_path / "full.npy").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        ArrayWriter(tmp_path / "full.npy", (300_000,)).add(np.zeros((1, 300_000)))
