"""Read untrusted `.npy` files: nothing but numbers, and no more than the file holds. Write them row by row.

NumPy's own reader allocates what a header declares before it looks at the file, also opens zip archives, and raises
whatever its header parser meets. Its memory-mapped writer ends the process by a signal when the disk is full.
"""

from __future__ import annotations

import io
import math
import os
import sys
import tokenize
from typing import TYPE_CHECKING, BinaryIO, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    import numpy as np

NUMBER_KINDS = "iuf"
_MAX_HEADER_BYTES = 10_000  # of numpy, too; one of numbers has 118
_MAX_AXES = 32
HEADER_ERRORS = (TypeError, ValueError, SyntaxError, EOFError, RecursionError, MemoryError, OverflowError)
"""Raised by the header parser on arbitrary bytes."""


def read_array(place: Path | bytes) -> np.ndarray:
    """Read the array of a `.npy` file, or of its bytes, into memory.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: It is not a `.npy` file, is shorter than its header declares, or holds anything but numbers.
    """
    import numpy as np

    with io.BytesIO(place) if isinstance(place, bytes) else place.open("rb") as file:
        shape, is_fortran, dtype = _read_header(file)
        n_values = math.prod(shape)
        if isinstance(place, bytes):
            flat = np.frombuffer(place[file.tell() :], dtype, n_values).copy() if n_values else np.empty(0, dtype)
        else:
            flat = np.fromfile(file, dtype, n_values)
    return flat.reshape(shape, order="F" if is_fortran else "C")


def map_array(path: Path) -> np.ndarray:
    """Map the array of a `.npy` file into memory, read-only: values stay on disk until they are used."""
    import numpy as np

    with path.open("rb") as file:
        shape, is_fortran, dtype = _read_header(file)
        start = file.tell()
    if 0 in shape:
        return np.zeros(shape, dtype)  # an empty mapping is not possible
    return np.memmap(path, dtype, "r", start, shape, order="F" if is_fortran else "C")


def read_array_shape(path: Path) -> tuple[int, ...]:
    """Shape of the array in a `.npy` file; errors as in `read_array`."""
    with path.open("rb") as file:
        return _read_header(file)[0]


def _check_header_size(file: BinaryIO, *, n_length_bytes: int) -> None:
    """Refuse a long header from its length field: NumPy would read all of it first."""
    start = file.tell()
    size = int.from_bytes(file.read(n_length_bytes), "little")
    file.seek(start)
    if size > _MAX_HEADER_BYTES:
        raise ValueError(f"its header has {size} bytes")


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and dtype; `file` is then positioned at the first value."""
    from numpy.lib import format as npy

    try:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"its format is of version {version}")
        _check_header_size(file, n_length_bytes=2 if version == (1, 0) else 4)
        # Version 3 differs from 2 only in field names, which arrays of numbers do not have.
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, is_fortran, dtype = read(file)
        if any(type(length) is not int for length in shape):
            raise ValueError(f"its shape is {shape}")
    except (*HEADER_ERRORS, tokenize.TokenError) as error:
        raise ValueError(f"not an array of numpy: {error}") from error
    start = file.tell()
    n_bytes = file.seek(0, os.SEEK_END) - start
    file.seek(start)
    if dtype.kind not in NUMBER_KINDS:
        raise ValueError(f"it holds {dtype}, not numbers")
    # Zero lengths count as 1: an empty array of a huge shape cannot be allocated either.
    n_places = math.prod(length or 1 for length in shape)
    is_too_much = n_places > sys.maxsize or math.prod(shape) * dtype.itemsize > n_bytes
    if min(shape, default=0) < 0 or len(shape) > _MAX_AXES or is_too_much:
        raise ValueError(f"it declares the shape {shape}, more than it holds")
    return shape, is_fortran, dtype


class ArrayWriter:
    """Write a (n, ...) array whose n is known when it is closed, float32 or half of it. A context manager that closes.

    The header is written twice: its padding leaves room for a first axis that grows.
    """

    def __init__(self, path: Path, row_shape: Sequence[int], dtype: Literal["<f4", "<f2"] = "<f4") -> None:
        self._row_shape, self._dtype = tuple(row_shape), dtype
        self._n_rows = 0
        self._file = path.open("w+b")
        self._write_header()

    def add(self, rows: np.ndarray) -> None:
        """Append rows, (k, *row_shape) of any floating-point type.

        Raises:
            ValueError: Their shape is not `row_shape`.
        """
        if rows.shape[1:] != self._row_shape:
            raise ValueError(f"rows of shape {rows.shape[1:]} do not fit an array of rows {self._row_shape}")
        self._file.write(rows.astype(self._dtype, copy=False).tobytes())
        self._n_rows += len(rows)

    def close(self) -> None:
        """Complete the file."""
        if self._file.closed:
            return
        with self._file:
            self._file.seek(0)
            self._write_header()

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _write_header(self) -> None:
        import numpy as np

        header = {"descr": self._dtype, "fortran_order": False, "shape": (self._n_rows, *self._row_shape)}
        np.lib.format.write_array_header_1_0(self._file, header)
