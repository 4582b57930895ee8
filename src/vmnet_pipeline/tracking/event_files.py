"""TensorBoard event files with scalars, written without TensorFlow: it takes seconds to import, for a few dozen bytes.

Source: tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto (the messages) and
tensorflow/core/lib/io/record_writer.cc (length, masked CRC-32C of the length, content, masked CRC-32C of the content).
"""

from __future__ import annotations

import functools
import struct
import time
from typing import TYPE_CHECKING

from vmnet_pipeline.storage.atomic import replace_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    Event = tuple[int, Mapping[str, float]]

FILE_VERSION = b"brain.Event:2"
_CASTAGNOLI = 0x82F63B78
_MASK_DELTA = 0xA282EAD8


def write_events(path: Path, events: Iterable[Event]) -> None:
    """Write a whole event file; one that is there is replaced, so that repeating a run doubles no point.

    Args:
        path: The file; TensorBoard takes any whose name has `tfevents` in it.
        events: Step and scalars by tag, in the order of the steps.
    """
    content = _frame(_encode_double(1, time.time()) + _encode_bytes(3, FILE_VERSION))
    content += b"".join(_frame(_encode_event(step, scalars)) for step, scalars in events)
    with replace_atomically(path) as temporary:
        temporary.write_bytes(content)


def append_event(path: Path, step: int, scalars: Mapping[str, float]) -> None:
    """Add the scalars of one step to an event file that `write_events` made."""
    with path.open("ab") as file:
        file.write(_frame(_encode_event(step, scalars)))


def _encode_event(step: int, scalars: Mapping[str, float]) -> bytes:
    values = b"".join(
        _encode_bytes(1, _encode_bytes(1, tag.encode()) + b"\x15" + struct.pack("<f", value))
        for tag, value in scalars.items()
    )
    return _encode_double(1, time.time()) + b"\x10" + _encode_varint(step) + _encode_bytes(5, values)


def _encode_double(field: int, value: float) -> bytes:
    return bytes([field << 3 | 1]) + struct.pack("<d", value)


def _encode_bytes(field: int, content: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _encode_varint(len(content)) + content


def _encode_varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _frame(record: bytes) -> bytes:
    length = struct.pack("<Q", len(record))
    return length + _masked_checksum(length) + record + _masked_checksum(record)


def _masked_checksum(content: bytes) -> bytes:
    table = _checksum_table()
    checksum = 0xFFFFFFFF
    for byte in content:
        checksum = table[(checksum ^ byte) & 0xFF] ^ checksum >> 8
    checksum ^= 0xFFFFFFFF
    rotated = (checksum >> 15 | checksum << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + _MASK_DELTA) & 0xFFFFFFFF)


@functools.cache
def _checksum_table() -> tuple[int, ...]:
    """CRC-32C (Castagnoli, reflected) of every byte."""

    def divide(value: int) -> int:
        for _ in range(8):
            value = value >> 1 ^ (_CASTAGNOLI if value & 1 else 0)
        return value

    return tuple(divide(byte) for byte in range(256))
