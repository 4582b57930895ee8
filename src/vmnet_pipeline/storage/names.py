"""Compare file names across systems: composed or decomposed letters, upper and lower case.

A Mac may write `é` as two characters (NFD) where Linux and Windows have one (NFC). Names are compared normalised, and
files are found on disk as they are.
"""

from __future__ import annotations

import functools
import os
import unicodedata
from pathlib import Path

from vmnet_pipeline.storage.paths import is_remote


def normalise(text: str) -> str:
    """The composed form (NFC) of a name."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def fold_case(text: str) -> str:
    """Key under which two names are one file on a case-insensitive file system."""
    return normalise(text.casefold())


class DiskNames:
    """Find files whose names are composed differently on disk; each folder is listed once."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, str]] = {}

    def find(self, path: str) -> str:
        """The path of a file or folder as spelled on disk; `path` itself if it exists, or does not in any spelling."""
        if path.isascii() or is_remote(path) or os.path.lexists(path):
            return path
        head, _, name = path.rpartition("/")
        folder = self.find(head) if head else ("/" if path.startswith("/") else ".")
        found = self._list(folder).get(normalise(name))
        return path if found is None else os.path.join(folder if head or path[0] == "/" else "", found)  # noqa: PTH118

    def _list(self, folder: str) -> dict[str, str]:
        if folder not in self._folders:
            try:
                names = sorted(os.listdir(folder))  # noqa: PTH208 - names, not paths
            except OSError:
                names = []
            self._folders[folder] = {normalise(name): name for name in names}
        return self._folders[folder]


def find_on_disk(path: Path) -> Path:
    """One path as spelled on disk; see `DiskNames`."""
    text = str(path)
    found = DiskNames().find(text)
    return path if found == text else Path(found)


def find_entry(folder: Path, names: tuple[str, ...], *, is_folder: bool = True) -> list[Path]:
    """Entries of a folder, local or remote, whose names are among the lower-case `names` in any case, in that order.

    A missing folder has none.
    """
    try:  # a folder may have a million names: do not make a path of each
        entries = [path.name for path in folder.iterdir()] if is_remote(folder) else os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []
    found = [folder / name for name in entries if name.casefold() in names]
    found = [path for path in found if (path.is_dir() if is_folder else path.is_file())]
    return sorted(
        found, key=lambda path: (names.index(path.name.casefold()), path.name != path.name.lower(), path.name)
    )


def find_file(folder: Path, name: str) -> Path:
    """A file of a folder by its name, in lower case, or by the same in another case; the plain path if there is none.

    Args:
        folder: A folder; in a remote one the name has to be exact.
        name: In lower case.
    """
    path = folder / name
    found = [] if is_remote(folder) or path.is_file() else find_entry(folder, (name,), is_folder=False)
    return found[0] if found else path


def hint_at_case(path: Path) -> str:
    """Hint for a missing file: the name of another one that differs in case only; empty if there is none."""
    try:
        near = _find_in_any_case(path)
    except (OSError, ValueError):
        near = None
    if near is None:
        return ""
    return f" ({near.name if near.parent == path.parent else near} there differs in upper and lower case only)"


def _find_in_any_case(path: Path) -> Path | None:
    if path == path.parent:
        return None
    folder = path.parent if path.parent.is_dir() else _find_in_any_case(path.parent)
    name = None if folder is None else _fold_names(folder, folder.stat().st_mtime_ns).get(fold_case(path.name))
    return None if folder is None or name is None else folder / name


@functools.lru_cache(maxsize=4)  # many files of one folder may be missing
def _fold_names(folder: Path, _changed_ns: int) -> dict[str, str]:
    return {fold_case(name): name for name in os.listdir(folder)}  # noqa: PTH208 - names, not paths


def is_case_sensitive(folder: Path) -> bool:
    """Whether a folder, existing or not, is case-sensitive. Nothing is written."""
    if is_remote(folder):
        return True
    place = Path(os.path.abspath(folder))  # noqa: PTH100 - links stay
    while not place.exists() or place.name.swapcase() == place.name:
        if place == place.parent:
            return True
        place = place.parent
    other = place.with_name(place.name.swapcase())
    return not (other.exists() and other.samefile(place))
