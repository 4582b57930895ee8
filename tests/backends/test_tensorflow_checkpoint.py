"""The checkpoint reader against TensorFlow's own, and against damage."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from vmnet_pipeline.backends.tensorflow_checkpoint import read_checkpoint
from vmnet_pipeline.errors import WeightsError

TENSORFLOW_PROGRAM = """
import json, sys
from tensorflow.python.training import py_checkpoint_reader
reader = py_checkpoint_reader.NewCheckpointReader(sys.argv[1])
sums = {}
for name, shape in reader.get_variable_to_shape_map().items():
    value = reader.get_tensor(name).astype("float64")
    sums[name] = [list(shape), float(value.sum()), float(abs(value).max())]
print(json.dumps(sums))
"""


@pytest.fixture
def files(weights_dir):
    folder = weights_dir / "MSD_musicnn"
    return folder / ".index", folder / ".data-00000-of-00001"


@pytest.mark.process
@pytest.mark.slow
def test_reads_what_tensorflow_reads(files):
    command = [sys.executable, "-c", TENSORFLOW_PROGRAM, f"{files[0].parent}/"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    theirs = {name: value for name, value in json.loads(output).items() if "/Adam" not in name}
    ours = read_checkpoint(*files)
    assert set(ours) == set(theirs)
    for name, (shape, total, largest) in theirs.items():
        assert list(ours[name].shape) == shape
        assert ours[name].sum(dtype=np.float64) == pytest.approx(total, rel=1e-12, abs=1e-12)
        assert np.abs(ours[name]).max() == pytest.approx(largest)


def test_layout_of_the_published_model(files):
    variables = read_checkpoint(*files)
    assert variables["conv2d/kernel"].shape == (7, 38, 1, 204)
    assert variables["dense/kernel"].shape == (1506, 200)
    assert variables["beta1_power"].shape == ()


@pytest.mark.parametrize("damage", ["empty", "cut", "no_magic", "garbage"])
def test_damaged_index_is_a_weights_error(files, damage, tmp_path):
    content = files[0].read_bytes()
    damaged = {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "no_magic": content[:-1] + b"\x00",
        "garbage": b"\xff" * 1000 + content[1000:],
    }[damage]
    (tmp_path / ".index").write_bytes(damaged)
    with pytest.raises(WeightsError, match="fetch it again"):
        read_checkpoint(tmp_path / ".index", files[1])


def test_short_data_file_is_a_weights_error(files, tmp_path):
    (tmp_path / "data").write_bytes(files[1].read_bytes()[:100_000])
    with pytest.raises(WeightsError, match="outside"):
        read_checkpoint(files[0], tmp_path / "data")
