"""Write `.npy` files row by row, neither held in memory nor mapped into it.

A mapped file on a full disk ends the process by a signal; here it is an error like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    import numpy as np


class ArrayWriter:
    """A (n, ...) float32 array; n is known when it is closed. A context manager that closes.

    The header is written twice: NumPy leaves room in it for a first axis that grows.
    """

    def __init__(self, path: Path, row_shape: Sequence[int]) -> None:
        """Begin the file.

        Args:
            path: The file.
            row_shape: Shape of one row.
        """
        self._row_shape = tuple(row_shape)
        self._n_rows = 0
        self._file = path.open("w+b")
        self._write_header()

    def add(self, rows: np.ndarray) -> None:
        """Append rows, (k, *row_shape) of any floating-point type.

        Raises:
            ValueError: They have another shape.
        """
        if rows.shape[1:] != self._row_shape:
            raise ValueError(f"rows of shape {rows.shape[1:]} do not fit an array of rows {self._row_shape}")
        self._file.write(rows.astype("<f4", copy=False).tobytes())
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

        header = {"descr": "<f4", "fortran_order": False, "shape": (self._n_rows, *self._row_shape)}
        np.lib.format.write_array_header_1_0(self._file, header)
