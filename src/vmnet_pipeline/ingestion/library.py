"""Find the items of a library: tracks alone, videos alone, or both, without pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import IngestError
from vmnet_pipeline.ingestion.discovery import (
    MEDIA_CSV,
    SourceItem,
    check_name,
    finish_table,
    is_audio_file,
    make_ids,
    name_files,
    resolve_name,
)
from vmnet_pipeline.ingestion.listing import list_media_files
from vmnet_pipeline.ingestion.probing import recognise_files
from vmnet_pipeline.ingestion.tables import iterate_csv_rows
from vmnet_pipeline.storage.names import DiskNames, find_file, find_on_disk
from vmnet_pipeline.storage.paths import as_path, explain_access

if TYPE_CHECKING:
    from vmnet_pipeline.ingestion.listing import Recognise


def find_library_items(
    library: str | Path, side: str = "auto", recognise: Recognise = recognise_files
) -> list[SourceItem]:
    """Find the items of a library: each file is one, and has the side that it is used for.

    Args:
        library: A folder, which is searched recursively; one media file; or a media.csv with the columns id and audio
            or video, or a folder with one.
        side: `auto`: audio files are music, others video. `music`: the audio of every file. `video`: the frames of
            every file but audio files, which become failed items.
        recognise: See `listing.list_media_files`.

    Raises:
        IngestError: The path is wrong, the folder holds no media, or two items have one id.
    """
    path = find_on_disk(as_path(library).expanduser().absolute())
    with explain_access(path):
        if not path.exists():
            raise IngestError(
                f"There is no library {path}. Pass a folder with tracks or videos: --params library=FOLDER"
            )
        table = find_file(path, MEDIA_CSV) if path.is_dir() else path
        if table.suffix.lower() == ".csv" and table.is_file():
            return [check_name(item) for item in _read_library_csv(table)]
        paths = list_media_files(path, recognise) if path.is_dir() else [str(path)]
        if not paths:
            raise IngestError(f"No media files in the library {path}. Put tracks or videos into it.")
        ids = make_ids(name_files(paths, path if path.is_dir() else path.parent))
        return [check_name(_take_side(item_id, name, side)) for item_id, name in zip(ids, paths, strict=True)]


def _take_side(item_id: str, path: str, side: str) -> SourceItem:
    is_audio = is_audio_file(path)
    if side == "music" or (side == "auto" and is_audio):
        return SourceItem(item_id, "", path)
    if is_audio:
        error = f"{Path(path).name} is audio without video"
        return SourceItem(item_id, "", path, reason="no_video_file", error=error)
    return SourceItem(item_id, path, "")


def _read_library_csv(path: Path) -> list[SourceItem]:
    disk, items = DiskNames(), list[SourceItem]()
    for row in iterate_csv_rows(path, ("id",)):
        video, audio = (resolve_name(path.parent, row.get(side, ""), disk) for side in ("video", "audio"))
        error = "" if video or audio else "both columns, video and audio, are empty"
        reason = "no_media_file" if error else ""
        items.append(SourceItem(row["id"], video, audio, row.get("group", ""), reason, error))
    return finish_table(items, path)
