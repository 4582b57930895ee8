"""Read pickled features of the 2017 code, one vector per file, without running anything that the file names.

A pickle is a program. Only the few instructions and calls that a NumPy array needs are allowed; the calls make plain
records, which are checked afterwards. Pickles of Python 2 and 3 are read, up to protocol 4.
"""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.errors import PairsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_BYTES = 2**20
"""A vector of 1,140 numbers is 9 kB; protocol 0 of Python 2 writes up to four letters for a byte."""
MAX_MESSAGE = 200
TYPES = {"f8": np.float64, "f4": np.float32}
# Constants, tuples, texts, the memo, and calls; no lists, dictionaries, objects, bytearrays or persistent names.
INSTRUCTIONS = (
    "PROTO FRAME STOP MARK POP POP_MARK GLOBAL STACK_GLOBAL REDUCE BUILD NONE NEWTRUE NEWFALSE INT BININT BININT1 "
    "BININT2 LONG LONG1 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINBYTES SHORT_BINBYTES PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET"
)


class _Call:
    """A function that a pickle may call but not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes what it calls")


class _Type:
    """A numpy type by its name, e.g. `f8`, and its byte order."""

    def __init__(self, name: Any = "", *_: Any) -> None:
        self.name, self.order = name, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


class _Array:
    """The state that an array is made of."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Reader(pickle._Unpickler):  # that of C reserves what a file says, up to 32 GiB
    dispatch = {getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]]  # noqa: RUF012
                for name in INSTRUCTIONS.split()}  # fmt: skip

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._n_encoded = 0

    def find_class(self, module: str, name: str) -> Any:
        """Allow only what a NumPy array is made with."""
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
            ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
            ("numpy", "ndarray"): lambda *_: _Array(),
            ("numpy", "dtype"): _Type,
            ("_codecs", "encode"): self._encode,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, which no array needs")
        return _Call(known[module, name])

    def _encode(self, text: str, _: Any = None) -> bytes:
        self._n_encoded += len(text)
        if self._n_encoded > MAX_BYTES:
            raise pickle.UnpicklingError("it grows beyond the size of a vector")
        return text.encode("latin1")


def read_pickled_vector(path: Path) -> np.ndarray:
    """Read one vector, (D,) float32, from a pickle file.

    Raises:
        PairsError: The file is not a pickle of one vector of floats, or is too large for one; nothing in it is run.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
        return _build(_Reader(content).load())
    except Exception as error:  # a damaged pickle can raise anything
        reason = (str(error) or type(error).__name__)[:MAX_MESSAGE]
        raise PairsError(f"{path} is not the pickle of one vector: {reason}. Replace it, or leave it out.") from error


def _build(found: Any) -> np.ndarray:
    """Build the vector that a record describes; messages quote nothing of the record, which may be endless."""
    if not isinstance(found, _Array) or not isinstance(found.state, tuple) or len(found.state) != 5:
        raise ValueError("it holds something else")
    _, shape, kind, _, raw = found.state
    if not isinstance(kind, _Type) or not isinstance(kind.name, str) or kind.name not in TYPES:
        raise ValueError("its numbers are not floats of 4 or 8 bytes")
    if not isinstance(shape, tuple) or len(shape) != 1 or type(shape[0]) is not int or shape[0] < 1:
        raise ValueError("it has another number of axes")
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    dtype = np.dtype(TYPES[kind.name]).newbyteorder(">" if kind.order == ">" else "<")
    if not isinstance(raw, bytes) or len(raw) != shape[0] * dtype.itemsize:
        raise ValueError("its bytes are not as many as its numbers need")
    vector = np.frombuffer(raw, dtype).astype(np.float32)
    if not np.isfinite(vector).all():
        raise ValueError("it has NaN or infinity")
    return vector
