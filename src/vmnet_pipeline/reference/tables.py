"""Read the csv files of the reference layout: the items of each subset, and every problem with them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import IngestError
from vmnet_pipeline.ingestion.splits import SUBSETS, Split
from vmnet_pipeline.ingestion.tables import read_id_rows
from vmnet_pipeline.reference.feature_files import FeatureFiles

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vmnet_pipeline.reference.layout import SubsetFiles

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class ReferenceTables:
    """Content of the csv files.

    Attributes:
        rows: Key of each row, by subset in file order: its id, or for a repeated id a new name.
        ids: Id of each key that is not the id itself.
        groups: Group of each key: the column `group`, else the id.
        problems: Errors to correct, one sentence each.
        repeated: Ids or groups that were kept although repeated or in two subsets.
    """

    rows: dict[str, list[str]] = field(default_factory=lambda: {subset: [] for subset in SUBSETS})
    ids: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)

    @property
    def split(self) -> Split:
        """The keys of the three subsets."""
        return Split(*(tuple(self.rows[subset]) for subset in SUBSETS))

    def id_of(self, key: str) -> str:
        """The id that a row has in its csv file."""
        return self.ids.get(key, key)


def read_tables(subsets: Mapping[str, SubsetFiles], *, allows_repeats: bool = False) -> ReferenceTables:
    """Read the csv files.

    With `allows_repeats`, repeated ids, ids and groups in two subsets, and first lines that may not be headers are
    accepted with a warning, as in the original; else each is a problem.
    """
    tables = ReferenceTables()
    subset_of_id: dict[str, str] = {}
    subset_of_group: dict[str, str] = {}
    for subset in (subset for subset in SUBSETS if subset in subsets):
        path = subsets[subset].csv_path
        for row in _read_rows(subsets[subset], tables.problems, takes_any_header=allows_repeats):
            item_id, group = row["id"], row.get("group") or row["id"]
            if not _can_be_file_name(item_id):
                tables.problems.append(f"{path}: the id {item_id!r} cannot be a file name. Use ids without slashes.")
                continue
            found = _find_repeat(path, subset, item_id, group, subset_of_id, subset_of_group)
            (tables.repeated if allows_repeats else tables.problems).extend(found)
            if item_id in subset_of_id and not allows_repeats:
                continue
            _add(tables, subset, item_id, group)
            subset_of_id.setdefault(item_id, subset)
            subset_of_group.setdefault(group, subset)
    if tables.repeated:
        logger.warning(
            "%d id(s) or group(s) are repeated or in two subsets and are kept, as in the original, e.g. %s",
            len(tables.repeated), tables.repeated[0],
        )  # fmt: skip
    return tables


def _add(tables: ReferenceTables, subset: str, item_id: str, group: str) -> None:
    key, number = item_id, 1
    while key in tables.groups:
        number += 1
        key = f"{item_id} ({number})"
    if key != item_id:
        tables.ids[key] = item_id
    tables.groups[key] = group
    tables.rows[subset].append(key)


def _read_rows(files: SubsetFiles, problems: list[str], *, takes_any_header: bool) -> list[dict[str, str]]:
    """Rows with an id, which is the column `id`, or the first one where there is none."""
    path = files.csv_path
    try:
        rows, name = read_id_rows(path)
    except IngestError as error:
        problems.append(str(error))
        return []
    if name != "id" and _can_be_file_name(name) and FeatureFiles(files.data_dir, "audio").find(name).is_file():
        doubt = f"{path}: its first line, {name!r}, is an item, not a header. Write a line `id` above it."
        logger.warning(doubt) if takes_any_header else problems.append(doubt)
    if not rows:
        problems.append(f"{path} has no ids. Add some, or remove the file and the folder of the subset.")
    return rows


def _can_be_file_name(item_id: str) -> bool:
    # Ids of old collections, e.g. `-aBc_1`, need not be safe for new files; they must only stay inside their folder.
    return not any(letter in item_id for letter in "/\\\0") and len(item_id.encode()) <= 250


def _find_repeat(
    path: Path, subset: str, item_id: str, group: str, subset_of_id: dict[str, str], subset_of_group: dict[str, str]
) -> list[str]:
    if item_id in subset_of_id:
        where = "repeated" if subset_of_id[item_id] == subset else f"in the csv file of {subset_of_id[item_id]}, too"
        return [f"{path}: the id {item_id!r} is {where}. Remove one."]
    if subset_of_group.get(group, subset) != subset:
        return [
            f"{path}: group {group!r} of item {item_id!r} is in {subset_of_group[group]}, too; results would be "
            "inflated by leakage. Put all items of a group into one subset."
        ]
    return []
