"""Small files that were made to cost much: refused in words, within the time and memory of an honest one."""

from __future__ import annotations

import contextlib
import io
import json
import resource
import signal
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import parser_targets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from table_file import write_table

from vmnet_pipeline.backends.tensorflow_checkpoint import read_checkpoint
from vmnet_pipeline.backends.torch_weights import load_torch_file
from vmnet_pipeline.errors import CheckpointError, IngestError, SearchIndexError, VmnetError, WeightsError
from vmnet_pipeline.ingestion import tables
from vmnet_pipeline.storage.arrays import map_array, read_array, read_array_shape
from vmnet_pipeline.storage.checksummed import parse_json, read_document, read_frame
from vmnet_pipeline.storage.row_log import RowLog
from vmnet_pipeline.storage.tensor_files import check_tensor_file

SECONDS, HEADROOM_BYTES = 10, 512 << 20


@contextlib.contextmanager
def bounded():
    """Seconds, and address space beyond what is used already."""

    def stop(*_):
        raise AssertionError(f"it takes more than {SECONDS} s")

    used = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
    )
    limits, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, stop)
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + HEADROOM_BYTES, limits[1]))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def make_sparse(path, start, n_bytes):
    """A file of any size that takes no room on the disk."""
    path.write_bytes(start)
    with path.open("r+b") as file:
        file.truncate(n_bytes)


# --- arrays


def write_npy(path, header, *, version=(1, 0), values=bytes(64)):
    text = header.encode() + b"\n"
    path.write_bytes(
        b"\x93NUMPY" + bytes(version) + len(text).to_bytes(2 if version == (1, 0) else 4, "little") + text + values
    )


def describe(shape, dtype="'<f4'", order="False"):
    return f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}"


HEADERS = {
    "true": describe("(True, 4)"), "false": describe("(False, 4)"), "true alone": describe("(True,)"),
    "negative": describe("(-2, -2)"), "nothing times huge": describe(f"(0, {2**62}, {2**62})"),
    "nothing times huge, turned": describe(f"({2**62}, 0, 8)", order="True"), "a float": describe("(2.0,)"),
    "axes": describe("(" + "1, " * 1500 + ")"), "a list": describe("[2, 2]"), "objects": describe("(2,)", "'|O'"),
    "order": describe("(2,)", order="7"), "digits": describe("(" + "9" * 5000 + ",)"),
    "power": describe("(10**10**10,)"), "nested": "(" * 3000, "signs": describe("(" + "-" * 4000 + "1,)"),
    "fields": describe("(1,)", str([(f"f{k}", "<f4") for k in range(500)])),
    "subarray": describe("(1,)", "('<f4', (9999999,))"),
    "many types": describe("(1,)", "'" + "f4," * 2000 + "f4'"), "joined": "'a'" * 3000,
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("read", [read_array, map_array, read_array_shape])
def test_a_header_of_npy(tmp_path, name, read):
    write_npy(tmp_path / "a.npy", HEADERS[name])
    with bounded(), pytest.raises(ValueError, match=r"declares|not an array|not numbers"):
        read(tmp_path / "a.npy")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("n_bytes", [1 << 20, 1 << 31])
def test_a_long_header_of_npy(tmp_path, version, n_bytes):
    make_sparse(tmp_path / "a.npy", b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<I", n_bytes - 100), n_bytes)
    with bounded(), pytest.raises(ValueError, match="its header has"):
        read_array(tmp_path / "a.npy")


# --- checkpoints of TensorFlow


def varint(value):
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def build_index(*blocks, handles=None):
    """An index of blocks of (shared, key, value); `handles` says which block each entry of its own index names."""

    def build(entries):
        body = b"".join(varint(n) + varint(len(key)) + varint(len(value)) + key + value for n, key, value in entries)
        return body + struct.pack("<II", 0, 1)

    table, places = b"", []
    for entries in blocks:
        block = build(entries)
        places.append(varint(len(table)) + varint(len(block)))
        table += block + b"\0" + bytes(4)
    root = build([(0, b"k", place) for place in (places if handles is None else [places[k] for k in handles])])
    handle = varint(len(table)) + varint(len(root))
    table += root + b"\0" + bytes(4)
    footer = (varint(0) + varint(0) + handle).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    return table + footer


def entry(shape=(2,), dtype=1, offset=0, n_bytes=8):
    dims = b"".join(b"\x12" + varint(len(part)) + part for part in (b"\x08" + varint(length) for length in shape))
    parts = b"\x08" + varint(dtype) + b"\x12" + varint(len(dims)) + dims + b"\x20" + varint(offset)
    return parts + b"\x28" + varint(n_bytes)


INDEXES = {
    "a number of 3 MB": build_index([(0, b"a", b"\x08" + b"\xff" * 3_000_000)]),
    "a number of 3 MB as a handle": build_index([(0, b"a", entry())])[:-48]
    + b"\xff" * 3_000_000
    + bytes(40)
    + struct.pack("<Q", 0xDB4775248B80FB57),
    "growing names": build_index([(4 * k, b"abcd", entry()) for k in range(200_000)]),
    "names shared with nothing": build_index([(100, b"a", entry())]),
    "a block named often": build_index([(0, b"%05d" % k, entry()) for k in range(5_000)], handles=[0] * 20_000),
    "axes": build_index([(0, b"a", entry((2**62,) * 100_000))]),
    "a large shape": build_index([(0, b"a", entry((2**63, 2**63)))]),
    "nothing times large": build_index([(0, b"a", entry((0, 2**63, 2**63), n_bytes=0))]),
    "far away": build_index([(0, b"a", entry(offset=2**69))]),
    "many tensors": build_index([(0, b"%06d" % k, entry()) for k in range(150_000)]),
    "cut": build_index([(0, b"a", b"\x12\x7fabc")]),
    "an unknown type": build_index([(0, b"a", entry(dtype=99))]),
}


TOLD = {
    "growing names": "a name or an entry of the index is longer than it can be",
    "many tensors": "it lists more than 100000 tensors",
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", INDEXES)
def test_an_index_of_tensorflow(tmp_path, name):
    (tmp_path / "m.index").write_bytes(INDEXES[name])
    (tmp_path / "m.data").write_bytes(bytes(64))
    with bounded(), pytest.raises(WeightsError, match="not a readable TensorFlow checkpoint") as caught:
        read_checkpoint(tmp_path / "m.index", tmp_path / "m.data")
    assert TOLD.get(name, "") in str(caught.value)


def test_an_index_of_tensorflow_that_is_too_large(tmp_path):
    make_sparse(tmp_path / "m.index", b"", 1 << 33)
    (tmp_path / "m.data").write_bytes(bytes(64))
    with bounded(), pytest.raises(WeightsError, match="it is larger than"):
        read_checkpoint(tmp_path / "m.index", tmp_path / "m.data")


def test_honest_indexes_are_read(tmp_path):
    (tmp_path / "m.index").write_bytes(build_index([(0, b"layer/W", entry()), (6, b"b", entry(offset=8))]))
    (tmp_path / "m.data").write_bytes(np.arange(4, dtype="<f4").tobytes())
    found = read_checkpoint(tmp_path / "m.index", tmp_path / "m.data")
    assert {name: list(values) for name, values in found.items()} == {"layer/W": [0, 1], "layer/b": [2, 3]}
    variables = {f"layer{k}/W": np.full((2, 2), k) for k in range(2000)}
    write_table(tmp_path / "n", variables)
    assert len(read_checkpoint(tmp_path / "n.index", tmp_path / "n.data-00000-of-00001")) == 2000


# --- safetensors


def write_safetensors(path, header, values=bytes(64)):
    path.write_bytes(struct.pack("<Q", len(header)) + header + values)


EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
_EMPTY = json.dumps(EMPTY)
MANY = {f"t{k}": EMPTY for k in range(60_000)}
TENSOR_FILES = {
    "a million empty tensors": lambda: "{" + ",".join(f'"t{k}":{_EMPTY}' for k in range(1_000_000)) + "}",
    "many empty tensors in other letters": lambda: json.dumps(MANY).replace("data_", "data\\u005f"),
    "deep": lambda: '{"a":' * 200_000,
    "a long number": lambda: '{"a": {"dtype": "F32", "shape": [%s], "data_offsets": [0, 0]}}' % ("9" * 100_000),
    "a name twice": lambda: json.dumps({"a": EMPTY})[:-1] + "," + json.dumps({"a": EMPTY})[1:],
    "a list": lambda: "[1]",
    "a large text": lambda: json.dumps({"__metadata__": {"state": "x" * (20 << 20)}}),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", TENSOR_FILES)
def test_a_header_of_safetensors(tmp_path, name):
    """Through the readers of checkpoints and of training states."""
    content = TENSOR_FILES[name]().encode()
    parser_targets.make_checkpoint(tmp_path / "c")
    write_safetensors(tmp_path / "c/model.safetensors", content)
    parser_targets.seal_checkpoint(tmp_path / "c")
    with bounded(), pytest.raises(CheckpointError, match="is damaged"):
        parser_targets.read_network(tmp_path / "c")
    with bounded(), pytest.raises(ValueError, match=r"JSON|header|tensors|digits"):
        check_tensor_file(tmp_path / "c/model.safetensors")


@pytest.mark.parametrize(
    "offsets", [[[0, 8], [4, 12]], [[0, 8], [0, 8]], [[0, 8], [8, 2**63]], [[8, 0], [8, 16]], [[0, 4], [8, 16]]]
)
def test_offsets_of_safetensors_that_overlap(tmp_path, offsets):
    header = {
        name: {"dtype": "F32", "shape": [2], "data_offsets": pair} for name, pair in zip("ab", offsets, strict=True)
    }
    parser_targets.make_checkpoint(tmp_path / "c")
    write_safetensors(tmp_path / "c/model.safetensors", json.dumps(header).encode(), bytes(16))
    parser_targets.seal_checkpoint(tmp_path / "c")
    with bounded(), pytest.raises(CheckpointError, match="is damaged"):
        parser_targets.read_network(tmp_path / "c")


def test_a_header_of_safetensors_that_is_longer_than_the_file(tmp_path):
    make_sparse(tmp_path / "a", struct.pack("<Q", 1 << 40), 1 << 20)
    make_sparse(tmp_path / "b", struct.pack("<Q", (1 << 32) - 8), 1 << 32)
    for name in "ab":
        with bounded(), pytest.raises(ValueError, match="declares a header"):
            check_tensor_file(tmp_path / name)


# --- JSON


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 500_000, "deep|JSON|Expecting"), ('{"a":' * 500_000, "deep|Expecting"), ("9" * 1_000_000, "digits"),
        ('{"a": 1, "a": 2}', "'a' twice"), ('[{"b": {"c": 1, "d": 2, "c": 3}}]', "'c' twice"), ("", "Expecting"),
        ("{" + ",".join(f'"k{k}": 1' for k in range(200_000)) + ',"k199999": 2}', "'k199999' twice"),
        ("\ud800", "Expecting"),
    ],
)  # fmt: skip
def test_json(text, told):
    with bounded(), pytest.raises(ValueError, match=told):
        parse_json(text)


def test_a_document_that_has_no_end(tmp_path):
    make_sparse(tmp_path / "a.json", b"{}", 1 << 34)
    for path in (tmp_path / "a.json", Path("/dev/zero")):
        with bounded(), pytest.raises(ValueError, match="it is larger than"):
            read_document(path)


# --- tables


def test_a_cell_of_a_csv_file(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_bytes(b"id\n" + b"x" * (20 << 20) + b"\n")
    with bounded(), pytest.raises(IngestError, match="field larger than field limit"):
        tables.read_csv_rows(tmp_path / "a.csv", ("id",))
    (tmp_path / "b.csv").write_bytes(b'id\n"' + b"x\n" * 1_000_000)
    with bounded(), pytest.raises(IngestError, match="field larger than field limit"):
        tables.read_csv_rows(tmp_path / "b.csv", ("id",))
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 1 << 24)
    make_sparse(tmp_path / "c.csv", b"id\n", 1 << 34)
    with pytest.raises(IngestError, match="it is larger than"):
        tables.read_csv_rows(tmp_path / "c.csv", ("id",))


def write_packed_table(path, n_rows, column):
    """Rows of one value, which pack a thousandfold and more."""
    table = pa.table({"id": pa.array([column], pa.string()).take(pa.array(np.zeros(n_rows, np.int32)))})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)


@pytest.mark.long
def test_a_parquet_file_that_unpacks_to_much_more_than_it_is(tmp_path):
    write_packed_table(tmp_path / "rows.parquet", 300_000, "x" * 2000)
    assert (tmp_path / "rows.parquet").stat().st_size < 2_000_000
    with bounded(), pytest.raises(ValueError, match="unpacks to more than"):
        read_frame(tmp_path / "rows.parquet")
    with bounded(), pytest.raises(VmnetError, match="unpacks to more than"):
        RowLog(tmp_path, {"id": "string"}).read()


def test_a_parquet_file_of_more_rows_than_it_can_name(tmp_path):
    pq.write_table(pa.table({"id": pa.nulls(50_000_000, pa.string())}), tmp_path / "rows.parquet")
    assert (tmp_path / "rows.parquet").stat().st_size < 100_000
    with bounded(), pytest.raises(ValueError, match="declares 50000000 rows"):
        read_frame(tmp_path / "rows.parquet")
    with bounded(), pytest.raises(VmnetError, match="declares 50000000 rows"):
        RowLog(tmp_path, {"id": "string"}).read()


@pytest.mark.parametrize("deep", ["[" * 200_000, '{"a":' * 200_000, '{"id": "a", "n": ' + "9" * 100_000 + "}"])
def test_lines_of_a_log(tmp_path, deep):
    (tmp_path / "rows-w.jsonl").write_text(deep + "\n")
    RowLog(tmp_path, {"id": "string", "n": "int64"}, writer="v").append([{"id": "b", "n": 1}])
    with bounded():
        assert RowLog(tmp_path, {"id": "string", "n": "int64"}).read()["id"].to_pylist()[-1] == "b"


# --- weights and indexes


@pytest.mark.long
def test_a_weight_file_of_torch_that_is_packed(tmp_path):
    torch.save({"a": torch.zeros(50_000_000)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member))
    (tmp_path / "plain.pth").unlink()
    with bounded(), pytest.raises(WeightsError, match="it unpacks to 200"):
        load_torch_file(tmp_path / "a.pth")
    torch.save({"a": torch.ones(3)}, tmp_path / "b.pth")
    assert load_torch_file(tmp_path / "b.pth")["a"].sum() == 3


def test_a_search_index_that_declares_more_vectors_than_it_has(tmp_path):
    parser_targets.make_gallery(tmp_path)
    (path,) = tmp_path.glob("music_index/*/vectors.faiss")
    content = bytearray(path.read_bytes())
    tried = 0
    for place in range(0, min(len(content) - 8, 120), 4):
        path.write_bytes(content[:place] + struct.pack("<Q", 1 << 36) + content[place + 8 :])
        parser_targets.seal_gallery(tmp_path)
        with bounded(), contextlib.suppress(SearchIndexError):
            parser_targets.read_gallery(tmp_path)
        tried += 1
    assert tried > 10


def test_the_limits_of_this_test_hold():
    with pytest.raises(MemoryError), bounded():
        bytearray(1 << 30)
    assert len(bytearray(1 << 28)) == 1 << 28
    assert io.BytesIO(b"x").read() == b"x"
