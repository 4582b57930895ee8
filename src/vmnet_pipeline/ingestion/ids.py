"""Names that are safe as file names: item ids and collection names."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path

from vmnet_pipeline.storage.paths import is_remote

MAX_ID_LENGTH = 120
DEMO_FOLDER = Path("data/01_raw")

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")


def short_digest(text: str) -> str:
    """Eight hex digits that identify `text`; surrogates of undecodable file names are allowed."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def is_safe_id(text: str) -> bool:
    """Whether `text` can be an item id as it is: 1 to 120 of A-Z a-z 0-9 . _ - and not starting with . _ or -."""
    return _SAFE_ID.fullmatch(text) is not None


def make_safe_id(text: str) -> str:
    """A safe id for `text`: itself when it is safe, else its safe characters and a digest of the whole."""
    if is_safe_id(text):
        return text
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    slug = _UNSAFE.sub("_", ascii_text.replace("/", "-")).strip("._-")
    return f"{slug[: MAX_ID_LENGTH - 9] or 'item'}-{short_digest(text)}"


def make_unique_ids(names: list[str]) -> list[str]:
    """One safe id per name; names whose ids would be the same on any file system get a digest each.

    The id of a name does not depend on the order of `names`.
    """
    ids = [make_safe_id(name) for name in names]
    counts: dict[str, int] = {}
    for item_id in ids:
        counts[item_id.casefold()] = counts.get(item_id.casefold(), 0) + 1
    return [
        item_id if counts[item_id.casefold()] == 1 else f"{item_id[: MAX_ID_LENGTH - 9]}-{short_digest(name)}"
        for item_id, name in zip(ids, names, strict=True)
    ]


def name_collection(media_dir: str, name: str = "") -> str:
    """The name of the collection that a media folder makes, used for its folders under `data/`.

    A folder directly in `data/01_raw` keeps its own name (the demo is `demo`). Any other one gets a digest
    of its absolute path behind its name, so that two folders `clips` never share their results.

    Args:
        media_dir: Media folder, or path of a media.csv.
        name: A name chosen by the user; it counts when it is not empty.
    """
    if name:
        return make_safe_id(str(name))
    if is_remote(media_dir):
        place = str(media_dir).rstrip("/")
        parts = place.removesuffix("/media.csv").rpartition("/")
        return f"{make_safe_id(parts[2])[:60]}-{short_digest(place)}"
    path = Path(media_dir).expanduser().resolve()
    folder = path.parent if path.suffix.lower() == ".csv" else path
    slug = make_safe_id(folder.name)
    if folder.parent == DEMO_FOLDER.resolve() and path == folder and is_safe_id(folder.name):
        return slug
    return f"{slug[:60]}-{short_digest(str(path))}"
