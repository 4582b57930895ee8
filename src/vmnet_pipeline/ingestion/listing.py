"""The files of a media folder: walked with its links, told apart by content, and what is left out is said."""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING

from vmnet_pipeline.ingestion.formats import MEDIA_SUFFIXES, read_content, suffix_of
from vmnet_pipeline.storage.paths import is_remote, list_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Recognise = Callable[[Sequence[str]], set[str]]
    """Of files that may be media, those that are."""

logger = logging.getLogger(__name__)

N_NAMED = 20  # so many files are named in a line of the log; at level DEBUG it has all


def list_media_files(folder: Path, recognise: Recognise) -> list[str]:
    """Media files below `folder`, sorted; hidden ones are left out.

    Files with a suffix of media are taken as they are: probing tells what is wrong with one. Of the others those that
    `recognise` knows by their content. In an object store the suffix decides.

    Paths are text here and below: a million of them as objects would take longer to make than to find.

    Args:
        recognise: Asked once about all files that are neither text nor of another well-known kind.
    """
    found = walk_files(folder)
    media = [path for path in found if suffix_of(path) in MEDIA_SUFFIXES]
    others = [path for path in found if suffix_of(path) not in MEDIA_SUFFIXES]
    doubtful = [] if is_remote(folder) else [path for path in others if read_content(path) != "other"]
    recognised = recognise(doubtful) if doubtful else set()
    say_what_is_left_out(
        folder, [path for path in others if path not in recognised], "they hold no media that can be decoded"
    )
    return sort_by_folder([*media, *recognised])


def walk_files(folder: Path) -> list[str]:
    """All files below `folder` that are not hidden, those behind links to folders too; each folder counts once.

    What lies in a folder that cannot be read is left out; a warning names it.
    """
    if is_remote(folder):
        names = [name for name in list_files(folder, recursive=True) if "/." not in f"/{name}"]
        return [prefix_of(folder) + name for name in names]
    found: list[str] = []
    hidden: list[str] = []
    for root, names in _walk_folders(str(folder)):
        prefix = prefix_of(root)
        found += [prefix + name for name in names if name[0] != "."]
        hidden += [prefix + name for name in names if name[0] == "."]
    say_what_is_left_out(folder, hidden, "they are hidden")
    return found


def _walk_folders(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Folders with the names of their files: first what is really there, then what links lead to.

    A folder that was seen is not entered again, so that loops end; nor is one that has this one in it.
    """
    seen = {_identify(str(parent)) for parent in Path(folder).resolve().parents}
    pending = deque([folder])
    while pending:
        for root, folders, files in os.walk(pending.popleft(), onerror=_warn_of_folder, followlinks=False):
            key = _identify(root)
            if key in seen:
                logger.info("The folder %r is left out: it leads to one that is read already", root)
                folders.clear()
                continue
            seen.add(key)
            shown = sorted(name for name in folders if name[0] != ".")
            hidden = sorted(name for name in folders if name[0] == ".")
            links = {name for name in shown if os.path.islink(f"{root}/{name}")}  # noqa: PTH114 - of a million folders
            pending.extend(prefix_of(root) + name for name in shown if name in links)
            folders[:] = [name for name in shown if name not in links]
            yield root, [*files, *(f"{name}/" for name in hidden)]


def _identify(folder: str) -> tuple[int, int]:
    try:
        status = os.stat(folder)  # noqa: PTH116
    except OSError:
        return (-1, hash(folder))
    return status.st_dev, status.st_ino


def _warn_of_folder(error: OSError) -> None:
    logger.warning("The folder %r cannot be read, its files are left out: %s", error.filename, error.strerror)


def say_what_is_left_out(folder: Path, paths: Sequence[str], why: str, level: int = logging.INFO) -> None:
    """Count and name files that are not used, in one line of the log."""
    if not paths:
        return
    counts = Counter(suffix_of(path) or "no suffix" for path in paths).most_common()
    kinds = ", ".join([*(f"{count} x {kind}" for kind, count in counts[:8]), *["..."] * (len(counts) > 8)])
    names = sort_by_folder(path.removeprefix(prefix_of(folder)) for path in paths)
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    place = spell_out(str(folder))
    listed = ", ".join(map(quote_name, names[:N_NAMED]))
    logger.log(level, "%d files are left out of %s: %s (%s): %s%s", len(names), place, why, kinds, listed, more)
    if more:
        logger.debug("All files that are left out: %s", ", ".join(map(quote_name, names)))


def quote_name(name: str) -> str:
    """A name as it may stand in a log: letters stay, line breaks and bytes that are no text are spelt out."""
    return repr(spell_out(name))


def spell_out(path: str) -> str:
    """`path` with undecodable bytes written as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def sort_by_folder(paths: Iterable[str]) -> list[str]:
    """Paths in the order of their parts."""
    return sorted(paths, key=lambda path: path.replace("/", "\0"))


def prefix_of(folder: Path | str) -> str:
    """What the paths of all files in a folder begin with; a bucket and the root of a disk end with a slash already."""
    return f"{str(folder).rstrip('/')}/"
