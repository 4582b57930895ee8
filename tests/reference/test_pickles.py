"""Pickled vectors of 2017: those of Python 2 and 3 are read, everything else is refused and nothing is run."""

from __future__ import annotations

import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from click.testing import CliRunner

from vmnet_pipeline.cli import cli
from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.reference.pickles import read_pickled_vector

VECTOR = np.random.default_rng(0).normal(size=1140)


def write_as_python_2(vector: np.ndarray) -> bytes:
    """What `pickle.dump(vector, f)` of Python 2 writes: protocol 0, the bytes as an escaped text."""
    raw = "".join(f"\\x{byte:02x}" for byte in vector.tobytes())
    return (
        "cnumpy.core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\np1\n(I0\ntp2\nS'b'\np3\ntp4\nRp5\n"
        f"(I1\n(I{len(vector)}\ntp6\ncnumpy\ndtype\np7\n(S'f8'\np8\nI0\nI1\ntp9\nRp10\n"
        f"(I3\nS'<'\np11\nNNNI-1\nI-1\nI0\ntp12\nbI00\nS'{raw}'\np13\ntp14\nb."
    ).encode("latin1")


WAYS = {
    "Python 2": lambda: write_as_python_2(VECTOR),
    **{f"protocol {n}": lambda n=n: pickle.dumps(VECTOR, protocol=n) for n in (0, 1, 2, 3, 4)},
    "old numpy": lambda: pickle.dumps(VECTOR, protocol=2).replace(b"numpy._core.", b"numpy.core."),
    "float32": lambda: pickle.dumps(VECTOR.astype(np.float32), protocol=2),
    "big endian": lambda: pickle.dumps(VECTOR.astype(">f8"), protocol=2),
}


@pytest.mark.parametrize("way", WAYS)
def test_vectors_are_read(tmp_path, way):
    path = tmp_path / "a.pkl"
    path.write_bytes(WAYS[way]())
    assert way != "Python 2" or np.array_equal(pickle.loads(path.read_bytes(), encoding="latin1"), VECTOR)
    found = read_pickled_vector(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, VECTOR.astype(np.float32))


class Runs:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def nest_tuples(depth):
    """Tuples whose text would have 2 ** depth parts, where the shape of the array should be."""
    shape = b")" + b"".join(b"q%c0h%ch%c\x86" % (n, n, n) for n in range(depth))
    return pickle.dumps(VECTOR, protocol=2).replace(b"M\x74\x04\x85", shape)


def repeat_encoding():
    """One text of 400 kB that is turned into bytes 20,000 times."""
    text = b"X" + struct.pack("<I", 400_000) + b"a" * 400_000
    call = b"c_codecs\nencode\n" + text + b"q\x01X\x06\x00\x00\x00latin1q\x02\x86R"
    return b"\x80\x02" + call + b"c_codecs\nencode\nq\x03h\x01h\x02\x86R" + b"h\x03h\x01h\x02\x86R" * 20_000 + b"."


HOSTILE = {
    "runs a function": pickle.dumps(Runs()),
    "runs a function, protocol 0": pickle.dumps(Runs(), protocol=0),
    "builtins": b'cbuiltins\neval\n(S\'__import__("os").mkdir("ran")\'\ntR.',
    "part of numpy": b"cnumpy\nsave\n(S'ran'\nI1\ntR.",
    "attribute of a known name": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
    "objects": pickle.dumps(np.array([Runs()], dtype=object)),
    "changes a function": b"c_codecs\nencode\n(N}S'__defaults__'\n(S'rot13'\ntstb.",
    "memory of the memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "long bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b".",
    "long text": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "endless shape": nest_tuples(60),
    "bytes many times": repeat_encoding(),
    "matrix": pickle.dumps(VECTOR.reshape(20, 57), protocol=2),
    "whole numbers": pickle.dumps(np.arange(9), protocol=2),
    "too few bytes": pickle.dumps(VECTOR, protocol=2).replace(b"M\x74\x04", b"M\x75\x04"),
    "not finite": pickle.dumps(np.array([1.0, np.nan]), protocol=2),
    "empty": b"",
    "cut": pickle.dumps(VECTOR, protocol=2)[:500],
    "a list": pickle.dumps(VECTOR.tolist()),
    "large": b"\x80\x02" + b"N0" * 2**20 + b".",
    "no pickle": np.random.default_rng(1).bytes(2000),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_everything_else_is_refused_and_nothing_is_run(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pkl").write_bytes(HOSTILE[kind])
    tracemalloc.start()
    try:
        with pytest.raises(PairsError, match=r"x\.pkl is not the pickle of one vector") as caught:
            read_pickled_vector(tmp_path / "x.pkl")
        assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 1000
    assert [path.name for path in tmp_path.iterdir()] == ["x.pkl"]
    (tmp_path / "x.pkl").write_bytes(WAYS["Python 2"]())
    assert len(read_pickled_vector(tmp_path / "x.pkl")) == 1140  # nothing has been changed for the next one


def test_the_command_leaves_out_what_cannot_be_read_and_says_so(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    for name in ("-aBc_1", "b.c"):
        (folder / f"{name}.pkl").write_bytes(WAYS["Python 2"]())
    done = CliRunner().invoke(cli, ["import-features", str(folder), str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["-aBc_1.npy", "b.c.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "new/b.c.npy"), VECTOR.astype(np.float32))
    (folder / "bad.pkl").write_bytes(HOSTILE["runs a function"])
    done = CliRunner().invoke(cli, ["import-features", str(folder), str(tmp_path / "new")])
    assert done.exit_code == 1
    assert "Left out" in done.output
    assert "bad.pkl" in done.output
    assert "2 of 3 features are in" in done.output
    empty = CliRunner().invoke(cli, ["import-features", str(tmp_path / "new"), str(tmp_path / "other")])
    assert empty.exit_code == 1
    assert "has no .pkl files" in empty.output
