"""Read and write JSON and Parquet files that carry a checksum of their content, and bound what reading one can cost.

A file of an older version has no checksum and is accepted as it is. Large arrays, which cannot hold one, have their
sha256 in the JSON file next to them, see `describe_files`. Whatever is in a file, nothing but ValueError and OSError
is raised.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

CHECKSUM = "checksum"
TABLE_CHECKSUM = b"vmnet_checksum"

MAX_DOCUMENT_BYTES = 16 << 20  # for files that describe others: the largest real ones have some kilobytes
_FREE_ROWS, _ROWS_PER_BYTE = 1 << 16, 8
_FREE_BYTES, _MOST_PACKED = 64 << 20, 100
_PIECE_BYTES = 1 << 20


def parse_json(text: str | bytes) -> Any:
    """The content of a JSON text, in time and memory that grow with the text.

    Raises:
        ValueError: It is not JSON, is nested too deep, has a number of thousands of digits, or repeats a name in an
            object.
    """
    try:
        return json.loads(text, object_pairs_hook=_refuse_duplicates)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deep") from error


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse repeated names, of which readers choose different ones."""
    content = dict(pairs)
    if len(content) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"its JSON has {twice[:100]!r} twice in one object")
    return content


def read_document(path: Path, most_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
    """Read a small file whole.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: It is larger than any of its kind.
    """
    content = bytearray()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):  # memory grows with what is read, not with what a header declares
            content += piece
            if len(content) > most_bytes:
                raise ValueError(f"it is larger than {most_bytes} bytes, which no such file is")
    return bytes(content)


def add_checksum(content: Mapping[str, Any], *, indent: int | None = None) -> str:
    """A JSON object as text, with its digest under the name `checksum`."""
    return json.dumps({**content, CHECKSUM: _digest(content)}, indent=indent, sort_keys=True) + "\n"


def parse_checksummed(text: str | bytes) -> dict[str, Any]:
    """Inverse of `add_checksum`.

    Raises:
        ValueError: It is not a JSON object, or its content has changed since it was written.
    """
    content = parse_json(text)
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    stored = content.pop(CHECKSUM, None)
    if stored is not None and stored != _digest(content):
        raise ValueError("its content does not match its checksum")
    return content


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """Hex sha256 of the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Name to sha256 of some files of a folder."""
    return {name: hash_file(folder / name) for name in names}


def check_files(folder: Path, expected: Mapping[str, str]) -> None:
    """Compare files of a folder with what `describe_files` returned for them.

    Raises:
        OSError: One is missing or cannot be read.
        ValueError: One has other bytes; the message names it.
    """
    for name, checksum in expected.items():
        if hash_file(folder / name) != checksum:
            raise ValueError(f"{name} does not match its checksum")


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file with the digest of its values."""
    import pyarrow.parquet as pq

    metadata = {**(table.schema.metadata or {}), TABLE_CHECKSUM: digest_table(table).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")


def check_table(table: pa.Table) -> None:
    """Compare a table with the digest that `write_table` gave it.

    Raises:
        ValueError: It has other values.
    """
    stored = (table.schema.metadata or {}).get(TABLE_CHECKSUM)
    if stored is not None and stored.decode("ascii", "replace") != digest_table(table):
        raise ValueError("its values do not match its checksum")


def digest_table(table: pa.Table) -> str:
    """Hex sha256 over names, types and values, however they are divided into chunks.

    The page checksums of Parquet do not replace it: they would be a second scheme, as stored tables carry this digest,
    and they do not notice a page, a row group or a column that is missing whole.
    """
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        parts = [hashlib.sha256() for _ in range(3)]
        for chunk in column.chunks:
            for part, values in zip(parts, _list_buffers(chunk), strict=False):
                part.update(values)
        own = "".join(part.hexdigest() for part in parts)
        kind = str(column.type).partition("<")[0]  # Parquet has a name of its own for what a list consists of
        digest.update(f"{name} {kind} {len(column)} {own}\n".encode())
    return digest.hexdigest()


def _list_buffers(chunk: pa.Array) -> list[Any]:
    """The null mask, then the values; for texts and lists their lengths come before the values."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    nulls = chunk.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_list(chunk.type):
        lengths = pc.list_value_length(chunk).fill_null(0).to_numpy(zero_copy_only=False)
        return [nulls, np.ascontiguousarray(lengths), np.ascontiguousarray(chunk.flatten().to_numpy())]
    if pa.types.is_string(chunk.type) or pa.types.is_large_string(chunk.type):
        texts = chunk.fill_null("").cast(pa.large_binary())
        _, offsets, values = texts.buffers()
        places = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
        content = memoryview(values or b"")[places[0] : places[-1]] if len(texts) else b""
        return [nulls, np.diff(places), content]
    zero = pa.scalar(0).cast(chunk.type)
    return [nulls, np.ascontiguousarray(chunk.fill_null(zero).to_numpy(zero_copy_only=False))]


def check_table_size(metadata: pq.FileMetaData, n_bytes: int) -> None:
    """Refuse, with a ValueError, a Parquet file that unpacks to far more than any table with named rows."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if metadata.num_rows > _FREE_ROWS + _ROWS_PER_BYTE * n_bytes:
        raise ValueError(f"it declares {metadata.num_rows} rows in {n_bytes} bytes")
    if sum(group.total_byte_size for group in groups) > _FREE_BYTES + _MOST_PACKED * n_bytes:
        raise ValueError(f"it unpacks to more than {_MOST_PACKED} times its size")


def read_frame(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a Parquet file, or some columns of it; a whole one is compared with its checksum.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: It is damaged.
    """
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            check_table_size(pq.read_metadata(file), file.seek(0, os.SEEK_END))
            file.seek(0)
            table = pq.read_table(file, columns=None if columns is None else list(columns))
        if columns is None:
            check_table(table)
        frame: pd.DataFrame = table.to_pandas()
    except Exception as error:  # Arrow raises whatever its parsers meet; damage as an OSError without errno
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"not a readable Parquet file: {' '.join(str(error).split())[:200]}") from error
    return frame
