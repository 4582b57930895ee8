"""Divide items into train, val and test by group; adding items moves no other item."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import SplitError
from vmnet_pipeline.ingestion.tables import read_id_rows
from vmnet_pipeline.storage.names import find_file, find_on_disk, normalise
from vmnet_pipeline.storage.paths import as_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

SUBSETS = ("train", "val", "test")
MIN_GROUPS = 2
"""Retrieval among one item says nothing, so every subset gets at least this many groups if possible."""

MIN_ITEMS = 2  # of train and test: a pair is told apart from another
MAX_NAMED = 5

MIN_DOUBTFUL = 10  # from this many items on, warn if none share a group
_Border = tuple[str, float, float]


@dataclass(frozen=True, slots=True)
class Split:
    """Item ids of the three subsets, in the order of the manifest."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def checksum(self) -> str:
        """sha256 over subsets and ids: two runs with the same checksum used the same split."""
        text = "\n".join(f"{subset}\t{item_id}" for subset in SUBSETS for item_id in getattr(self, subset))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def place_group(group: str, seed: int) -> float:
    """Position of a group in [0, 1), which depends on its name and the seed alone."""
    digest = hashlib.sha256(f"{seed}\t{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_by_group(ids: Sequence[str], groups: Sequence[str], shares: Mapping[str, float], seed: int) -> Split:
    """Divide items so that no group is in two subsets.

    A hash of its name places each group, so the shares are met only on average. A subset with fewer than two groups
    takes those placed nearest to it.

    Args:
        shares: Expected shares of `train`, `val` and `test`, with sum 1; 0 leaves a subset empty.

    Raises:
        SplitError: There are fewer groups than subsets to fill, or train or test would have one item.
    """
    wanted = [subset for subset in SUBSETS if shares[subset] > 0]
    names = sorted(set(groups))
    if len(names) < len(wanted):
        raise SplitError(
            f"{len(ids)} usable items form {len(names)} group(s); {len(wanted)} are needed to fill {', '.join(wanted)} "
            "without a group in two of them. Add media, or give finer groups in a media.csv or by ingest.group."
        )
    subset_of = _place_groups(names, wanted, shares, seed)
    subsets: dict[str, list[str]] = {subset: [] for subset in SUBSETS}
    for item_id, group in zip(ids, groups, strict=True):
        subsets[subset_of[group]].append(item_id)
    for subset in ("train", "test"):
        if subset in wanted and len(subsets[subset]) < MIN_ITEMS:
            raise SplitError(
                f"{len(ids)} usable items in {len(names)} groups leave one for {subset}, where one item says nothing: "
                f"add media, {MIN_GROUPS * len(wanted)} groups are always enough, or divide them yourself (split_dir)."
            )
    return Split(*(tuple(subsets[subset]) for subset in SUBSETS))


def _place_groups(
    names: Sequence[str], wanted: Sequence[str], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    borders: list[_Border] = []
    start = 0.0
    for subset in wanted:
        borders.append((subset, start, start + shares[subset]))
        start += shares[subset]
    places = {name: place_group(name, seed) for name in names}
    subset_of = {
        name: next((subset for subset, _, end in borders if place < end), wanted[-1]) for name, place in places.items()
    }
    _fill_small_subsets(subset_of, places, borders)
    return subset_of


def _fill_small_subsets(subset_of: dict[str, str], places: Mapping[str, float], borders: Sequence[_Border]) -> None:
    """Move groups until each subset has `MIN_GROUPS`, as far as the others can spare them; the nearest moves first."""
    for subset, low, high in sorted(borders, key=lambda border: border[2] - border[1]):
        middle = (low + high) / 2
        while (counts := Counter(subset_of.values()))[subset] < MIN_GROUPS:
            spare = [
                name for name in places if subset_of[name] != subset and counts[subset_of[name]] > counts[subset] + 1
            ]
            if not spare:
                break
            subset_of[min(spare, key=lambda name: (abs(places[name] - middle), name))] = subset


def check_split(split: Split, groups: Mapping[str, str]) -> list[str]:
    """Check a user-made split: raise errors, return doubts in words.

    Args:
        groups: Group of every usable item.

    Raises:
        SplitError: An id is repeated, train or test has fewer than two usable items, or a group is in two subsets.
    """
    for subset in ("train", "test"):
        if not getattr(split, subset):
            raise SplitError(f"{subset}.csv has no ids.")
    seen: dict[str, str] = {}
    for subset in SUBSETS:
        for item_id in getattr(split, subset):
            if item_id in seen:
                raise SplitError(f"Item {item_id!r} is in {seen[item_id]}.csv and again in {subset}.csv. Remove one.")
            seen[item_id] = subset
    _check_groups(seen, groups)
    for subset in ("train", "test"):
        if (n := sum(item_id in groups for item_id in getattr(split, subset))) < MIN_ITEMS:
            raise SplitError(
                f"{subset}.csv names {n} item(s) with usable media, and at least {MIN_ITEMS} are needed: retrieval "
                "among one item says nothing. Add ids of the manifest."
            )
    unknown = [item_id for item_id in seen if item_id not in groups]
    doubts = [] if split.val else ["there is no val.csv: the last epoch is kept instead of the best"]
    if unknown:
        names = ", ".join(unknown[:5]) + (" ..." if len(unknown) > 5 else "")
        doubts.append(f"{len(unknown)} id(s) have no usable media and are left out: {names}")
    return doubts


def resolve_split(split: Split, manifest: pd.DataFrame) -> tuple[Split, list[str]]:
    """Replace the names of a user-made split by the ids that they mean, see `matching.match_names`.

    Returns:
        The split, and remarks on names that were taken for files or mean several items.
    """
    from vmnet_pipeline.ingestion.matching import match_names

    subsets = [getattr(split, subset) for subset in SUBSETS]
    matched = match_names([name for names in subsets for name in names], manifest)
    sentences = []
    if taken := [f"{name!r} -> {item_id}" for name, item_id in matched.ids.items() if item_id != normalise(name)]:
        sentences.append(f"{len(taken)} name(s) are not ids and taken for files, e.g. {', '.join(taken[:3])}")
    for name, found in list(matched.several.items())[:MAX_NAMED]:
        sentences.append(f"{name!r} is left out, it may be {' or '.join(found[:3])}: give the id or more of the path")
    for name, near in list(matched.near.items())[:MAX_NAMED]:
        sentences.append(f"{name!r} is not an item; {near!r} differs from it in case only")
    return Split(*(tuple(matched.ids.get(name, name) for name in names) for names in subsets)), sentences


def doubt_groups(groups: Mapping[str, str]) -> list[str]:
    """Warn when no two items share a group: a song could then be in two subsets unnoticed."""
    if len(groups) < MIN_DOUBTFUL or len(set(groups.values())) < len(groups):
        return []
    return [
        "every item is a group of its own; if some are clips of one song or one film, name their groups in a media.csv "
        "(id,video,audio,group) or by ingest.group, otherwise results are inflated by leakage"
    ]


def _check_groups(subset_of: Mapping[str, str], groups: Mapping[str, str]) -> None:
    subsets: dict[str, str] = {}
    for item_id, subset in subset_of.items():
        group = groups.get(item_id)
        if group is not None and subsets.setdefault(group, subset) != subset:
            raise SplitError(
                f"Group {group!r} is in {subsets[group]}.csv and, by item {item_id!r}, in {subset}.csv: results would "
                "be inflated by leakage. Put all items of a group into one subset, or correct the groups in media.csv."
            )


def find_user_split(split_dir: str | Path | None, media_dir: str | Path) -> Split | None:
    """Read the train.csv, test.csv and perhaps val.csv of a user; None if there are none.

    Args:
        split_dir: Folder that must have them.
        media_dir: Media folder or media.csv that may have them.

    Raises:
        SplitError: `split_dir` has no train.csv or no test.csv.
        IngestError: A file is no csv file.
    """
    media = as_path(media_dir)
    folder = as_path(split_dir or (media.parent if media.suffix.lower() == ".csv" else media)).expanduser()
    folder = find_on_disk(folder)
    paths = {subset: find_file(folder, f"{subset}.csv") for subset in SUBSETS}
    if not (paths["train"].is_file() and paths["test"].is_file()):
        if split_dir is not None:
            raise SplitError(
                f"{folder} must have train.csv and test.csv (and may have val.csv), each with a column id."
            )
        return None
    return Split(*(_read_names(path) if path.is_file() else () for path in paths.values()))


def _read_names(path: Path) -> tuple[str, ...]:
    """Names of one subset; without a column `id` the first line counts as a name, which is reported if unknown."""
    rows, column = read_id_rows(path)
    names = [row["id"] for row in rows]
    return tuple(names if column == "id" else [column, *names])


def summarise_split(split: Split, groups: Mapping[str, str]) -> dict[str, Any]:
    """Sizes, numbers of groups and the checksum of a split."""
    subsets = {subset: getattr(split, subset) for subset in SUBSETS}
    return {
        "sizes": {subset: len(ids) for subset, ids in subsets.items()},
        "n_groups": {subset: len({groups.get(item_id, item_id) for item_id in ids}) for subset, ids in subsets.items()},
        "checksum": split.checksum,
    }
