"""Read csv files of users: detect separator and encoding, keep every cell as text."""

from __future__ import annotations

import codecs
import csv
import io
import logging
import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import IngestError
from vmnet_pipeline.storage.checksummed import read_document
from vmnet_pipeline.storage.names import normalise
from vmnet_pipeline.storage.paths import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
PATH_COLUMNS = ("video", "audio")
KNOWN_COLUMNS = frozenset({"id", "group", *PATH_COLUMNS})
"""Columns with a meaning, whose names may be written in any case."""

# The longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_HEAD_BYTES = 4096
MAX_TABLE_BYTES = 1 << 30  # a million rows take some 100 MB
_CONTROLS = re.compile("[\0-\x08\x0e-\x1a\x1c-\x1f]")
_EXCEL_LINE = re.compile(r"sep=([,;\t|])\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Dialect:
    encoding: str
    separator: str
    n_before_header: int


def read_csv_rows(path: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a csv file as text, so that an id `007` stays `007`; empty rows are skipped.

    Args:
        path: A file separated by commas, semicolons, tabs or bars, in UTF-8, UTF-16, or a Western 8-bit encoding.

    Raises:
        IngestError: The file is not such text, or a column of `required` is missing.
    """
    return list(iterate_csv_rows(path, required))


def read_ids(path: Path) -> tuple[str, ...]:
    """Ids of a csv file with a column `id`; empty lines are skipped. Errors as in `read_csv_rows`."""
    return tuple(row["id"] for row in read_csv_rows(path, ("id",)) if row["id"])


def read_id_rows(path: Path) -> tuple[list[dict[str, str]], str]:
    """Rows that have an id, and the column that it is from: `id`, or the first one, with a warning, where none is.

    Raises:
        IngestError: The file is no csv file.
    """
    rows = read_csv_rows(path, ())
    name = "id" if not rows or "id" in rows[0] else next(iter(rows[0]), "id")
    if name != "id":
        logger.warning("%s has no column id: its first column, %r, is taken for it", path, name)
        rows = [{**row, "id": row[name]} for row in rows]
    return [row for row in rows if row["id"]], name


def iterate_csv_rows(path: Path, required: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of `read_csv_rows` one by one, for files of a million rows."""
    try:
        content = read_document(path, MAX_TABLE_BYTES)
        dialect = _recognise(content, required)
        _log_dialect(path, dialect)
        lines = io.TextIOWrapper(io.BytesIO(content), dialect.encoding, newline="")
        reader = csv.reader(lines, delimiter=dialect.separator, strict=True)
        header: list[str] = []
        wide: list[int] = []
        for number, cells in enumerate(islice(reader, dialect.n_before_header, None)):
            if number == 0:
                header = [_name_column(cell) for cell in cells]
                _check_columns(header, required, path)
            elif any(texts := [cell.strip() for cell in cells]):
                if any(texts[len(header) :]):
                    wide.append(reader.line_num)
                yield _make_row(header, texts)
        _warn_of_wide_rows(path, wide)
        if not header:
            _check_columns(header, required, path)
    except storage_errors(ValueError, csv.Error) as error:
        raise IngestError(f"{path} cannot be read as a csv file: {error}") from error


def _warn_of_wide_rows(path: Path, lines: Sequence[int]) -> None:
    if lines:
        logger.warning(
            "%s: %d rows have more cells than the header; the extra ones are left out, e.g. in line %d. Put cells with "
            'the separator in quotes: "..."',
            path, len(lines), lines[0],
        )  # fmt: skip


def _make_row(header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    """Map columns to cells, normalised except paths, which a disk may have in either form."""
    pairs = zip(header, cells, strict=False)
    row = {name: cell if name in PATH_COLUMNS else normalise(cell) for name, cell in pairs}
    if len(cells) < len(header):
        row = dict.fromkeys(header, "") | row
    row.pop("", None)
    return row


def _name_column(text: str) -> str:
    name = text.strip()
    return name.lower() if name.lower() in KNOWN_COLUMNS else name


def _check_columns(columns: Sequence[str], required: Sequence[str], path: Path) -> None:
    missing = [name for name in required if name not in columns]
    if missing:
        raise IngestError(f"{path} has no column {', '.join(missing)}; its columns are {', '.join(columns) or 'none'}.")
    if doubled := [name for name in columns if name in KNOWN_COLUMNS and columns.count(name) > 1]:
        raise IngestError(f"{path} has more than one column {doubled[0]}. Rename or remove one of them.")


# --- encoding and separator


def _recognise(content: bytes, required: Sequence[str]) -> _Dialect:
    """Detect encoding, separator and header of a csv file; ValueError for a binary file."""
    encoding = _find_encoding(content)
    # An incremental decoder drops a character that is cut in half at the end.
    head = codecs.getincrementaldecoder(encoding)().decode(content[: 64 * _HEAD_BYTES])
    lines = re.split("\r\n|\r|\n", head)
    n_blank = next((number for number, line in enumerate(lines) if line.strip(" \t,;|\"'")), 0)
    # In valid UTF a hostile name below the header costs its own row only; elsewhere it says that this is a binary file.
    checked = "".join(lines[: n_blank + 1]) if encoding.startswith("utf") else head
    if _CONTROLS.search(checked):
        raise ValueError("it is not text; save the table as csv (UTF-8)")
    header = lines[n_blank]
    if match := _EXCEL_LINE.fullmatch(header):  # written by spreadsheets
        return _Dialect(encoding, match[1], n_blank + 1)
    return _Dialect(encoding, _find_separator(header, required), n_blank)


def _find_encoding(content: bytes) -> str:
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            return name
    head = content[:_HEAD_BYTES]
    for name, is_little in (("utf-16-le", True), ("utf-16-be", False)):
        # Without a mark, nearly every other byte of Latin letters in UTF-16 is zero.
        zeros, others = head[is_little::2].count(0), head[not is_little :: 2].count(0)
        if zeros > 0.35 * len(head) and not others:
            return name
    for name in ("utf-8", "cp1252"):
        try:
            content.decode(name)
        except UnicodeDecodeError:
            continue
        return name
    return "latin-1"


def _find_separator(header: str, required: Sequence[str]) -> str:
    """The separator that gives the required columns, else the most frequent one in the header."""

    def judge(separator: str) -> tuple[bool, int]:
        names = {_name_column(cell) for cell in next(csv.reader([header], delimiter=separator), [])}
        return names.issuperset(required), header.count(separator)

    return max(SEPARATORS, key=judge)


def _log_dialect(path: Path, dialect: _Dialect) -> None:
    if dialect.separator in ",\t" and dialect.encoding in ("utf-8", "utf-8-sig") and not dialect.n_before_header:
        return
    separator = SEPARATORS.get(dialect.separator, repr(dialect.separator))
    advice = "; if letters come out wrong, save it as UTF-8" if dialect.encoding in ("cp1252", "latin-1") else ""
    begin = f", from line {dialect.n_before_header + 1} on" if dialect.n_before_header else ""
    logger.info("%s is read as %s text, separated by %s%s%s", path, dialect.encoding, separator, begin, advice)
