"""From a media folder to a manifest: find the items, probe every file, mark what cannot be used."""

from __future__ import annotations

import csv
import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import IngestError, MediaError
from vmnet_pipeline.naming import is_safe_id, make_unique_ids
from vmnet_pipeline.schemas import MANIFEST_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import pandas as pd

    from vmnet_pipeline.records import MediaInfo, StreamInfo

logger = logging.getLogger(__name__)

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts",
    ".mts", ".wmv", ".flv", ".3gp", ".ogv", ".vob", ".mxf", ".asf",
})
AUDIO_SUFFIXES = frozenset({
    ".mp3", ".ogg", ".oga", ".opus", ".flac", ".wav", ".m4a", ".aac", ".wma", ".aiff",
    ".aif", ".ac3", ".mka", ".ape", ".wv", ".caf",
})
# fmt: on
MEDIA_CSV = "media.csv"
SPLIT_FILES = ("train.csv", "val.csv", "test.csv")


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One item before probing: a picture and its sound, which may be one file.

    Attributes:
        id: Safe unique id.
        video: Absolute path of the file with the picture; empty when there is none.
        audio: Absolute path of the file with the sound; empty when there is none.
        group: Items of one group never stand on two sides of a split; empty when not known.
        error: Why the item cannot be used, when finding it told so already.
        reason: Slug of `error`.
    """

    id: str
    video: str
    audio: str
    group: str = ""
    reason: str = ""
    error: str = ""


def find_items(media_dir: str | Path) -> list[SourceItem]:
    """Find the items of a media folder in one of three shapes.

    1. A `media.csv` (or the path of one) with columns id, video, audio and perhaps group; paths are relative to it.
    2. Folders `audio/` and `video/` with files of the same relative path, whatever their suffix.
    3. Any other folder: every video with its own sound, searched recursively.

    Raises:
        IngestError: The path is wrong, the folder holds no media, or two items have one id.
    """
    path = Path(media_dir).expanduser().absolute()
    if not path.exists():
        raise IngestError(f"There is no folder {path}.{_remedy(path)}")
    if path.is_file():
        if path.suffix.lower() != ".csv":
            raise IngestError(f"{path} is a file. Pass the folder it is in, or a media.csv: --params media_dir=FOLDER")
        return _read_media_csv(path)
    if (path / MEDIA_CSV).is_file():
        return _read_media_csv(path / MEDIA_CSV)
    has_both = (path / "audio").is_dir() and (path / "video").is_dir()
    items = _match_folders(path) if has_both else _list_videos(path)
    if not items:
        raise IngestError(f"No media files in {path}.{_remedy(path)}")
    return [_check_name(item) for item in items]


def _check_name(item: SourceItem) -> SourceItem:
    """A file name that is no text cannot stand in a table: such an item fails, with its name spelt out."""
    video, audio = _spell_out(item.video), _spell_out(item.audio)
    if (video, audio) == (item.video, item.audio):
        return item
    error = f"the file name {Path(video or audio).name} is not valid UTF-8; rename the file"
    return replace(item, video=video, audio=audio, reason="unsupported_name", error=error)


def _spell_out(path: str) -> str:
    """`path` with undecodable bytes written as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _remedy(path: Path) -> str:
    if path.parts[-3:] == ("data", "01_raw", "demo"):
        return " Make the demo collection with `kedro demo-media`, or use your own with --params media_dir=FOLDER."
    return (
        " Pass a folder with videos, or with audio/ and video/ folders, or with a media.csv (id,video,audio,group): "
        "--params media_dir=FOLDER"
    )


def list_media_files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files below `folder` with one of `suffixes` (any case), sorted; hidden ones and links to folders are left out."""
    wanted = set(suffixes)
    found: list[Path] = []
    for root, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(root, name) for name in files if not name.startswith(".") and Path(name).suffix.lower() in wanted
        ]
    return sorted(found)


def _relative_name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _list_videos(folder: Path) -> list[SourceItem]:
    """Shape 3. Sound files without a picture become rows that say so, and do not vanish."""
    paths = list_media_files(folder, VIDEO_SUFFIXES | AUDIO_SUFFIXES)
    ids = _ids_of_paths(paths, folder)
    return [
        SourceItem(item_id, str(path), str(path))
        if path.suffix.lower() in VIDEO_SUFFIXES
        else SourceItem(item_id, "", str(path), "", "no_video_file", f"{path.name} is sound without a picture")
        for item_id, path in zip(ids, paths, strict=True)
    ]


def _ids_of_paths(paths: Sequence[Path], folder: Path) -> list[str]:
    """One id per file: its relative path without the suffix, or with it where two files differ in nothing else."""
    names = [_relative_name(path, folder) for path in paths]
    counts = Counter(names)
    return make_unique_ids(
        [
            name if counts[name] == 1 else path.relative_to(folder).as_posix()
            for name, path in zip(names, paths, strict=True)
        ]
    )


def _index_by_name(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    index: dict[str, Path] = {}
    for path in list_media_files(folder, suffixes):
        name = _relative_name(path, folder)
        if name in index:
            raise IngestError(
                f"Two files claim the item {name!r}: {index[name]} and {path}. Remove or rename one of them, or name "
                "the pairs yourself in a media.csv (id,video,audio,group)."
            )
        index[name] = path
    return index


def _match_folders(folder: Path) -> list[SourceItem]:
    """Shape 2. A file without a partner becomes a row that says so."""
    sounds = _index_by_name(folder / "audio", AUDIO_SUFFIXES | VIDEO_SUFFIXES)
    pictures = _index_by_name(folder / "video", VIDEO_SUFFIXES)
    names = sorted({*sounds, *pictures})
    items = []
    for item_id, name in zip(make_unique_ids(names), names, strict=True):
        audio, video = str(sounds.get(name, "")), str(pictures.get(name, ""))
        reason = "no_audio_file" if not audio else "no_video_file" if not video else ""
        side = "audio" if not audio else "video"
        error = f"{name!r} has no partner in {side}/" if reason else ""
        items.append(SourceItem(item_id, video, audio, "", reason, error))
    return items


def _read_media_csv(path: Path) -> list[SourceItem]:
    """Shape 1."""
    rows = read_csv_rows(path, ("id", "video"))
    if not rows:
        raise IngestError(f"{path} has no rows. Give one row per item: id,video,audio,group")
    _check_ids([row["id"] for row in rows], path)
    return [_item_of_row(row, path.parent) for row in rows]


def read_csv_rows(path: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a comma or tab separated UTF-8 file as text, so that an id `007` stays `007`.

    Raises:
        IngestError: The file is no such text, or a column of `required` is missing.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter="\t" if "\t" in header else ",", strict=True)
            rows = [{(key or "").strip(): (value or "").strip() for key, value in row.items() if key} for row in reader]
            columns = [(name or "").strip() for name in reader.fieldnames or []]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise IngestError(f"{path} cannot be read as a UTF-8 csv file: {error}") from error
    missing = [name for name in required if name not in columns]
    if missing:
        raise IngestError(f"{path} has no column {', '.join(missing)}; its columns are {', '.join(columns) or 'none'}.")
    return rows


def read_ids(path: Path) -> tuple[str, ...]:
    """Ids of a csv file with a column `id`, comma or tab separated; empty lines are left out.

    Raises:
        IngestError: The file is no csv file or has no column `id`.
    """
    return tuple(row["id"] for row in read_csv_rows(path, ("id",)) if row["id"])


def _check_ids(ids: list[str], path: Path) -> None:
    doubled = sorted(item_id for item_id, count in Counter(name.casefold() for name in ids).items() if count > 1)
    if doubled:
        raise IngestError(
            f"{path} has more than one row with the id {_shorten(doubled)}. Give each item an id of its own."
        )
    unsafe = [item_id for item_id in ids if not is_safe_id(item_id)]
    if unsafe:
        raise IngestError(
            f"{path} has ids that are not safe as file names: {_shorten([repr(item_id) for item_id in unsafe])}. Use 1 "
            "to 120 letters (a-z), digits, '.', '_' and '-', beginning with a letter or digit."
        )


def _shorten(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _item_of_row(row: dict[str, str], folder: Path) -> SourceItem:
    video = str((folder / row["video"]).absolute()) if row["video"] else ""
    audio_name = row.get("audio", "")
    audio = str((folder / audio_name).absolute()) if audio_name else video
    reason = "" if video else "no_video_file"
    return SourceItem(
        row["id"], video, audio, row.get("group", ""), reason, "the video column is empty" if reason else ""
    )


# --- probing


def build_manifest(
    items: Sequence[SourceItem],
    probe: Callable[[str], MediaInfo],
    *,
    n_workers: int | None = None,
    progress: Callable[[], None] | None = None,
) -> pd.DataFrame:
    """Probe every file once and make the manifest: one row per item, usable or not.

    Args:
        items: What `find_items` found.
        probe: `media.probe.probe_media`.
        n_workers: Files probed at the same time; all cores by default.
        progress: Called after each file.

    Returns:
        Table of `schemas.MANIFEST_COLUMNS`; `status` is ok, failed or duplicate.
    """
    import pandas as pd

    paths = sorted({path for item in items for path in (item.video, item.audio) if path and not item.reason})
    probed = _probe_files(paths, probe, n_workers or os.cpu_count() or 1, progress)
    rows = [_manifest_row(item, probed) for item in items]
    _mark_duplicates(rows)
    _assign_groups(rows)
    return pd.DataFrame(rows, columns=list(MANIFEST_COLUMNS)).astype(MANIFEST_COLUMNS)


def _probe_files(
    paths: Sequence[str], probe: Callable[[str], MediaInfo], n_workers: int, progress: Callable[[], None] | None
) -> dict[str, MediaInfo | MediaError]:
    def probe_one(path: str) -> MediaInfo | MediaError:
        try:
            return probe(path)
        except MediaError as error:
            return error
        except Exception as error:
            logger.exception("Probing %s failed in a way that was not foreseen", path)
            return MediaError("internal_error", f"{type(error).__name__}: {error}")

    results: dict[str, MediaInfo | MediaError] = {}
    with ThreadPoolExecutor(n_workers, thread_name_prefix="probe") as pool:
        for path, result in zip(paths, pool.map(probe_one, paths), strict=True):
            results[path] = result
            if progress is not None:
                progress()
    return results


def _manifest_row(item: SourceItem, probed: dict[str, MediaInfo | MediaError]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": item.id,
        "status": "ok",
        "reason": item.reason,
        "error": item.error,
        "duplicate_of": "",
        "group": item.group,
        "video_path": item.video,
        "audio_path": item.audio,
    }
    for side, path in (("video", item.video), ("audio", item.audio)):
        info = probed.get(path)
        if isinstance(info, MediaError):
            if not row["reason"]:
                row["reason"], row["error"] = info.reason, str(info)
        elif info is not None:
            row |= _describe_side(side, info, info.video if side == "video" else info.audio)
            if (info.video if side == "video" else info.audio) is None and not row["reason"]:
                row["reason"] = f"no_{side}_stream"
                row["error"] = f"{Path(path).name} has no {'picture' if side == 'video' else 'sound'}"
    if row["reason"]:
        row["status"] = "failed"
    return row


def _describe_side(side: str, info: MediaInfo, stream: StreamInfo | None) -> dict[str, Any]:
    described: dict[str, Any] = {f"{side}_checksum": info.checksum, f"{side}_container": info.container}
    if stream is None:
        return described
    described |= {f"{side}_codec": stream.codec, f"{side}_duration_s": stream.duration_s or info.duration_s}
    if side == "audio":
        return described | {"sample_rate_hz": stream.sample_rate_hz, "channels": stream.channels}
    return described | {"width": stream.width, "height": stream.height, "frame_rate_hz": stream.frame_rate_hz}


def _mark_duplicates(rows: list[dict[str, Any]]) -> None:
    """An item whose picture and sound are byte for byte those of an earlier usable one is not used again."""
    first: dict[tuple[str, str], str] = {}
    for row in rows:
        if row["status"] != "ok":
            continue
        key = (row["video_checksum"], row["audio_checksum"])
        original = first.setdefault(key, row["id"])
        if original != row["id"]:
            row |= {"status": "duplicate", "duplicate_of": original, "reason": "duplicate"}
            row["error"] = f"same content as {original}"


def _assign_groups(rows: list[dict[str, Any]]) -> None:
    """Give every item a group: the given one, else its id; items that share a file's content share a group.

    A union-find over group names and checksums: a song used in two videos ties their groups together.
    """
    parent: dict[str, str] = {}

    def find_root(node: str) -> str:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    names: dict[str, str] = {}
    for row in rows:
        own = f"group:{row['group']}" if row["group"] else f"item:{row['id']}"
        names[own] = row["group"] or row["id"]
        ties = [f"sum:{row[key]}" for key in ("video_checksum", "audio_checksum") if row.get(key)]
        for tie in ties:
            low, high = sorted((find_root(own), find_root(tie)), key=lambda node: (node.startswith("sum:"), node))
            parent[high] = low
    for row in rows:
        own = f"group:{row['group']}" if row["group"] else f"item:{row['id']}"
        row["group"] = names[find_root(own)]


def check_usable(manifest: pd.DataFrame, media_dir: str | Path) -> None:
    """Refuse a collection of which nothing can be used.

    Raises:
        IngestError: No row is ok; the message tells the commonest reasons.
    """
    if (manifest["status"] == "ok").any():
        return
    reasons = manifest["reason"].value_counts()
    listed = ", ".join(f"{count} x {reason}" for reason, count in reasons.head(3).items())
    example = manifest.iloc[0]
    raise IngestError(
        f"None of the {len(manifest)} items in {media_dir} can be used ({listed}); the first: {example['id']!r}: "
        f"{example['error']}. Videos need sound and picture: give separate files in audio/ and video/ or a media.csv."
    )


def summarise_manifest(manifest: pd.DataFrame) -> dict[str, Any]:
    """Counts for people: items, usable, duplicates, failures by reason, groups and hours of usable sound."""
    usable = manifest[manifest["status"] == "ok"]
    failed = manifest[manifest["status"] == "failed"]
    return {
        "n_items": len(manifest),
        "n_usable": len(usable),
        "n_failed": len(failed),
        "n_duplicates": int((manifest["status"] == "duplicate").sum()),
        "n_groups": int(usable["group"].nunique()),
        "audio_hours": round(float(usable["audio_duration_s"].sum()) / 3600, 4),
        "failures_by_reason": {
            str(key): int(count) for key, count in failed["reason"].value_counts().sort_index().items()
        },
        "failed_items": failed[["id", "reason", "error"]].head(100).to_dict("records"),
    }


# --- bare folders


def list_folder(audio_dir: Path | None, video_dir: Path | None) -> pd.DataFrame:
    """A manifest of the files in bare folders, for extraction without ingestion; nothing is probed or paired.

    Raises:
        IngestError: A folder is not there or holds no media.
    """
    import pandas as pd

    rows: dict[str, dict[str, Any]] = {}
    for side, folder in (("audio", audio_dir), ("video", video_dir)):
        if folder is None:
            continue
        folder = folder.expanduser().absolute()
        if not folder.is_dir():
            raise IngestError(f"There is no folder {folder}. Pass an existing one: --params {side}_dir=FOLDER")
        suffixes = VIDEO_SUFFIXES if side == "video" else AUDIO_SUFFIXES | VIDEO_SUFFIXES
        paths = [path for path in list_media_files(folder, suffixes) if _spell_out(str(path)) == str(path)]
        if not paths:
            raise IngestError(f"No {side} files in {folder}. Known suffixes: {' '.join(sorted(suffixes))}")
        for item_id, path in zip(_ids_of_paths(paths, folder), paths, strict=True):
            row = rows.setdefault(item_id, {"id": item_id, "status": "ok", "group": item_id})
            row |= {f"{side}_path": str(path), f"{side}_checksum": ""}
    table = pd.DataFrame(list(rows.values()), columns=list(MANIFEST_COLUMNS))
    texts = [name for name, dtype in MANIFEST_COLUMNS.items() if dtype == "str"]
    table[texts] = table[texts].fillna("")
    return table.astype(MANIFEST_COLUMNS)
