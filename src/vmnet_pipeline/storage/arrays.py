"""Read `.npy` files that somebody else may have made: nothing but numbers, and no more of them than the file holds.

NumPy's own reader allocates what a header declares before it looks at the file, opens zip archives by the same name,
and raises whatever its parser of the header meets.
"""

from __future__ import annotations

import io
import math
import os
import sys
import tokenize
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

NUMBER_KINDS = "iuf"
_MAX_HEADER_BYTES = 10_000  # of numpy, too; one of numbers has 118
_MAX_AXES = 32
HEADER_ERRORS = (TypeError, ValueError, SyntaxError, EOFError, RecursionError, MemoryError, OverflowError)
"""What parsing a header of any bytes may raise."""


def read_array(place: Path | bytes) -> np.ndarray:
    """The array of a `.npy` file, or of its bytes, in memory.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: It is no `.npy` file, is shorter than it says, or holds something else than numbers.
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
    """The same, but the values stay on disk until they are used; read-only."""
    import numpy as np

    with path.open("rb") as file:
        shape, is_fortran, dtype = _read_header(file)
        start = file.tell()
    if 0 in shape:
        return np.zeros(shape, dtype)  # a file without a value cannot be mapped
    return np.memmap(path, dtype, "r", start, shape, order="F" if is_fortran else "C")


def read_array_shape(path: Path) -> tuple[int, ...]:
    """Shape of the array in a `.npy` file; errors as in `read_array`."""
    with path.open("rb") as file:
        return _read_header(file)[0]


def _check_header_size(file: BinaryIO, *, n_length_bytes: int) -> None:
    """NumPy reads a header of any length before it looks at it; this stands where the length does."""
    start = file.tell()
    size = int.from_bytes(file.read(n_length_bytes), "little")
    file.seek(start)
    if size > _MAX_HEADER_BYTES:
        raise ValueError(f"its header has {size} bytes")


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the first axis is the fastest, and dtype; `file` then stands at the first value."""
    from numpy.lib import format as npy

    try:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"its format is of version {version}")
        _check_header_size(file, n_length_bytes=2 if version == (1, 0) else 4)
        # Version 3 differs from 2 in the names of fields only, which arrays of numbers do not have.
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
    # Lengths that are 0 take part: an empty array of a great shape cannot be made either.
    n_places = math.prod(length or 1 for length in shape)
    is_too_much = n_places > sys.maxsize or math.prod(shape) * dtype.itemsize > n_bytes
    if min(shape, default=0) < 0 or len(shape) > _MAX_AXES or is_too_much:
        raise ValueError(f"it declares the shape {shape}, more than it holds")
    return shape, is_fortran, dtype
