"""Append-only table in a folder: many writers without a lock; a kill costs at most an unfinished line.

    FOLDER/rows-*.jsonl    one line per row with its checksum, one file per writer
    FOLDER/rows.parquet    the rows of past writers once compacted, with one checksum

An append is one write of whole lines to a file of that writer alone, so no lock is needed, and a kill or a full disk
can only cut the last line: readers skip a line without its end or with a wrong checksum, and later lines still count.

An object store cannot append: there a writer rewrites a file `rows-WRITER_PART.jsonl` at each addition, and begins
another after some hundred rows.

Rows are read as Arrow columns: a million index rows take a second and 0.3 GB, as Python objects ten times that.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
import uuid
import zlib
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import VmnetError
from vmnet_pipeline.storage.atomic import replace_atomically
from vmnet_pipeline.storage.checksummed import check_table, check_table_size, parse_json, write_table
from vmnet_pipeline.storage.paths import as_path, explain_access, is_remote, list_files, read_files
from vmnet_pipeline.storage.weak_disks import flush

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import pyarrow as pa

_BLOCK_BYTES = 8 << 20
_ATTEMPTS = 5
_PART_ROWS = 200
_CHECKSUM_LENGTH = len(',"_crc":"01234567"}\n')


class RowLog:
    """An append-only table. Cheap to make; an absent folder reads as an empty table."""

    def __init__(self, folder: str | Path, columns: Mapping[str, str], *, writer: str | None = None) -> None:
        """Describe the table.

        Args:
            columns: Column to Arrow type: `string`, `int64`, `double` or `list<int64>`. A column that a stored row
                lacks is null; one that is not named here is skipped.
            writer: Name of the rows of this handle, to read only those later; unique by default.
        """
        self.folder = as_path(folder)
        self._columns = dict(columns)
        self._writer = writer or f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._own_path = self.folder / f"rows-{self._writer}.jsonl"
        self._part_path, self._part_text, self._part_rows = self._own_path, "", _PART_ROWS

    def append(self, rows: Iterable[Mapping[str, Any]], *, sync: bool = True) -> None:
        """Add rows; on return they survive a kill, and a loss of power too unless `sync` is False.

        Raises:
            OSError: The folder cannot be written.
        """
        lines = [_add_line_checksum(json.dumps(row, ensure_ascii=False)) for row in rows]
        if not lines:
            return
        if is_remote(self.folder):
            self._append_remote(lines)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._own_path.open("a", encoding="utf-8") as file:
            if not _ends_a_line(self._own_path):  # a writer of this name was killed, or its disk was full
                file.write("\n")
            file.writelines(lines)
            file.flush()
            if sync:
                flush(file.fileno())

    def _append_remote(self, lines: list[str]) -> None:
        if self._part_rows >= _PART_ROWS:
            part = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
            self._part_path = self.folder / f"rows-{self._writer}_{part}.jsonl"
            self._part_text, self._part_rows = "", 0
        self._part_text += "".join(lines)
        self._part_rows += len(lines)
        self._part_path.write_text(self._part_text, encoding="utf-8")

    def sync(self) -> None:
        """Make the rows of this handle survive a loss of power.

        Raises:
            OSError: It cannot be written.
        """
        if not is_remote(self.folder) and self._own_path.exists():
            with self._own_path.open("rb") as file:
                flush(file.fileno())

    def read_own(self) -> pa.Table:
        """Rows of this handle's writer, oldest first."""
        if is_remote(self.folder):
            return self._read_all(self._list_files(f"{self._own_path.stem}_*.jsonl"))
        return self._read_file(self._own_path) if self._own_path.exists() else self.schema().empty_table()

    def read(self) -> pa.Table:
        """All rows, oldest first.

        Raises:
            VmnetError: A file is damaged beyond its last line.
            StorageError: The object store does not answer.
        """
        with explain_access(self.folder):
            for _ in range(_ATTEMPTS - 1):
                with contextlib.suppress(FileNotFoundError):  # another process has just compacted: look again
                    return self._read_all(self._list_files())
            return self._read_all(self._list_files())

    def _read_all(self, paths: list[Path]) -> pa.Table:
        import pyarrow as pa

        contents = read_files(paths) if is_remote(self.folder) else [None] * len(paths)
        tables = [self._read_file(path, content) for path, content in zip(paths, contents, strict=True)]
        if len(tables) == 1:
            return tables[0]  # not copied: compacted rows may be a million
        return pa.concat_tables([self.schema().empty_table(), *tables]).combine_chunks()

    def compact(self, table: pa.Table) -> None:
        """Replace all rows by `table`; safe only while no writer appends."""
        old = self._find_lines()
        with replace_atomically(self.folder / "rows.parquet", durable=True) as temporary:
            write_table(table, temporary)
        for path in old:
            path.unlink(missing_ok=True)

    def is_compact(self) -> bool:
        """Whether no writer has left lines since the last compaction."""
        return not self._find_lines()

    def schema(self) -> pa.Schema:
        """The columns as an Arrow schema."""
        import pyarrow as pa

        lists = {"list<int64>": pa.list_(pa.int64())}
        return pa.schema([(name, lists.get(kind) or kind) for name, kind in self._columns.items()])

    def _find_lines(self) -> list[Path]:
        """Files of writers since the last compaction, unordered."""
        if is_remote(self.folder):
            return self._list_files("rows-*.jsonl")
        return list(self.folder.glob("rows-*.jsonl"))

    def _list_files(self, pattern: str = "rows*") -> list[Path]:
        """All files, oldest first; in an object store only those that match `pattern`."""
        compacted = self.folder / "rows.parquet"
        if is_remote(self.folder):
            listing = list_files(self.folder)
            names = [name for name in listing if fnmatch(name, pattern) and name.endswith((".jsonl", ".parquet"))]
            names.sort(key=lambda name: (name != compacted.name, listing[name].modified_s, name.rpartition("_")[2]))
            return [self.folder / name for name in names]
        lines = sorted(self._find_lines(), key=lambda path: (path.stat().st_mtime_ns, path.name))
        return [compacted, *lines] if compacted.exists() else lines

    def _read_file(self, path: Path, content: bytes | None = None) -> pa.Table:
        """Read one file, or its content where it has been read."""
        import pyarrow as pa

        try:
            if path.suffix == ".jsonl":
                table = self._read_lines(path.read_bytes() if content is None else content)
            else:
                n_bytes = path.stat().st_size if content is None else len(content)
                table = self._read_parquet(path if content is None else io.BytesIO(content), n_bytes)
        except (pa.ArrowException, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk; damage in a Parquet file is an OSError without errno
            raise VmnetError(
                f"{path} is damaged ({error}). Remove it and run again: its items are processed again."
            ) from error
        return table

    def _read_parquet(self, source: Any, n_bytes: int) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        check_table_size(pq.read_metadata(source), n_bytes)
        table = pq.read_table(source)
        table.validate(full=True)  # also that what says it is text is text
        check_table(table)
        nulls = {field.name: pa.nulls(len(table), field.type) for field in self.schema()}
        known = {name: table[name] for name in nulls if name in table.column_names}
        return pa.table({**nulls, **known}).cast(self.schema())

    def _read_lines(self, content: bytes) -> pa.Table:
        """Parse whole lines: one cut by a kill has no end, one cut by a full disk is followed by the next.

        A damaged line is skipped: its item is processed again.
        """
        import pyarrow as pa

        lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
        whole = b"".join(line for line in lines if _is_whole_line(line))
        try:
            return self._parse_lines(whole)
        except pa.ArrowInvalid:
            return self._parse_lines(b"".join(line for line in whole.splitlines(keepends=True) if _is_object(line)))

    def _parse_lines(self, content: bytes) -> pa.Table:
        import pyarrow as pa
        from pyarrow import json as arrow_json

        schema = self.schema()
        if not content:
            return schema.empty_table()
        return arrow_json.read_json(
            pa.BufferReader(content),
            read_options=arrow_json.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return True
        file.seek(size - 1)
        return file.read(1) == b"\n"


def _add_line_checksum(text: str) -> str:
    """A JSON object as a line that ends with a checksum of the rest."""
    text = text[:-1]
    return f'{text},"_crc":"{zlib.crc32(text.encode()):08x}"}}\n'


def _is_whole_line(line: bytes) -> bool:
    """Whether a line matches its checksum; one of an older version has none and is accepted."""
    text, end = line[:-_CHECKSUM_LENGTH], line[-_CHECKSUM_LENGTH:]
    return not end.startswith(b',"_crc":"') or end[9:17] == b"%08x" % zlib.crc32(text)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(parse_json(line), dict)
    except ValueError:
        return False
