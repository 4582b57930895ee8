"""Divide items into train, val and test by group, so that an item never changes sides when others are added."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import SplitError
from vmnet_pipeline.ingestion.tables import read_ids
from vmnet_pipeline.storage.names import find_on_disk, normalise
from vmnet_pipeline.storage.paths import as_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

SUBSETS = ("train", "val", "test")
MIN_GROUPS = 2
"""Retrieval among one item says nothing, so every side gets at least this many groups where there are enough."""

MAX_NAMED = 5

MIN_DOUBTFUL = 10  # from this many items on, it is worth asking whether really none belong together
_Border = tuple[str, float, float]


@dataclass(frozen=True, slots=True)
class Split:
    """Item ids of the three sides, each in the order of the manifest."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def checksum(self) -> str:
        """sha256 over sides and ids: two runs with the same checksum used the same split."""
        text = "\n".join(f"{side}\t{item_id}" for side in SUBSETS for item_id in getattr(self, side))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def place_group(group: str, seed: int) -> float:
    """Where a group falls in [0, 1): depends on its name and the seed alone."""
    digest = hashlib.sha256(f"{seed}\t{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_by_group(ids: Sequence[str], groups: Sequence[str], shares: Mapping[str, float], seed: int) -> Split:
    """Divide items so that no group stands on two sides.

    Each group is placed by a hash of its name, so adding items moves nobody; the shares are therefore
    met only on average. A side with fewer than two groups takes those placed nearest to it.

    Args:
        shares: Expected shares of `train`, `val` and `test`, with sum 1; a share of 0 leaves a side empty.

    Raises:
        SplitError: There are fewer groups than sides to fill.
    """
    wanted = [side for side in SUBSETS if shares[side] > 0]
    names = sorted(set(groups))
    if len(names) < len(wanted):
        raise SplitError(
            f"{len(ids)} usable items form {len(names)} group(s); {len(wanted)} are needed to fill {', '.join(wanted)} "
            "without a group on two sides. Add media, or give finer groups in a media.csv."
        )
    side_of = _place_groups(names, wanted, shares, seed)
    sides: dict[str, list[str]] = {side: [] for side in SUBSETS}
    for item_id, group in zip(ids, groups, strict=True):
        sides[side_of[group]].append(item_id)
    return Split(*(tuple(sides[side]) for side in SUBSETS))


def _place_groups(
    names: Sequence[str], wanted: Sequence[str], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    borders: list[_Border] = []
    start = 0.0
    for side in wanted:
        borders.append((side, start, start + shares[side]))
        start += shares[side]
    places = {name: place_group(name, seed) for name in names}
    side_of = {
        name: next((side for side, _, end in borders if place < end), wanted[-1]) for name, place in places.items()
    }
    _fill_small_sides(side_of, places, borders)
    return side_of


def _fill_small_sides(side_of: dict[str, str], places: Mapping[str, float], borders: Sequence[_Border]) -> None:
    """Move groups until each side has `MIN_GROUPS`, as far as the others can spare them; the nearest moves first."""
    for side, low, high in sorted(borders, key=lambda border: border[2] - border[1]):
        middle = (low + high) / 2
        while (counts := Counter(side_of.values()))[side] < MIN_GROUPS:
            spare = [name for name in places if side_of[name] != side and counts[side_of[name]] > counts[side] + 1]
            if not spare:
                break
            side_of[min(spare, key=lambda name: (abs(places[name] - middle), name))] = side


def check_split(split: Split, groups: Mapping[str, str]) -> list[str]:
    """What is wrong with a user-made split: errors are raised, doubts are returned in words.

    Args:
        groups: Group of every usable item.

    Raises:
        SplitError: An id stands twice, train or test is empty, or a group stands on two sides.
    """
    for side in ("train", "test"):
        if not getattr(split, side):
            raise SplitError(f"{side}.csv has no ids.")
    seen: dict[str, str] = {}
    for side in SUBSETS:
        for item_id in getattr(split, side):
            if item_id in seen:
                raise SplitError(f"Item {item_id!r} stands in {seen[item_id]}.csv and again in {side}.csv. Remove one.")
            seen[item_id] = side
    _check_groups(seen, groups)
    unknown = [item_id for item_id in seen if item_id not in groups]
    doubts = [] if split.val else ["there is no val.csv: the last epoch is kept instead of the best"]
    if unknown:
        names = ", ".join(unknown[:5]) + (" ..." if len(unknown) > 5 else "")
        doubts.append(f"{len(unknown)} id(s) have no usable media and are left out: {names}")
    return doubts


def resolve_split(split: Split, manifest: pd.DataFrame) -> tuple[Split, list[str]]:
    """A user-made split with the ids of the items that its names mean, see `matching.match_names`.

    Returns:
        The split, and what is to be said of it: names that were taken for files, and names that mean several items.
    """
    from vmnet_pipeline.ingestion.matching import match_names

    sides = [getattr(split, side) for side in SUBSETS]
    matched = match_names([name for names in sides for name in names], manifest)
    sentences = []
    if taken := [f"{name!r} -> {item_id}" for name, item_id in matched.ids.items() if item_id != normalise(name)]:
        sentences.append(f"{len(taken)} name(s) are no ids and taken for files, e.g. {', '.join(taken[:3])}")
    for name, found in list(matched.several.items())[:MAX_NAMED]:
        sentences.append(f"{name!r} is left out, it may be {' or '.join(found[:3])}: give the id or more of the path")
    for name, near in list(matched.near.items())[:MAX_NAMED]:
        sentences.append(f"{name!r} is no item; {near!r} differs from it in upper and lower case only")
    return Split(*(tuple(matched.ids.get(name, name) for name in names) for names in sides)), sentences


def doubt_groups(groups: Mapping[str, str]) -> list[str]:
    """A doubt in words when no two items share a group: then a song may stand on two sides without anyone knowing."""
    if len(groups) < MIN_DOUBTFUL or len(set(groups.values())) < len(groups):
        return []
    return [
        "every item is a group of its own; if some are clips of one song or one film, name their groups in a media.csv "
        "(id,video,audio,group), otherwise the results are too good"
    ]


def _check_groups(side_of: Mapping[str, str], groups: Mapping[str, str]) -> None:
    sides: dict[str, str] = {}
    for item_id, side in side_of.items():
        group = groups.get(item_id)
        if group is not None and sides.setdefault(group, side) != side:
            raise SplitError(
                f"Group {group!r} stands in {sides[group]}.csv and, by item {item_id!r}, in {side}.csv: results would "
                "be too good. Put all items of a group on one side, or correct the groups in media.csv."
            )


def find_user_split(split_dir: str | Path | None, media_dir: str | Path) -> Split | None:
    """Read train.csv, test.csv and perhaps val.csv that a user made; None when there are none.

    Args:
        split_dir: Folder the user named; it must have them.
        media_dir: Media folder (or media.csv); it may have them.

    Raises:
        SplitError: `split_dir` has no train.csv or no test.csv.
        IngestError: A file has no column `id`.
    """
    media = as_path(media_dir)
    folder = as_path(split_dir or (media.parent if media.suffix.lower() == ".csv" else media)).expanduser()
    folder = find_on_disk(folder)
    paths = {side: folder / f"{side}.csv" for side in SUBSETS}
    if not (paths["train"].is_file() and paths["test"].is_file()):
        if split_dir is not None:
            raise SplitError(
                f"{folder} must have train.csv and test.csv (and may have val.csv), each with a column id."
            )
        return None
    return Split(*(read_ids(path) if path.is_file() else () for path in paths.values()))


def summarise_split(split: Split, groups: Mapping[str, str]) -> dict[str, Any]:
    """Sizes, numbers of groups and the checksum of a split."""
    sides = {side: getattr(split, side) for side in SUBSETS}
    return {
        "sizes": {side: len(ids) for side, ids in sides.items()},
        "n_groups": {side: len({groups.get(item_id, item_id) for item_id in ids}) for side, ids in sides.items()},
        "checksum": split.checksum,
    }
