"""Item ids and collection names: which names can be file names, and ids for those that cannot."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from vmnet_pipeline.storage.names import find_on_disk, fold_case, normalise
from vmnet_pipeline.storage.paths import is_remote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_ID_LENGTH = 120
MAX_KEPT_BYTES = 200
"""Longest name in UTF-8 that is kept as an id: file names have 255 bytes, on some encrypted disks fewer."""

DEMO_FOLDER = Path("data/01_raw")
DIGEST_LENGTHS = tuple(range(8, 65, 8))

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
# Control characters, separators of lines and paths, and bytes that are not UTF-8.
_NEVER = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff/\\\\]")
_NOT_ON_ANY_DISK = re.compile('[<>:"|?*]')


def short_digest(text: str, length: int = 8) -> str:
    """Hex digits that identify `text`; surrogates of undecodable file names are allowed."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


# --- names of folders


def is_safe_name(text: str) -> bool:
    """Whether `text` can name a folder as it is: 1 to 120 of A-Z a-z 0-9 . _ - and not starting with . _ or -."""
    return _SAFE.fullmatch(text) is not None


def make_safe_name(text: str, n_digits: int = 8) -> str:
    """A safe name for `text`: itself when it is safe, else its safe characters and a digest of the whole."""
    return text if is_safe_name(text) else _add_digest(_make_slug(text), text, n_digits)


def _make_slug(text: str) -> str:
    import unicodedata

    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return _UNSAFE.sub("_", ascii_text.replace("/", "-")).strip("._-") or "item"


def _add_digest(text: str, source: str, n_digits: int) -> str:
    cut = text.encode()[: MAX_ID_LENGTH - 1 - n_digits].decode(errors="ignore")
    return f"{cut}-{short_digest(source, n_digits)}"


# --- item ids


def is_id(text: str, *, any_disk: bool = True) -> bool:
    """Whether `text` can be an item id as it is: the name of a feature file that also survives a csv file.

    Letters of any language, blanks and a leading `-` or `_` are fine. With `any_disk`, characters that Windows refuses
    are not.
    """
    if is_safe_name(text):
        return True
    if not text or text[0] == "." or text != text.strip() or _NEVER.search(text):
        return False
    if text != normalise(text) or len(text.encode()) > MAX_KEPT_BYTES:
        return False
    return not (any_disk and _NOT_ON_ANY_DISK.search(text))


def make_unique_ids(names: Sequence[str], *, any_disk: bool = True) -> list[str]:
    """One id for each of some different names: the name itself wherever possible.

    Names that cannot be ids, or that differ in case only, get a digest. Equal ids grow longer until they are unique.
    The id of a name does not depend on the order of `names`.

    Args:
        any_disk: Whether ids must be different file names on every disk; else only on a case-sensitive one.
    """
    lengths = [0] * len(names)
    ids = [_make_id(name, 0, any_disk) for name in names]
    while clashing := _find_clashes(ids, any_disk):
        for place in clashing:
            lengths[place] += DIGEST_LENGTHS[0]
            if lengths[place] > DIGEST_LENGTHS[-1]:
                raise ValueError(f"the name {names[place]!r} was given twice")
            ids[place] = _make_id(names[place], lengths[place], any_disk)
    return ids


def _make_id(name: str, n_digits: int, any_disk: bool) -> str:
    text = normalise(name)
    is_possible = is_id(text, any_disk=any_disk)
    if n_digits == 0 and is_possible:
        return text
    return _add_digest(text if is_possible else _make_slug(text), name, n_digits or DIGEST_LENGTHS[0])


def _find_clashes(ids: Sequence[str], any_disk: bool) -> list[int]:
    keys = [fold_case(item_id) for item_id in ids] if any_disk else ids
    counts = Counter(keys)
    return [] if len(counts) == len(ids) else [place for place, key in enumerate(keys) if counts[key] > 1]


def list_possible_ids(name: str) -> Iterator[str]:
    """Every id that `make_unique_ids` may make of a name, the likeliest first."""
    for n_digits in (0, *DIGEST_LENGTHS):
        yield _make_id(name, n_digits, True)


def describe_changes(names: Sequence[str], ids: Sequence[str]) -> list[str]:
    """Describe names that are not their own ids, one sentence per cause, with a count and examples."""
    changed = [(name, item_id) for name, item_id in zip(names, ids, strict=True) if item_id != normalise(name)]
    in_case = [pair for pair in changed if is_id(normalise(pair[0]))]
    others = [pair for pair in changed if not is_id(normalise(pair[0]))]
    causes = (
        (in_case, "differ from others in upper and lower case only"),
        (others, "cannot be file names on every disk (a sub-folder, a special character, or too long)"),
    )
    sentences = []
    for pairs, cause in causes:
        if pairs:
            examples = ", ".join(f"{name!r} -> {item_id}" for name, item_id in sorted(pairs)[:3])
            sentences.append(f"{len(pairs)} of {len(names)} names {cause}; their ids have a digest, e.g. {examples}")
    return sentences


# --- collections


LIBRARY_PREFIX = "library-"
"""Of the collections that are libraries: the same folder may be both, with features of its own for each."""


def name_collection(media_dir: str, name: str = "", library: str = "") -> str:
    """Name the collection of a media folder or media.csv, or the one that is a library, for its folders under `data/`.

    A `name` chosen by the user counts. A folder directly in `data/01_raw` keeps its own name (the demo is `demo`). Any
    other name ends with a digest of the absolute path, so that two folders `clips` never share results.
    """
    if name:
        return make_safe_name(normalise(str(name)))
    if library:
        return f"{LIBRARY_PREFIX}{name_collection(library)}"
    if is_remote(media_dir):
        place = str(media_dir).rstrip("/")
        parts = place.removesuffix("/media.csv").rpartition("/")
        return f"{make_safe_name(parts[2])[:60]}-{short_digest(place)}"
    path = find_on_disk(Path(media_dir).expanduser()).resolve()
    folder = path.parent if path.suffix.lower() == ".csv" else path
    slug = make_safe_name(folder.name)
    if folder.parent == DEMO_FOLDER.resolve() and path == folder and is_safe_name(folder.name):
        return slug
    return f"{slug[:60]}-{short_digest(str(path))}"
