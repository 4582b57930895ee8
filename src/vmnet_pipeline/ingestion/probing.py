"""Measure many files in parallel, and none twice: what was found is kept by path, size and time of change."""

from __future__ import annotations

import logging
import os
import time
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.ahead import map_ahead
from vmnet_pipeline.console import track
from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.storage.paths import describe_files, is_remote, number_version
from vmnet_pipeline.storage.row_log import RowLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa

    from vmnet_pipeline.records import MediaInfo
    from vmnet_pipeline.storage.paths import StoredFile

    Measure = Callable[[str], dict[str, Any]]

logger = logging.getLogger(__name__)

_KEY = {"path": "string", "size_bytes": "int64", "mtime_ns": "int64", "version": "string"}
_FAILURE = {"reason": "string", "error": "string"}
CHECKSUM_COLUMNS = {**_KEY, **_FAILURE, "checksum": "string"}
PROBE_COLUMNS = {
    **CHECKSUM_COLUMNS,
    "container": "string",
    "video_codec": "string",
    "video_duration_s": "double",
    "width": "int64",
    "height": "int64",
    "frame_rate_hz": "double",
    "audio_codec": "string",
    "audio_duration_s": "double",
    "sample_rate_hz": "int64",
    "channels": "int64",
}
"""What is known of a file: `reason` and `error` if it cannot be used, else the rest; null for a side it has not."""

CACHE_VERSION = "1"
"""To be raised when probing finds something else in the same file."""

_NOT_KEPT = frozenset({"internal_error", "missing_file", "not_a_file", "unreadable"})
_FLUSH_ROWS = 1000
_FLUSH_S = 2.0


def probe_files(
    paths: Sequence[str],
    probe: Callable[[str], MediaInfo],
    *,
    cache_dir: Path | None = None,
    n_workers: int | None = None,
) -> pd.DataFrame:
    """Probe every file that has changed since it was probed last.

    Args:
        paths: Absolute paths, each once.
        probe: `media.probe.probe_media`.
        cache_dir: Where results are kept between runs; None to keep none.
        n_workers: Files probed at the same time; all cores by default.

    Returns:
        Columns of `PROBE_COLUMNS`, one row per path in any order; `reason` is null for a file that can be used.
    """

    def measure(path: str) -> dict[str, Any]:
        return _describe_media(probe(path))

    log = None if cache_dir is None else RowLog(cache_dir / "probes", PROBE_COLUMNS)
    return _measure_files(paths, measure, PROBE_COLUMNS, log, "probing files", n_workers)


def checksum_files(
    paths: Sequence[str], *, cache_dir: Path | None = None, n_workers: int | None = None
) -> dict[str, str]:
    """Content checksum of every file, read only if it has changed since; empty for one that cannot be read."""
    from vmnet_pipeline.media.probe import checksum_file

    log = None if cache_dir is None else RowLog(cache_dir / "checksums", CHECKSUM_COLUMNS)

    def measure(path: str) -> dict[str, Any]:
        return {"checksum": checksum_file(path)}

    rows = _measure_files(paths, measure, CHECKSUM_COLUMNS, log, "checksums", n_workers)
    return dict(zip(rows["path"], rows["checksum"].fillna(""), strict=True))


def _describe_media(info: MediaInfo) -> dict[str, Any]:
    row: dict[str, Any] = {"checksum": info.checksum, "container": info.container}
    if info.video is not None:
        picture = info.video
        row |= {"video_codec": picture.codec, "video_duration_s": picture.duration_s or info.duration_s}
        row |= {"width": picture.width, "height": picture.height, "frame_rate_hz": picture.frame_rate_hz}
    if info.audio is not None:
        sound = info.audio
        row |= {"audio_codec": sound.codec, "audio_duration_s": sound.duration_s or info.duration_s}
        row |= {"sample_rate_hz": sound.sample_rate_hz, "channels": sound.channels}
    return row


def _measure_files(
    paths: Sequence[str],
    measure: Measure,
    columns: dict[str, str],
    log: RowLog | None,
    label: str,
    n_workers: int | None,
) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    wanted = _list_keys(paths)
    found = _look_up(wanted, columns, log)
    missing = wanted[~wanted["path"].isin(found["path"])]
    tables = [_empty_table(columns)]
    with track(label, len(missing)) as bar:
        for rows in _measure_chunks(_iterate_keys(missing), measure, n_workers or os.cpu_count() or 1, bar.advance):
            tables.append(pa.Table.from_pylist(rows, schema=tables[0].schema))
            if log is not None:
                log.append(row for row in rows if row.get("reason") not in _NOT_KEPT and row["mtime_ns"] >= 0)
    if log is not None and len(missing):
        _compact(log)
    measured: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return pd.concat([found, measured], ignore_index=True)


def _empty_table(columns: dict[str, str]) -> pa.Table:
    return RowLog("", columns).schema().empty_table()


def _list_keys(paths: Sequence[str]) -> pd.DataFrame:
    """What a stored result has to agree with to be taken for a file; a file that is not there has the time -1."""
    import pandas as pd

    remote = describe_files([path for path in paths if is_remote(path)])
    stats = [_stat_remote(remote.get(path)) if is_remote(path) else _stat(path) for path in paths]
    frame = pd.DataFrame(stats, columns=["size_bytes", "mtime_ns"], dtype="int64")
    frame.insert(0, "path", pd.Series(list(paths), dtype="str"))
    return frame.assign(version=name_version()).astype({"version": "str"})


def name_version() -> str:
    """What results have to be made with to be taken; another FFmpeg may read what this one cannot."""
    return f"{CACHE_VERSION}-av{version('av')}"


def _stat(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - a million of them: a Path object takes longer than the call
    except (OSError, ValueError):
        return 0, -1
    return found.st_size, found.st_mtime_ns


def _stat_remote(found: StoredFile | None) -> tuple[int, int]:
    """Size and, in the place of the time of change, what tells one content of an object from another."""
    return (0, -1) if found is None else (found.size_bytes, number_version(found))


def _look_up(wanted: pd.DataFrame, columns: dict[str, str], log: RowLog | None) -> pd.DataFrame:
    """What is known already of the wanted files."""
    table = _empty_table(columns) if log is None else log.read()
    known = table.to_pandas().drop_duplicates(list(_KEY), keep="last")
    found: pd.DataFrame = known.merge(wanted, on=list(_KEY))
    return found


def _iterate_keys(wanted: pd.DataFrame) -> Iterator[dict[str, Any]]:
    names = list(wanted.columns)
    for values in wanted.itertuples(index=False, name=None):
        yield dict(zip(names, values, strict=True))


def _measure_chunks(
    keys: Iterable[dict[str, Any]], measure: Measure, n_workers: int, advance: Callable[[], None]
) -> Iterator[list[dict[str, Any]]]:
    """Rows as they are finished, often enough that a kill costs little."""
    chunk: list[dict[str, Any]] = []
    last = time.monotonic()
    measure_one = partial(_measure_one, measure)
    for row in map_ahead(measure_one, keys, n_threads=n_workers, n_in_flight=8 * n_workers):
        chunk.append(row)
        advance()
        if len(chunk) >= _FLUSH_ROWS or time.monotonic() - last >= _FLUSH_S:
            yield chunk
            chunk, last = [], time.monotonic()
    if chunk:
        yield chunk


def _measure_one(measure: Measure, key: dict[str, Any]) -> dict[str, Any]:
    try:
        return key | measure(key["path"])
    except MediaError as error:
        return key | {"reason": error.reason, "error": str(error)}
    except Exception as error:
        logger.exception("Probing %s failed in a way that was not foreseen", key["path"])
        return key | {"reason": "internal_error", "error": f"{type(error).__name__}: {error}"}


def _compact(log: RowLog) -> None:
    """Keep the latest row of every file. A row that another process adds meanwhile may be lost, and is made again."""
    import pyarrow as pa

    table = log.read()
    repeated = table.select(["path"]).to_pandas()["path"].duplicated(keep="last")
    log.compact(table.filter(pa.array(~repeated.to_numpy())))
