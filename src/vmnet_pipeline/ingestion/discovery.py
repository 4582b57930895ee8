"""Find the items of a media folder in one of three layouts, or the files of bare folders."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import IngestError
from vmnet_pipeline.ingestion.formats import (
    AUDIO_SUFFIXES,
    MEDIA_SUFFIXES,
    VIDEO_SUFFIXES,
    read_content,
    strip_suffix,
    suffix_of,
)
from vmnet_pipeline.ingestion.ids import describe_changes, make_unique_ids
from vmnet_pipeline.ingestion.listing import list_media_files, log_skipped, prefix_of, spell_out
from vmnet_pipeline.ingestion.probing import checksum_files, recognise_files
from vmnet_pipeline.ingestion.schemas import MANIFEST_COLUMNS
from vmnet_pipeline.ingestion.tables import iterate_csv_rows
from vmnet_pipeline.storage.names import (
    DiskNames,
    find_entry,
    find_file,
    find_on_disk,
    fold_case,
    is_case_sensitive,
    normalise,
)
from vmnet_pipeline.storage.paths import as_path, explain_access, is_remote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from vmnet_pipeline.ingestion.listing import Recognise

logger = logging.getLogger(__name__)

MEDIA_CSV = "media.csv"
SIDE_FOLDERS = {
    "audio": ("audio", "audios", "music", "musics", "sound", "sounds", "song", "songs", "track", "tracks"),
    "video": ("video", "videos", "clip", "clips", "film", "films", "movie", "movies"),
}
"""Names, in any case, of the folders of both sides; only the first of each is unambiguous by itself."""


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One item before probing: video and audio, which may be one file."""

    id: str
    video: str  # absolute path, or empty
    audio: str  # absolute path, or empty
    group: str = ""  # items of one group are never in two subsets of a split; empty if unknown
    reason: str = ""  # slug of `error`, e.g. `no_audio_file`; empty for an item that may be usable.
    error: str = ""  # why the item cannot be used, if known without probing


def find_items(media_dir: str | Path, recognise: Recognise = recognise_files) -> list[SourceItem]:
    """Find the items of a media folder in one of three layouts.

    1. A `media.csv` (or its path) with columns id, video, audio and perhaps group; paths are relative to it.
    2. Folders `audio/` and `video/` with files of the same relative path, whatever their suffix.
    3. Any other folder: every video with its own audio, searched recursively.

    Names are compared in normalised form; files are opened as spelled on disk.

    Args:
        recognise: See `listing.list_media_files`.

    Raises:
        IngestError: The path is wrong, the folder holds no media, or two items have one id.
    """
    path = find_on_disk(as_path(media_dir).expanduser().absolute())
    with explain_access(path):
        return [check_name(item) for item in _find_in(path, recognise)]


def _find_in(path: Path, recognise: Recognise) -> list[SourceItem]:
    if not path.exists():
        raise IngestError(f"There is no folder {path}.{_remedy(path)}")
    if path.is_file():
        if path.suffix.lower() != ".csv":
            raise IngestError(f"{path} is a file. Pass the folder it is in, or a media.csv: --params media_dir=FOLDER")
        return _read_media_csv(path)
    if (table := find_file(path, MEDIA_CSV)).is_file():
        return _read_media_csv(table)
    items = _match_folders(path, recognise) or _list_videos(path, recognise)
    if not items:
        raise IngestError(f"No media files in {path}.{_remedy(path)}")
    return items


def check_name(item: SourceItem) -> SourceItem:
    """Fail an item whose path is not valid text, which a table cannot hold."""
    video, audio = spell_out(item.video), spell_out(item.audio)
    if (video, audio) == (item.video, item.audio):
        return item
    wrong = video if video != item.video else audio
    error = f"the path {wrong} is not valid UTF-8; rename the file or its folder"
    return replace(item, video=video, audio=audio, reason="unsupported_name", error=error)


def _remedy(path: Path) -> str:
    if path.parts[-3:] == ("data", "01_raw", "demo"):
        return " Make the demo collection with `kedro demo-media`, or use your own with --params media_dir=FOLDER."
    return (
        " Pass a folder with videos, or with audio/ and video/ folders, or with a media.csv (id,video,audio,group): "
        "--params media_dir=FOLDER"
    )


# --- layout 3: videos with their own audio


def _list_videos(folder: Path, recognise: Recognise) -> list[SourceItem]:
    """Every video is an item; audio files are failed ones, so that they do not vanish."""
    items, paths = [], list_media_files(folder, recognise)
    _warn_of_unpaired_audio(paths)
    for item_id, path in zip(make_ids(name_files(paths, folder)), paths, strict=True):
        if is_audio_file(path):
            error = f"{Path(path).name} is audio without video"
            items.append(SourceItem(item_id, "", path, reason="no_video_file", error=error))
        else:
            items.append(SourceItem(item_id, path, path))
    return items


def _warn_of_unpaired_audio(paths: Sequence[str]) -> None:
    """Audio with the name of a video, in its folder or another one, may be meant for its pair."""
    stems = [normalise(strip_suffix(path.rpartition("/")[2])) for path in paths]
    audio = {stem: path for stem, path in zip(stems, paths, strict=True) if is_audio_file(path)}
    videos = {stem: path for stem, path in zip(stems, paths, strict=True) if stem in audio and not is_audio_file(path)}
    if videos:
        stem = next(iter(videos))
        logger.warning(
            "%d audio files have the name of a video, e.g. %s and %s. Every video is paired with its own audio; if "
            "these belong together, put them into folders audio/ and video/, or write a media.csv "
            "(id,video,audio,group)", len(videos), spell_out(audio[stem]), spell_out(videos[stem]),
        )  # fmt: skip


def is_audio_file(path: str) -> bool:
    """Whether a file is audio by its suffix, and not a video by content, as an .ogg may be."""
    return suffix_of(path) in AUDIO_SUFFIXES and (is_remote(path) or read_content(path) != "unknown")


def name_files(paths: Sequence[str], folder: Path) -> list[str]:
    """One name per file: its relative path without the suffix, or with it if files differ only in that."""
    prefix = prefix_of(folder)
    names = [normalise(strip_suffix(path.removeprefix(prefix))) for path in paths]
    counts = Counter(names)
    return [name if counts[name] == 1 else path.removeprefix(prefix) for name, path in zip(names, paths, strict=True)]


def make_ids(names: Sequence[str], *, any_disk: bool = True) -> list[str]:
    """Make the id of each of some different names; the log says where a name is changed."""
    ids = make_unique_ids(names, any_disk=any_disk)
    for sentence in describe_changes(names, ids):
        logger.info("%s. Split files and metadata may use either", sentence)
    return ids


# --- layout 2: a folder for each side


def _match_folders(folder: Path, recognise: Recognise) -> list[SourceItem]:
    """Items of the folders of both sides, if there are such; files without a partner are failed items."""
    found = {side: find_entry(folder, names) for side, names in SIDE_FOLDERS.items()}
    if not all(found.values()):
        _warn_of_one_side(folder, found)
        return []
    audio, video = (_choose_folder(found[side]) for side in ("audio", "video"))
    audio_files = _index_by_name(audio, recognise, MEDIA_SUFFIXES)
    video_files = _index_by_name(video, recognise, VIDEO_SUFFIXES)
    if not (_is_plain(audio, "audio") and _is_plain(video, "video")) and not audio_files.keys() & video_files.keys():
        logger.warning(
            "%s and %s have no file name in common, so every video is paired with its own audio. If they belong "
            "together, name the files alike or write a media.csv (id,video,audio,group)", audio, video,
        )  # fmt: skip
        return []
    names = sorted({*audio_files, *video_files})
    items = [
        SourceItem(item_id, video_files.get(name, ""), audio_files.get(name, ""))
        for item_id, name in zip(make_ids(names), names, strict=True)
    ]
    video_names, audio_names = ({fold_case(name): name for name in index} for index in (video_files, audio_files))
    return [
        item
        if item.video and item.audio
        else _explain_unpaired(item, name, *((video, video_names) if item.audio else (audio, audio_names)))
        for item, name in zip(items, names, strict=True)
    ]


def _is_plain(folder: Path, side: str) -> bool:
    return folder.name.casefold() in (side, f"{side}s")


def _choose_folder(found: Sequence[Path]) -> Path:
    if len(found) > 1:
        others = ", ".join(path.name for path in found[1:])
        logger.warning("%s is read; %s next to it is not", found[0], others)
    return found[0]


def _warn_of_one_side(folder: Path, found: Mapping[str, Sequence[Path]]) -> None:
    for side, other in (("audio", "video"), ("video", "audio")):
        if found[side] and _is_plain(found[side][0], side):
            logger.warning(
                "%s has %s/ and no %s/, so every video is paired with its own audio. If the sides are separate, name "
                "their folders audio and video, or write a media.csv (id,video,audio,group)",
                folder, found[side][0].name, other,
            )  # fmt: skip


def _index_by_name(folder: Path, recognise: Recognise, preferred: frozenset[str]) -> dict[str, str]:
    """Files of one side by their relative path without suffix; of two, the one with a preferred suffix."""
    index: dict[str, str] = {}
    others: list[str] = []
    prefix = prefix_of(folder)
    paths = list_media_files(folder, recognise)
    for path in sorted(paths, key=lambda path: suffix_of(path) not in preferred):
        name = normalise(strip_suffix(path.removeprefix(prefix)))
        earlier = index.setdefault(name, path)
        if earlier == path:
            continue
        if (suffix_of(earlier) in preferred) == (suffix_of(path) in preferred):
            raise IngestError(
                f"Two files claim the item {name!r}: {spell_out(earlier)} and {spell_out(path)}. Remove or rename one "
                "of them, or name the pairs yourself in a media.csv (id,video,audio,group)."
            )
        others.append(path)
    log_skipped(folder, others, "another file of the same name is used", logging.WARNING)
    return index


def _explain_unpaired(item: SourceItem, name: str, folder: Path, others: Mapping[str, str]) -> SourceItem:
    """Fail an item without its file in `folder`, whose names, by their folded form, are `others`."""
    near = others.get(fold_case(name))
    hint = f"; {near!r} there differs in case only" if near else ""
    reason = "no_video_file" if item.audio else "no_audio_file"
    return replace(item, reason=reason, error=f"{name!r} has no partner in {folder.name}/{hint}")


# --- layout 1: a table


def _read_media_csv(path: Path) -> list[SourceItem]:
    disk = DiskNames()
    rows = [_item_of_row(row, path.parent, disk) for row in iterate_csv_rows(path, ("id", "video"))]
    return finish_table(rows, path)


def finish_table(rows: list[SourceItem], path: Path) -> list[SourceItem]:
    """The items of a table with ids that can be file names."""
    if not rows:
        raise IngestError(f"{path} has no rows. Give one row per item: id,video,audio,group")
    names = [row.id for row in rows]
    _check_ids(names, path)
    ids = make_ids(names)
    return rows if ids == names else [replace(row, id=item_id) for row, item_id in zip(rows, ids, strict=True)]


def _check_ids(ids: list[str], path: Path) -> None:
    doubled = sorted(item_id for item_id, count in Counter(map(normalise, ids)).items() if count > 1 and item_id)
    if doubled:
        raise IngestError(f"{path} has more than one row with the id {_shorten(doubled)}. Give each item its own id.")
    if n_empty := ids.count(""):
        raise IngestError(f"{path} has {n_empty} row(s) without an id. Give each item its own id.")


def _shorten(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _item_of_row(row: dict[str, str], folder: Path, disk: DiskNames) -> SourceItem:
    video = resolve_name(folder, row["video"], disk)
    audio = resolve_name(folder, row.get("audio", ""), disk) or video
    reason, error = ("", "") if video else ("no_video_file", "the video column is empty")
    return SourceItem(row["id"], video, audio, row.get("group", ""), reason, error)


def resolve_name(folder: Path, name: str, disk: DiskNames) -> str:
    """Absolute path of a name in a media.csv; most need no Path object, which is slow for a million."""
    if not name or is_remote(name):
        return name
    if "\\" in name and (is_remote(folder) or not (folder / name).exists()):
        name = name.replace("\\", "/")  # as Windows writes it
    if is_remote(folder):
        return prefix_of(folder) + name
    is_plain = name[0] not in "./" and "/." not in name and "//" not in name
    return disk.find(prefix_of(folder) + name if is_plain else str((folder / name).absolute()))


# --- bare folders


def list_folder(
    audio_dir: Path | None, video_dir: Path | None, *, cache_dir: Path | None = None, target: Path | None = None
) -> pd.DataFrame:
    """Make a manifest of the files in bare folders, for extraction without ingestion, probing and pairing.

    The id of a file is its stem, so features have the names of the files.

    Args:
        cache_dir: Folder to keep checksums between runs, or None.
        target: Folder of the features: names that not every disk accepts are kept if this one does.

    Raises:
        IngestError: A folder is missing or holds no media.
    """
    import pandas as pd

    folders = {side: folder for side, folder in (("audio", audio_dir), ("video", video_dir)) if folder is not None}
    named = {side: _list_side(side, folder, cache_dir) for side, folder in folders.items()}
    ids = _ids_of_stems([name for files in named.values() for name in files], target)
    rows: dict[str, dict[str, Any]] = {}
    for side, files in named.items():
        for name, path in files.items():
            row = rows.setdefault(ids[name], {"id": ids[name], "status": "ok", "group": ids[name]})
            row[f"{side}_path"] = path
    table = pd.DataFrame(list(rows.values()), columns=list(MANIFEST_COLUMNS))
    paths = [table[f"{side}_path"].fillna("") for side in ("audio", "video")]
    checksums = checksum_files(sorted(set().union(*paths) - {""}), cache_dir=cache_dir)
    for side, column in zip(("audio", "video"), paths, strict=True):
        table[f"{side}_checksum"] = column.map(checksums)
    texts = [name for name, dtype in MANIFEST_COLUMNS.items() if dtype == "str"]
    table[texts] = table[texts].fillna("")
    return table.astype(MANIFEST_COLUMNS)


def _list_side(side: str, folder: Path, cache_dir: Path | None) -> dict[str, str]:
    folder = find_on_disk(folder.expanduser().absolute())
    if not folder.is_dir():
        raise IngestError(f"There is no folder {folder}. Pass an existing one: --params {side}_dir=FOLDER")
    found = list_media_files(folder, partial(recognise_files, cache_dir=cache_dir))
    wrong = [path for path in found if spell_out(path) != path]
    audio_files = [path for path in found if side == "video" and path not in wrong and is_audio_file(path)]
    log_skipped(folder, wrong, "their paths are not valid UTF-8; rename them", logging.WARNING)
    log_skipped(folder, audio_files, "they are audio without video")
    left_out = {*wrong, *audio_files}
    paths = [path for path in found if path not in left_out]
    if not paths:
        raise IngestError(f"No {side} files in {folder}. Known suffixes: {' '.join(sorted(MEDIA_SUFFIXES))}")
    return dict(zip(name_files(paths, folder), paths, strict=True))


def _ids_of_stems(names: Sequence[str], target: Path | None) -> dict[str, str]:
    """The id of every name: its last part, if no other name has the same."""
    unique = list(dict.fromkeys(names))
    counts = Counter(name.rpartition("/")[2] for name in unique)
    stems = [name.rpartition("/")[2] if counts[name.rpartition("/")[2]] == 1 else name for name in unique]
    any_disk = target is None or not is_case_sensitive(target)
    return dict(zip(unique, make_ids(stems, any_disk=any_disk), strict=True))
