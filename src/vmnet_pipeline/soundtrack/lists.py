"""Lists of tracks for tables (csv) and players (m3u)."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.storage.atomic import write_text_atomically

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

FORMATS = (".csv", ".m3u", ".m3u8")


def write_list(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a list of tracks in the order given, in the format of the suffix.

    Args:
        path: A .csv, .m3u or .m3u8 file.
        rows: Of each track any columns; players use `path`, which may be missing, and `title`, `artist`, `duration_s`
            and `start_s`, from which VLC plays.

    Raises:
        ParameterError: Another suffix.
        StorageError, OSError: The file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ParameterError(f"{path}: give the list one of the suffixes {', '.join(FORMATS)}")
    write_text_atomically(Path(path), _format_csv(rows) if suffix == ".csv" else _format_m3u(rows))


def _format_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _format_m3u(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["#EXTM3U"]
    for row in rows:
        if not row.get("path"):
            continue
        title = " - ".join(filter(None, (_read_text(row, "artist"), _read_text(row, "title") or _read_text(row, "id"))))
        seconds = _read_number(row, "duration_s")
        lines.append(f"#EXTINF:{-1 if seconds is None else round(seconds)},{title}")
        if start_s := _read_number(row, "start_s"):
            lines.append(f"#EXTVLCOPT:start-time={start_s:g}")
        place = _read_text(row, "path")
        lines.append(f"./{place}" if place.startswith("#") else place)
    return "\n".join(lines) + "\n"


def _read_text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None or value != value else " ".join(str(value).split())


def _read_number(row: Mapping[str, Any], name: str) -> float | None:
    try:
        number = float(row.get(name) or "nan")
    except (TypeError, ValueError):
        return None
    return number if 0 <= number < 1e9 else None
