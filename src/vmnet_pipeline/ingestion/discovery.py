"""Find the items of a media folder, in one of its shapes, or the files of a bare one."""

from __future__ import annotations

import csv
import logging
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import IngestError
from vmnet_pipeline.ingestion.ids import is_safe_id, make_unique_ids
from vmnet_pipeline.ingestion.probing import checksum_files
from vmnet_pipeline.ingestion.schemas import MANIFEST_COLUMNS
from vmnet_pipeline.storage.paths import as_path, explain_access, is_remote, list_files, storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd

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


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One item before probing: a picture and its sound, which may be one file.

    Attributes:
        id: Safe unique id.
        video: Absolute path of the file with the picture; empty when there is none.
        audio: Absolute path of the file with the sound; empty when there is none.
        group: Items of one group never stand on two sides of a split; empty when not known.
        reason: Slug of `error`, e.g. `no_audio_file`; empty for an item that may be usable.
        error: Why the item cannot be used, when finding it told so already.
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
    path = as_path(media_dir).expanduser().absolute()
    with explain_access(path):
        return [_check_name(item) for item in _find_in(path)]


def _find_in(path: Path) -> list[SourceItem]:
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
    return items


def _check_name(item: SourceItem) -> SourceItem:
    """A path that is no text cannot stand in a table: such an item fails, with its path spelt out."""
    video, audio = _spell_out(item.video), _spell_out(item.audio)
    if (video, audio) == (item.video, item.audio):
        return item
    wrong = video if video != item.video else audio
    error = f"the path {wrong} is not valid UTF-8; rename the file or its folder"
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


def list_media_files(folder: Path, suffixes: Iterable[str]) -> list[str]:
    """Files below `folder` with one of `suffixes` (any case), sorted; hidden ones and links to folders are left out.

    So is what lies in a folder that cannot be read; a warning names it.

    Paths are text here and below: a million of them as objects would take longer to make than to find.
    """
    wanted = set(suffixes)
    if is_remote(folder):
        names = [name for name in list_files(folder, recursive=True) if _suffix(name) in wanted]
        prefix = _prefix_of(folder)
        return [prefix + name for name in _sort_by_folder(names) if "/." not in f"/{name}"]
    found: list[str] = []
    for root, folders, files in os.walk(folder, onerror=_warn_of_folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        prefix = _prefix_of(root)
        found += [prefix + name for name in files if not name.startswith(".") and _suffix(name) in wanted]
    return _sort_by_folder(found)


def _warn_of_folder(error: OSError) -> None:
    logger.warning("The folder %r cannot be read, its files are left out: %s", error.filename, error.strerror)


def _sort_by_folder(paths: Iterable[str]) -> list[str]:
    return sorted(paths, key=lambda path: path.replace("/", "\0"))  # as paths are ordered


def _suffix(name: str) -> str:
    return name[name.rfind(".") :].lower()


def _prefix_of(folder: Path | str) -> str:
    """What the paths of all files in a folder begin with; a bucket and the root of a disk end with a slash already."""
    return f"{str(folder).rstrip('/')}/"


def _relative_name(path: str, prefix: str) -> str:
    return path.removeprefix(prefix).rpartition(".")[0]


def _list_videos(folder: Path) -> list[SourceItem]:
    """Shape 3. Sound files without a picture become rows that say so, and do not vanish."""
    paths = list_media_files(folder, VIDEO_SUFFIXES | AUDIO_SUFFIXES)
    ids = _ids_of_paths(paths, folder)
    return [
        SourceItem(item_id, path, path)
        if _suffix(path) in VIDEO_SUFFIXES
        else SourceItem(item_id, "", path, "", "no_video_file", f"{Path(path).name} is sound without a picture")
        for item_id, path in zip(ids, paths, strict=True)
    ]


def _ids_of_paths(paths: Sequence[str], folder: Path) -> list[str]:
    """One id per file: its relative path without the suffix, or with it where two files differ in nothing else."""
    prefix = _prefix_of(folder)
    names = [_relative_name(path, prefix) for path in paths]
    counts = Counter(names)
    return make_unique_ids(
        [name if counts[name] == 1 else path.removeprefix(prefix) for name, path in zip(names, paths, strict=True)]
    )


def _index_by_name(folder: Path, suffixes: Iterable[str]) -> dict[str, str]:
    index: dict[str, str] = {}
    prefix = _prefix_of(folder)
    for path in list_media_files(folder, suffixes):
        name = _relative_name(path, prefix)
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
        audio, video = sounds.get(name, ""), pictures.get(name, "")
        reason = "no_audio_file" if not audio else "no_video_file" if not video else ""
        side = "audio" if not audio else "video"
        error = f"{name!r} has no partner in {side}/" if reason else ""
        items.append(SourceItem(item_id, video, audio, "", reason, error))
    return items


def _read_media_csv(path: Path) -> list[SourceItem]:
    """Shape 1."""
    items = [_item_of_row(row, path.parent) for row in _iterate_csv_rows(path, ("id", "video"))]
    if not items:
        raise IngestError(f"{path} has no rows. Give one row per item: id,video,audio,group")
    _check_ids([item.id for item in items], path)
    return items


def read_csv_rows(path: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a comma or tab separated UTF-8 file as text, so that an id `007` stays `007`.

    Raises:
        IngestError: The file is no such text, or a column of `required` is missing.
    """
    return list(_iterate_csv_rows(path, required))


def _iterate_csv_rows(path: Path, required: Sequence[str]) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter="\t" if "\t" in header else ",", strict=True)
            _check_columns([(name or "").strip() for name in reader.fieldnames or []], required, path)
            for row in reader:
                yield {(key or "").strip(): (value or "").strip() for key, value in row.items() if key}
    except storage_errors(UnicodeDecodeError, csv.Error) as error:
        raise IngestError(f"{path} cannot be read as a UTF-8 csv file: {error}") from error


def _check_columns(columns: Sequence[str], required: Sequence[str], path: Path) -> None:
    missing = [name for name in required if name not in columns]
    if missing:
        raise IngestError(f"{path} has no column {', '.join(missing)}; its columns are {', '.join(columns) or 'none'}.")


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
    video = _resolve(folder, row["video"])
    audio = _resolve(folder, row.get("audio", "")) or video
    reason, error = ("", "") if video else ("no_video_file", "the video column is empty")
    return SourceItem(row["id"], video, audio, row.get("group", ""), reason, error)


def _resolve(folder: Path, name: str) -> str:
    """Absolute path of a name in a media.csv; most need no Path object, which for a million would take its time."""
    if not name or is_remote(name):
        return name
    if is_remote(folder):
        return _prefix_of(folder) + name
    is_plain = name[0] not in "./" and "/." not in name and "//" not in name
    return _prefix_of(folder) + name if is_plain else str((folder / name).absolute())


# --- bare folders


def list_folder(audio_dir: Path | None, video_dir: Path | None, *, cache_dir: Path | None = None) -> pd.DataFrame:
    """A manifest of the files in bare folders, for extraction without ingestion; nothing is probed or paired.

    Args:
        audio_dir: Folder of sound files.
        video_dir: Folder of video files.
        cache_dir: Where checksums are kept between runs; None to keep none.

    Raises:
        IngestError: A folder is not there or holds no media.
    """
    import pandas as pd

    rows: dict[str, dict[str, Any]] = {}
    for side, folder in (("audio", audio_dir), ("video", video_dir)):
        if folder is None:
            continue
        for item_id, path in _list_side(side, folder.expanduser().absolute()):
            row = rows.setdefault(item_id, {"id": item_id, "status": "ok", "group": item_id})
            row[f"{side}_path"] = path
    table = pd.DataFrame(list(rows.values()), columns=list(MANIFEST_COLUMNS))
    paths = [table[f"{side}_path"].fillna("") for side in ("audio", "video")]
    checksums = checksum_files(sorted(set().union(*paths) - {""}), cache_dir=cache_dir)
    for side, column in zip(("audio", "video"), paths, strict=True):
        table[f"{side}_checksum"] = column.map(checksums)
    texts = [name for name, dtype in MANIFEST_COLUMNS.items() if dtype == "str"]
    table[texts] = table[texts].fillna("")
    return table.astype(MANIFEST_COLUMNS)


def _list_side(side: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Ids and paths of the files of one bare folder."""
    if not folder.is_dir():
        raise IngestError(f"There is no folder {folder}. Pass an existing one: --params {side}_dir=FOLDER")
    suffixes = VIDEO_SUFFIXES if side == "video" else AUDIO_SUFFIXES | VIDEO_SUFFIXES
    found = list_media_files(folder, suffixes)
    paths = [path for path in found if _spell_out(path) == path]
    if len(paths) < len(found):
        logger.warning("%d files are left out: their paths are not valid UTF-8; rename them", len(found) - len(paths))
    if not paths:
        raise IngestError(f"No {side} files in {folder}. Known suffixes: {' '.join(sorted(suffixes))}")
    return zip(_ids_of_paths(paths, folder), paths, strict=True)
