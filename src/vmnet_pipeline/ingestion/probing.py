"""Probe many files in parallel; cache results by path, size and modification time."""

from __future__ import annotations

import logging
import os
import time
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.cores import count_cores
from vmnet_pipeline.errors import MediaError, SandboxError
from vmnet_pipeline.media.sandbox import SANDBOX_REASONS, Sandbox
from vmnet_pipeline.prefetch import map_ahead
from vmnet_pipeline.progress import track
from vmnet_pipeline.storage.paths import find_files, is_remote, number_version
from vmnet_pipeline.storage.row_log import RowLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa

    from vmnet_pipeline.params import LimitParams
    from vmnet_pipeline.storage.paths import StoredFile
    from vmnet_pipeline.types import MediaInfo

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
    "video_warning": "string",
    "audio_codec": "string",
    "audio_duration_s": "double",
    "sample_rate_hz": "int64",
    "channels": "int64",
    "audio_warning": "string",
}
"""Results of a file: `reason` and `error` if it cannot be used, else the rest; null for a missing side."""

CACHE_VERSION = "3"  # raise it when probing gives other results for the same file
_NOT_KEPT = frozenset({"internal_error", "missing_file", "not_a_file", "unreadable", *SANDBOX_REASONS})
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
        probe: `media.probe.probe_in_sandbox` of some sandbox, or `media.probe.probe_media`.
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
    """Content checksum of every file, read only if it has changed; empty for one that cannot be read."""
    from vmnet_pipeline.media.probe import checksum_file

    log = None if cache_dir is None else RowLog(cache_dir / "checksums", CHECKSUM_COLUMNS)

    def measure(path: str) -> dict[str, Any]:
        return {"checksum": checksum_file(path)}

    rows = _measure_files(paths, measure, CHECKSUM_COLUMNS, log, "checksums", n_workers)
    return dict(zip(rows["path"], rows["checksum"].fillna(""), strict=True))


def recognise_files(
    paths: Sequence[str],
    *,
    limits: LimitParams | None = None,
    cache_dir: Path | None = None,
    n_workers: int | None = None,
) -> set[str]:
    """Those of some files that FFmpeg can decode, judged by content; each is read in a child process."""
    from vmnet_pipeline.media.probe import probe_media
    from vmnet_pipeline.params import LimitParams

    log = None if cache_dir is None else RowLog(cache_dir / "recognised", CHECKSUM_COLUMNS)
    with Sandbox(limits or LimitParams.model_validate({})) as sandbox:

        def measure(path: str) -> dict[str, Any]:
            sandbox.call(probe_media, path, checksum="none")  # do not read large other files whole
            return {}

        rows = _measure_files(paths, measure, CHECKSUM_COLUMNS, log, "recognising files", n_workers)
    return set(rows.loc[rows["reason"].isna(), "path"])


def _describe_media(info: MediaInfo) -> dict[str, Any]:
    row: dict[str, Any] = {"checksum": info.checksum, "container": info.container}
    for side, found in (("video", info.video), ("audio", info.audio)):
        if found is not None:
            row |= {f"{side}_codec": found.codec, f"{side}_duration_s": found.duration_s or info.duration_s}
            row |= {f"{side}_warning": found.warning}
    if info.video is not None:
        row |= {name: getattr(info.video, name) for name in ("width", "height", "frame_rate_hz")}
    if info.audio is not None:
        row |= {name: getattr(info.audio, name) for name in ("sample_rate_hz", "channels")}
    return row


def _measure_files(
    paths: Sequence[str],
    measure: Measure,
    columns: dict[str, str],
    log: RowLog | None,
    label: str,
    n_workers: int | None,
) -> pd.DataFrame:
    import pyarrow as pa

    wanted = _list_keys(paths)
    found, missing = _look_up(wanted, columns, log)
    tables = [found]
    with track(label, len(missing)) as bar:
        for rows in _measure_chunks(_iterate_keys(missing), measure, n_workers or count_cores(), bar.advance):
            tables.append(pa.Table.from_pylist(rows, schema=found.schema))
            if log is not None:
                log.append(row for row in rows if row.get("reason") not in _NOT_KEPT and row["mtime_ns"] >= 0)
    if log is not None and len(missing):
        # A row that another process adds meanwhile may be lost, and is then made again.
        log.compact(_keep_latest(log.read()))
    frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return frame


def _list_keys(paths: Sequence[str]) -> pa.Table:
    """Path, size and time of each file, to look up stored results; a missing file has the time -1."""
    import numpy as np
    import pyarrow as pa

    remote = find_files([path for path in paths if is_remote(path)])
    stats = (_stat_remote(remote.get(path)) if is_remote(path) else _stat(path) for path in paths)
    found = np.fromiter(stats, np.dtype((np.int64, 2)), len(paths))
    columns = [pa.array(paths, pa.string()), pa.array(found[:, 0]), pa.array(found[:, 1])]
    return pa.table(columns, names=["path", "size_bytes", "mtime_ns"])


def name_version() -> str:
    """Version of the results; another FFmpeg may read what this one cannot."""
    return f"{CACHE_VERSION}-av{version('av')}"


def _stat(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - a million of them: a Path object takes longer than the call
    except (OSError, ValueError):
        return 0, -1
    return found.st_size, found.st_mtime_ns


def _stat_remote(found: StoredFile | None) -> tuple[int, int]:
    """Size and, instead of the modification time, a number that differs for every content."""
    return (0, -1) if found is None else (found.size_bytes, number_version(found))


def _look_up(wanted: pa.Table, columns: dict[str, str], log: RowLog | None) -> tuple[pa.Table, pa.Table]:
    import pyarrow.compute as pc

    known = RowLog("", columns).schema().empty_table() if log is None else _keep_latest(log.read())
    places = pc.index_in(wanted["path"], value_set=known["path"].combine_chunks())
    is_known = pc.equal(known["version"].take(places), name_version())
    for name in ("size_bytes", "mtime_ns"):
        is_known = pc.and_(is_known, pc.equal(known[name].take(places), wanted[name]))
    is_known = is_known.fill_null(False)
    return known.take(places.filter(is_known)), wanted.filter(pc.invert(is_known))


def _iterate_keys(wanted: pa.Table) -> Iterator[dict[str, Any]]:
    version_now = name_version()  # once: it reads the metadata of a package
    for batch in wanted.to_batches(max_chunksize=_FLUSH_ROWS):
        for key in batch.to_pylist():
            yield key | {"version": version_now}


def _measure_chunks(
    keys: Iterable[dict[str, Any]], measure: Measure, n_workers: int, advance: Callable[[], None]
) -> Iterator[list[dict[str, Any]]]:
    """Yield finished rows often enough that a kill costs little."""
    chunk: list[dict[str, Any]] = []
    last = time.monotonic()
    for row in map_ahead(partial(_measure_one, measure), keys, n_threads=n_workers, n_in_flight=8 * n_workers):
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
    except SandboxError:
        raise
    except Exception as error:
        logger.exception("Unexpected failure of probing %s", key["path"])
        return key | {"reason": "internal_error", "error": f"{type(error).__name__}: {error}"}


def _keep_latest(table: pa.Table) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pc.count_distinct(table["path"]).as_py() == len(table):
        return table
    repeated = table["path"].to_pandas().duplicated(keep="last")
    return table.filter(pa.array(~repeated.to_numpy()))
