"""Parsers for files that may be damaged: whatever is in them, they raise nothing but ValueError, and OSError."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd


def parse_json(text: str | bytes) -> Any:
    """The content of a JSON text.

    Raises:
        ValueError: It is none, or is nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deep") from error


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
            table = pq.read_table(file, columns=None if columns is None else list(columns))
        if columns is None:
            check_table(table)
        frame: pd.DataFrame = table.to_pandas()
    except Exception as error:  # pandas and Arrow raise what their parsers meet; damage as an OSError without a number
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"not a readable Parquet file: {' '.join(str(error).split())[:200]}") from error
    return frame
