"""Resolve names that a person wrote to items: an id, or a file name with or without suffix and folder."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmnet_pipeline.ingestion.formats import MEDIA_SUFFIXES, strip_suffix, suffix_of
from vmnet_pipeline.ingestion.ids import is_safe_name, list_possible_ids, make_safe_name
from vmnet_pipeline.storage.names import fold_case, normalise

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd


@dataclass(frozen=True, slots=True)
class MatchedNames:
    """What was found for names that are not ids.

    Attributes:
        ids: Name to the id that it means.
        several: Name to the ids of the items that it fits, if several.
        near: Name that fits nothing to an id that differs from it in case only.
    """

    ids: dict[str, str] = field(default_factory=dict)
    several: dict[str, list[str]] = field(default_factory=dict)
    near: dict[str, str] = field(default_factory=dict)


def match_names(names: Iterable[str], manifest: pd.DataFrame) -> MatchedNames:
    """Find the items of `manifest`, usable or not, that names mean.

    In this order: an id; the id that ingestion makes, or once made, of the name; the end of a path: `b`, `b.mp4`, `a/b`
    and `a/b.mp4` mean the item of the file `.../a/b.mp4`. A name that fits none, e.g. `b.avi`, is tried without its
    media suffix: the list may be older than the files.
    """
    known = set(manifest["id"])
    plain = {name: name.strip().replace("\\", "/").removeprefix("./") for name in names if name not in known}
    wanted = {name: normalise(text) for name, text in plain.items()}
    matched = MatchedNames()
    if not wanted:
        return matched
    _match(wanted, known, manifest, matched)
    stripped = {
        name: strip_suffix(clean)
        for name, clean in wanted.items()
        if suffix_of(clean) in MEDIA_SUFFIXES and name not in {*matched.ids, *matched.several}
    }
    if stripped:
        _match(stripped, known, manifest, matched)
    return matched


def _match(wanted: Mapping[str, str], known: set[str], manifest: pd.DataFrame, matched: MatchedNames) -> None:
    """Match normalised names and add the results to `matched`."""
    by_name = _match_made(wanted, known)
    by_path = _match_paths({name: clean for name, clean in wanted.items() if name not in by_name}, manifest)
    folded = {fold_case(item_id): item_id for item_id in known}
    for name, clean in wanted.items():
        found = [by_name[name]] if name in by_name else sorted(by_path.get(name, ()))
        if len(found) == 1:
            matched.ids[name] = found[0]
        elif found:
            matched.several[name] = found
        elif near := folded.get(fold_case(clean)):
            matched.near[name] = near


def _match_made(wanted: Mapping[str, str], known: set[str]) -> dict[str, str]:
    """Names from which an id was made, and ids that an earlier version made of names that now are ids."""
    earlier = {make_safe_name(item_id): item_id for item_id in known if not is_safe_name(item_id)}
    matched = {}
    for name, clean in wanted.items():
        made = next((item_id for item_id in list_possible_ids(clean) if item_id in known), earlier.get(clean))
        if made is not None:
            matched[name] = made
    return matched


def _match_paths(wanted: Mapping[str, str], manifest: pd.DataFrame) -> dict[str, set[str]]:
    """Map names to the items with a file whose path ends with the name."""
    by_base: dict[str, list[str]] = defaultdict(list)
    for name, clean in wanted.items():
        by_base[clean.rpartition("/")[2]].append(name)
    found: dict[str, set[str]] = defaultdict(set)
    for column in ("video_path", "audio_path"):
        for item_id, path in zip(manifest["id"].tolist(), manifest[column].tolist(), strict=True):
            for form in _forms_of(path):
                for name in by_base.get(form.rpartition("/")[2], ()):
                    if f"/{form}".endswith(f"/{wanted[name]}"):
                        found[name].add(item_id)
    return found


def _forms_of(path: str) -> Sequence[str]:
    full = normalise(path)
    return (full, strip_suffix(full)) if full else ()
