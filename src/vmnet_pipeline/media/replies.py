"""Serialise the answers of a process that read a hostile file: plain values, arrays and records, but no code.

A JSON text describes the value; bytes and arrays follow it. Unlike pickle, reading builds only the types listed here.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.storage.arrays import NUMBER_KINDS
from vmnet_pipeline.storage.checksummed import parse_json

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np

_HEAD_BYTES = 8
_PLAIN = (type(None), bool, int, float, str)
_ARRAY_KINDS = NUMBER_KINDS + "b"


def pack_reply(value: Any) -> bytes:
    """Serialise None, numbers, texts, bytes, arrays of numbers, dataclasses, and tuples, lists and dicts of them.

    Raises:
        TypeError: The value contains something else.
    """
    buffers: list[memoryview] = []
    text = json.dumps(_describe(value, buffers)).encode()
    return b"".join([len(text).to_bytes(_HEAD_BYTES, "little"), text, *buffers])


def _describe(value: Any, buffers: list[memoryview]) -> Any:
    import numpy as np

    if type(value) in _PLAIN:
        return value
    if isinstance(value, bytes | bytearray):
        buffers.append(memoryview(value))
        return {"bytes": len(value)}
    if isinstance(value, np.ndarray | np.generic):
        return _describe_array(value, buffers)
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        return {type(value).__name__: [_describe(item, buffers) for item in value]}
    if type(value) is dict:
        return {"dict": [[_describe(item, buffers) for item in pair] for pair in value.items()]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind, names = type(value), [field.name for field in dataclasses.fields(value)]
        fields = {name: _describe(getattr(value, name), buffers) for name in names}
        return {"record": [kind.__module__, kind.__qualname__], "fields": fields}
    raise TypeError(f"a reader may answer with numbers, texts, bytes, arrays and dataclasses, not {type(value)}")


def _describe_array(value: np.ndarray | np.generic, buffers: list[memoryview]) -> Any:
    import numpy as np

    array = np.asarray(value)
    if array.dtype.kind not in _ARRAY_KINDS:
        raise TypeError(f"a reader may answer with arrays of numbers, not of {array.dtype}")
    array = np.ascontiguousarray(array).reshape(array.shape)
    buffers.append(array.reshape(-1).view(np.uint8).data)
    return {"scalar" if isinstance(value, np.generic) else "array": [array.dtype.str, list(array.shape)]}


def unpack_reply(content: bytes, packages: Collection[str]) -> Any:
    """Inverse of `pack_reply` for untrusted bytes; dataclasses must be of one of the top-level `packages`.

    Raises:
        ValueError: The bytes are not such a value.
    """
    try:
        n_bytes = int.from_bytes(content[:_HEAD_BYTES], "little")
        text, rest = content[_HEAD_BYTES:][:n_bytes], memoryview(content)[_HEAD_BYTES:][n_bytes:]
        return _Reader(rest, packages).build(parse_json(text))
    except (TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(f"not an answer of a reader ({type(error).__name__}: {error})") from error


class _Reader:
    """Builds values; takes their bytes from `rest`, in order."""

    def __init__(self, rest: memoryview, packages: Collection[str]) -> None:
        self._rest, self._packages = rest, packages

    def build(self, what: Any) -> Any:
        if not isinstance(what, dict):
            if type(what) not in _PLAIN:
                raise ValueError("a list without its kind")
            return what
        if "record" in what:
            module, name = what["record"]
            return self._build_record(module, name, what["fields"])
        ((kind, content),) = what.items()
        match kind:
            case "bytes":
                return bytes(self._take(content))
            case "tuple":
                return tuple(self.build(item) for item in content)
            case "list":
                return [self.build(item) for item in content]
            case "dict":
                return {self.build(key): self.build(value) for key, value in content}
            case "array":
                return self._build_array(content)
            case "scalar":
                return self._build_array(content)[()]
        raise ValueError(f"unknown kind {kind}")

    def _build_array(self, content: list[Any]) -> np.ndarray:
        """A writable copy."""
        import numpy as np

        kind, shape = np.dtype(str(content[0])), tuple(content[1])
        if kind.kind not in _ARRAY_KINDS or any(type(length) is not int or length < 0 for length in shape):
            raise ValueError(f"an array of {kind} {shape}")
        values = self._take(math.prod(shape) * kind.itemsize)
        return np.frombuffer(values, kind).reshape(shape).copy() if len(values) else np.empty(shape, kind)

    def _build_record(self, module: str, name: str, fields: dict[str, Any]) -> Any:
        """A dataclass of a module that is already imported; none of its code runs."""
        found: Any = sys.modules[module] if module.partition(".")[0] in self._packages else None
        for part in name.split("."):
            found = vars(found)[part]
        if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
            raise ValueError(f"{name} is not a dataclass")
        if {field.name for field in dataclasses.fields(found)} != fields.keys():
            raise ValueError(f"{name} has other fields")
        record = object.__new__(found)
        for field in dataclasses.fields(found):
            object.__setattr__(record, field.name, self.build(fields[field.name]))
        return record

    def _take(self, n_bytes: int) -> memoryview:
        if type(n_bytes) is not int or not 0 <= n_bytes <= len(self._rest):
            raise ValueError("more bytes than there are")
        taken, self._rest = self._rest[:n_bytes], self._rest[n_bytes:]
        return taken
