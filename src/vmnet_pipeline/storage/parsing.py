"""Parsers for files that may be damaged: whatever is in them, they raise nothing but ValueError, and OSError."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    import pyarrow.parquet as pq


MAX_DOCUMENT_BYTES = 16 << 20
"""For files that say something of others: the largest real ones have some kilobytes."""

_FREE_ROWS, _ROWS_PER_BYTE = 1 << 16, 8
_FREE_BYTES, _MOST_PACKED = 64 << 20, 100
_PIECE_BYTES = 1 << 20


def parse_json(text: str | bytes) -> Any:
    """The content of a JSON text, in time and memory that grow with the text.

    Raises:
        ValueError: It is none, is nested too deep, has a number of thousands of digits, or a name twice in an object.
    """
    try:
        return json.loads(text, object_pairs_hook=_refuse_duplicates)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deep") from error


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ in which of two values they take, so a file with two may mean another thing to each."""
    content = dict(pairs)
    if len(content) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"its JSON has {twice[:100]!r} twice in one object")
    return content


def read_document(path: Path, most_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
    """A small file whole.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: It is larger than any of its kind.
    """
    content = bytearray()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):  # room is made for what comes, not for what may come
            content += piece
            if len(content) > most_bytes:
                raise ValueError(f"it is larger than {most_bytes} bytes, which no such file is")
    return bytes(content)


def check_table_size(metadata: pq.FileMetaData, n_bytes: int) -> None:
    """Refuse a Parquet file that unpacks to far more than a table that names its rows does.

    Args:
        metadata: What the file says of itself.
        n_bytes: Its size.

    Raises:
        ValueError: It says that there is more in it than can be.
    """
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if metadata.num_rows > _FREE_ROWS + _ROWS_PER_BYTE * n_bytes:
        raise ValueError(f"it declares {metadata.num_rows} rows in {n_bytes} bytes")
    if sum(group.total_byte_size for group in groups) > _FREE_BYTES + _MOST_PACKED * n_bytes:
        raise ValueError(f"it unpacks to more than {_MOST_PACKED} times its size")


def read_frame(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A Parquet file, or some columns of it; a whole one is compared with its checksum, see `sealing`.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: It is damaged.
    """
    import pyarrow.parquet as pq

    from vmnet_pipeline.storage.checksummed import check_table

    try:
        with path.open("rb") as file:
            check_table_size(pq.read_metadata(file), file.seek(0, os.SEEK_END))
            file.seek(0)
            table = pq.read_table(file, columns=None if columns is None else list(columns))
        if columns is None:
            check_table(table)
        frame: pd.DataFrame = table.to_pandas()
    except Exception as error:  # pandas and Arrow raise what their parsers meet; damage as an OSError without a number
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"not a readable Parquet file: {' '.join(str(error).split())[:200]}") from error
    return frame
