"""Metadata of the items of a collection: title, group, licence, durations, tags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vmnet_pipeline.ingestion.discovery import MEDIA_CSV
from vmnet_pipeline.ingestion.matching import match_names
from vmnet_pipeline.ingestion.tables import PATH_COLUMNS, read_csv_rows
from vmnet_pipeline.search.filters import LIST_SEPARATOR
from vmnet_pipeline.storage.names import find_file, normalise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd


DURATIONS = {"music": "audio_duration_s", "video": "video_duration_s"}


def read_extra_columns(place: Path) -> pd.DataFrame:
    """Read the columns of a media.csv other than the paths as text: `id` and e.g. `title`, `licence`.

    `place` is the file, or a media folder that may hold one; without one the table is empty.

    Raises:
        IngestError: The file is not a csv file, or has no column `id`.
    """
    import pandas as pd

    path = find_file(place, MEDIA_CSV) if place.is_dir() else place
    if path.suffix.lower() != ".csv" or not path.is_file():
        return pd.DataFrame({"id": []}, dtype="str")
    rows = read_csv_rows(path, ("id",))
    table = pd.DataFrame(rows or {"id": []}, dtype="str").drop(columns=list(PATH_COLUMNS), errors="ignore")
    return table.drop_duplicates("id")


def describe_items(manifest: pd.DataFrame, extra: pd.DataFrame, tags: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Return one row per usable item, for search results and filters.

    Columns: id, title (the user's, else the file name without its suffix), group, licence, tags, the durations of both
    sides in seconds, and every column of `extra`, the user's table by `id` or file name, whose values take precedence.
    """
    import pandas as pd

    usable = manifest[manifest["status"] == "ok"]
    paths = usable["video_path"].where(usable["video_path"] != "", usable["audio_path"])
    table = pd.DataFrame(
        {
            "id": usable["id"],
            "title": [normalise(Path(path).stem) for path in paths],
            "group": usable["group"],
            "licence": "",
            "tags": [LIST_SEPARATOR.join(tags.get(item_id, ())) for item_id in usable["id"]],
            **{column: usable[column].astype("float64") for column in DURATIONS.values()},
        }
    ).reset_index(drop=True)
    meant = match_names(extra["id"], manifest).ids
    extra = extra.assign(id=extra["id"].map(lambda name: meant.get(name, name))).drop_duplicates("id")
    given = table[["id"]].merge(extra, on="id", how="left")
    for column in given.columns.drop("id"):
        values = given[column].fillna("").astype("str")
        table[column] = values.where(values != "", table[column]) if column in table else values
    return table


def choose_side(table: pd.DataFrame, side: str) -> pd.DataFrame:
    """The table as one side of the collection has it: `duration_s` is that of its own files."""
    others = [column for column in DURATIONS.values() if column in table]
    durations = table[DURATIONS[side]] if DURATIONS[side] in table else float("nan")
    return table.drop(columns=others).assign(duration_s=durations)
