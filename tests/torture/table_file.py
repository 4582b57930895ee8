"""A TensorFlow V2 checkpoint of a few small variables, byte by byte: TensorFlow itself would take ten seconds."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAGIC = 0xDB4775248B80FB57
FLOAT = 1


def write_table(prefix: Path, variables: Mapping[str, np.ndarray]) -> None:
    """`PREFIX.index` and `PREFIX.data-00000-of-00001` of float32 variables."""
    data, entries = b"", [(b"", b"\x08\x01")]
    for name, value in sorted(variables.items()):
        content = value.astype("<f4").tobytes()
        entries.append((name.encode(), _describe(value.shape, len(data), len(content))))
        data += content
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    block = _make_block(entries)
    index = _make_block([(entries[-1][0], _varint(0) + _varint(len(block) - 5))])
    metaindex = _make_block([])
    handles = _varint(len(block)) + _varint(len(metaindex) - 5)
    handles += _varint(len(block) + len(metaindex)) + _varint(len(index) - 5)
    footer = handles.ljust(40, b"\0") + struct.pack("<Q", MAGIC)
    prefix.with_name(f"{prefix.name}.index").write_bytes(block + metaindex + index + footer)


def _describe(shape: tuple[int, ...], offset: int, size: int) -> bytes:
    """A BundleEntryProto: dtype, shape, offset and size."""
    dimensions = b"".join(_field(2, _varint_field(1, n)) for n in shape)
    return _varint_field(1, FLOAT) + _field(2, dimensions) + _varint_field(4, offset) + _varint_field(5, size)


def _make_block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """A LevelDB block without shared prefixes, one restart point, its kind and an unread checksum."""
    body = b"".join(_varint(0) + _varint(len(k)) + _varint(len(v)) + k + v for k, v in entries)
    return body + struct.pack("<II", 0, 1) + b"\0" + b"\0" * 4


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])
