"""JSON and Parquet files that tell whether they are whole: each carries a digest of what it says.

A file of an older version has none and is taken as it is. For large arrays, which no digest fits into, the JSON file
beside them holds the sha256 of each, see `describe_files`.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.storage.parsing import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import pyarrow as pa

SEAL = "checksum"
TABLE_SEAL = b"vmnet_checksum"


def seal_json(content: Mapping[str, Any], *, indent: int | None = None) -> str:
    """A JSON object as text, with its digest under the name `checksum`."""
    return json.dumps({**content, SEAL: _digest(content)}, indent=indent, sort_keys=True) + "\n"


def parse_sealed(text: str | bytes) -> dict[str, Any]:
    """Inverse of `seal_json`.

    Raises:
        ValueError: It is no JSON object, or does not say what it said when it was written.
    """
    content = parse_json(text)
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    seal = content.pop(SEAL, None)
    if seal is not None and seal != _digest(content):
        raise ValueError("its content does not fit its checksum")
    return content


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# --- files beside


def hash_file(path: Path) -> str:
    """Hex sha256 of the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Name to sha256 of some files of a folder."""
    return {name: hash_file(folder / name) for name in names}


def check_files(folder: Path, expected: Mapping[str, str]) -> None:
    """Compare files of a folder with what `describe_files` said of them.

    Raises:
        OSError: One is missing or cannot be read.
        ValueError: One has other bytes; the message names it.
    """
    for name, checksum in expected.items():
        if hash_file(folder / name) != checksum:
            raise ValueError(f"{name} does not fit its checksum")


# --- tables


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file with the digest of its values."""
    import pyarrow.parquet as pq

    metadata = {**(table.schema.metadata or {}), TABLE_SEAL: digest_table(table).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")


def check_table(table: pa.Table) -> None:
    """Compare a table with the digest that `write_table` gave it.

    Raises:
        ValueError: It has other values.
    """
    seal = (table.schema.metadata or {}).get(TABLE_SEAL)
    if seal is not None and seal.decode("ascii", "replace") != digest_table(table):
        raise ValueError("its values do not fit its checksum")


def digest_table(table: pa.Table) -> str:
    """Hex sha256 over names, types and values, however they are divided into chunks."""
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
    """What is null, then the values, of texts and lists after their lengths."""
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
