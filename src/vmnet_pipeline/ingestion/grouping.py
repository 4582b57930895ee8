"""Groups of items from the names of their files, so that cuts of one film are not in two subsets of a split."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from vmnet_pipeline.errors import IngestError
from vmnet_pipeline.ingestion.formats import strip_suffix
from vmnet_pipeline.storage.names import normalise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from vmnet_pipeline.ingestion.discovery import SourceItem

GroupRule: TypeAlias = Literal["parent", "regex", "table", "none"]

MIN_GROUPS = 3  # fewer cannot fill train, val and test
_COUNTER = re.compile(r"(?<![0-9])[0-9]+[)\]]?$")  # looked for once in a run of digits
_SEPARATORS = " _.-#~+([,"
_PIECES = ("part", "pt", "scene", "cut", "clip", "shot", "take", "chunk", "segment", "seg")
_CHANGE = "ingest.group=parent, regex or none takes others, a column `group` in a media.csv any"


@dataclass(frozen=True, slots=True)
class Grouping:
    """Items with their groups.

    Attributes:
        items: In the order given.
        sentence: What was taken.
        is_doubtful: Whether items that may belong together are groups of their own.
    """

    items: list[SourceItem]
    sentence: str
    is_doubtful: bool = False


def group_items(items: Sequence[SourceItem], rule: GroupRule | None = None, pattern: str | None = None) -> Grouping:
    """Give items without a group one by the names of their files.

    Args:
        items: What `discovery.find_items` found.
        rule: `parent`, the folder of the file; `regex`, what `pattern` finds; `table`, the column `group` of a
            media.csv; `none`. Given groups stay, except under `none`. None: the table's where it has any; else names
            without their last number, unless that leaves fewer than three groups or one with more than half of the
            items.
        pattern: Regular expression for the path of a file without suffix, below the folder of all; its first group, or
            the whole match, names the group. None: the path without its last number.

    Raises:
        IngestError: A rule that was asked for gives no group at all.
    """
    if rule == "none":
        return Grouping([replace(item, group="") if item.group else item for item in items], "none, as asked for")
    has_groups = any(item.group for item in items)
    if rule == "table" or (rule is None and has_groups):
        if not has_groups:
            raise IngestError(
                "ingest.group=table, but there is no media.csv with a group in any row. Add a column group."
            )
        return Grouping(list(items), "those of media.csv")
    names = _name_files(items)
    if rule == "parent":
        named, what = [name.rpartition("/")[0] for name in names], "folders"
    else:
        find, what = _make_finder(pattern)
        named = list(map(find, names))
    return _apply(items, named, what, is_asked=rule is not None or pattern is not None)


def strip_number(name: str) -> str:
    """The name of a file, without suffix, less its last number; the name of its folder if nothing remains.

    Example:
        >>> [strip_number(name) for name in ("film3_002", "film part 3", "id_000010_000020", "a/01", "01", "Up")]
        ['film3', 'film', 'id', 'a', '', '']
    """
    folder, slash, stem = name.rpartition("/")
    shorter = stem
    while found := _COUNTER.search(shorter):
        before = shorter[: found.start()]
        if shorter != stem and before[-1:].isalnum():  # film3_002 is of film3
            break
        shorter = _strip_piece(before.rstrip(_SEPARATORS))
    if shorter == stem:
        return ""
    return f"{folder}{slash}{shorter}" if shorter else folder


def _strip_piece(name: str) -> str:
    """Without a last word such as `part`."""
    word = re.split(r"[ _.\-]", name)[-1]
    return name[: len(name) - len(word)].rstrip(_SEPARATORS) if word.lower() in _PIECES else name


def _make_finder(pattern: str | None) -> tuple[Callable[[str], str], str]:
    if pattern is None:
        return strip_number, "names without their last number"
    expression = re.compile(pattern)

    def find(name: str) -> str:
        found = expression.search(name)
        return "" if found is None else (found.group(1 if expression.groups else 0) or "")

    return find, f"what {pattern} finds in names"


def _name_files(items: Iterable[SourceItem]) -> list[str]:
    """Paths of the files, of the video if there is one, below the folder of all; normalised, without suffix."""
    paths = [item.video or item.audio for item in items]
    known = [path for path in paths if path]
    first, last = (min(known), max(known)) if known else ("", "")
    n_common = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
    )
    root = first[:n_common].rpartition("/")[0]
    return [normalise(strip_suffix(path[len(root) :].lstrip("/"))) if path else "" for path in paths]


def _apply(items: Sequence[SourceItem], named: Sequence[str], what: str, *, is_asked: bool) -> Grouping:
    """Set the groups; those that nobody asked for only if the items can still be divided."""
    counts = Counter(name for item, name in zip(items, named, strict=True) if name and not item.reason)
    shared = {name: n for name, n in counts.items() if n > 1}
    if is_asked and not counts:
        raise IngestError(f"ingest.group: no group comes from {what}, the first file is {_first(items)!r}. {_CHANGE}.")
    if not shared:
        return Grouping(list(items), f"every item is one of its own by {what}")
    n_items = sum(not item.reason for item in items)
    ordered = sorted(shared.items(), key=lambda pair: (-pair[1], pair[0]))
    largest, n_largest = ordered[0]
    n_groups = n_items - sum(shared.values()) + len(shared)
    examples = ", ".join(f"{name} ({n:,} items)" for name, n in ordered[:3])
    if not is_asked and (2 * n_largest > n_items or n_groups < MIN_GROUPS):
        sentence = (
            f"{what} would make {n_groups:,} group(s) of {n_items:,} items, e.g. {largest} ({n_largest:,} items), "
            "which cannot be divided well: every item is one of its own. If they are cuts of one film or song, "
            f"results are inflated by leakage. {_CHANGE}"
        )
        return Grouping(list(items), sentence, is_doubtful=True)
    grouped = [
        replace(item, group=name) if name in shared and not item.group else item
        for item, name in zip(items, named, strict=True)
    ]
    return Grouping(grouped, f"{n_groups:,} of {n_items:,} items by {what}, e.g. {examples}. {_CHANGE}")


def _first(items: Sequence[SourceItem]) -> str:
    return next((item.video or item.audio for item in items if item.video or item.audio), "")
