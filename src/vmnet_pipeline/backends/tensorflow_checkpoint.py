"""Read TensorFlow V2 checkpoints (a `.index` table and a `.data-00000-of-00001` file) without TensorFlow.

Importing TensorFlow costs seconds and hundreds of megabytes in every worker, for what is a table of
names, shapes and offsets.

Source: tensorflow/core/util/tensor_bundle and tensorflow/core/protobuf/tensor_bundle.proto; the index is a LevelDB
table (leveldb/doc/table_format.md).
"""

from __future__ import annotations

import itertools
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vmnet_pipeline.errors import WeightsError
from vmnet_pipeline.storage.checksummed import read_document

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOOTER_BYTES = 48
TABLE_MAGIC = 0xDB4775248B80FB57
NO_COMPRESSION = 0
# The largest known index has 5 kB; keys are stored as what differs from the one before, so that a short file could
# spell out any number of long ones.
MAX_INDEX_BYTES = 16 << 20
MAX_ENTRIES = 100_000
MAX_KEY_BYTES = 4096
MAX_AXES = 16
_MAX_VARINT_BYTES = 10
_Value = TypeVar("_Value", int, bytes)
# Numbers of tensorflow/core/framework/types.proto that numpy has too.
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    9: np.dtype("<i8"),
    10: np.dtype("?"),
}


@dataclass(frozen=True, slots=True)
class _Entry:
    dtype: int
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


def read_checkpoint(index_path: Path, data_path: Path, *, slots: bool = False) -> dict[str, np.ndarray]:
    """All variables of a checkpoint with one data shard; slots of optimisers (`/Adam`) only where wanted.

    Returns:
        Variable name -> array, read-only, mapped from the file.

    Raises:
        WeightsError: One of the files is damaged or of an unknown kind.
    """
    try:
        entries = dict(_read_entries(read_document(index_path, MAX_INDEX_BYTES)))
        data = np.memmap(data_path, mode="r", dtype=np.uint8)
        return {name: _view(data, entry) for name, entry in entries.items() if slots or "/Adam" not in name}
    except (LookupError, TypeError, OverflowError, struct.error, ValueError) as error:
        raise WeightsError(f"{index_path}: not a readable TensorFlow checkpoint ({error}); fetch it again") from error


def _view(data: np.ndarray, entry: _Entry) -> np.ndarray:
    dtype = DTYPES[entry.dtype]
    if entry.n_bytes != dtype.itemsize * math.prod(entry.shape) or entry.offset + entry.n_bytes > len(data):
        raise ValueError("a tensor lies outside of the data file")
    return np.asarray(data[entry.offset : entry.offset + entry.n_bytes].view(dtype).reshape(entry.shape))


def _read_entries(table: bytes) -> Iterator[tuple[str, _Entry]]:
    footer = table[-FOOTER_BYTES:]
    if len(footer) < FOOTER_BYTES or struct.unpack("<Q", footer[-8:])[0] != TABLE_MAGIC:
        raise ValueError("the index has no table footer")
    position = 0
    for _ in range(2):  # the handle of the metaindex block, of no use here
        _, position = _read_varint(footer, position)
    n_entries = n_bytes = 0
    for _, handle in _read_block(table, footer[position:]):
        n_bytes += _read_varint(handle, _read_varint(handle, 0)[1])[0]
        if n_bytes > len(table):
            raise ValueError("its blocks are larger than the file")
        for key, value in _read_block(table, handle):
            n_entries += 1
            if n_entries > MAX_ENTRIES:
                raise ValueError(f"it lists more than {MAX_ENTRIES} tensors")
            if key:  # the empty key holds the header
                yield key.decode(), _parse_entry(value)


def _read_block(table: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the block at a handle; keys are stored as what differs from the key before."""
    offset, position = _read_varint(handle, 0)
    size, _ = _read_varint(handle, position)
    if table[offset + size] != NO_COMPRESSION:
        raise ValueError("the index is compressed")
    block = table[offset : offset + size]
    end = len(block) - 4 * (struct.unpack("<I", block[-4:])[0] + 1)
    key, position = b"", 0
    while position < end:
        n_shared, position = _read_varint(block, position)
        n_new, position = _read_varint(block, position)
        n_value, position = _read_varint(block, position)
        if n_shared > len(key) or n_shared + n_new > MAX_KEY_BYTES or position + n_new + n_value > end:
            raise ValueError("a name or an entry of the index is longer than it can be")
        key = key[:n_shared] + block[position : position + n_new]
        position += n_new
        yield key, block[position : position + n_value]
        position += n_value


def _read_varint(content: bytes, position: int) -> tuple[int, int]:
    """A base-128 number and the position after it."""
    value = 0
    for place in range(_MAX_VARINT_BYTES):
        byte = content[position + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, position + place + 1
    raise ValueError("a number of the index is longer than it can be")


def _read_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protobuf message."""
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, position = _read_varint(message, position)
            yield number, value
            continue
        size, position = _read_varint(message, position) if wire_type == 2 else ({1: 8, 5: 4}[wire_type], position)
        if position + size > len(message):
            raise ValueError("an entry of the index is cut off")
        yield number, message[position : position + size]
        position += size


def _parse_entry(message: bytes) -> _Entry:
    fields = dict(_read_fields(message))
    if fields.get(3, 0) != 0 or 7 in fields:
        raise ValueError("the checkpoint has several shards or sliced tensors")
    axes = itertools.islice(_read_fields(_expect(bytes, fields.get(2, b""))), MAX_AXES + 1)
    shape = tuple(_expect(int, dict(_read_fields(_expect(bytes, part))).get(1, 0)) for _, part in axes)
    if len(shape) > MAX_AXES:
        raise ValueError(f"a tensor has more than {MAX_AXES} axes")
    return _Entry(_expect(int, fields[1]), shape, _expect(int, fields.get(4, 0)), _expect(int, fields.get(5, 0)))


def _expect(kind: type[_Value], value: int | bytes) -> _Value:
    if not isinstance(value, kind):
        raise ValueError(f"a field is not of type {kind.__name__}")
    return value
