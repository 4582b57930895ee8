"""List the media files of a folder: follow links, check content, log what is skipped."""

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

logger = logging.getLogger(__name__)

N_NAMED = 20  # files named in one line of the log; at level DEBUG all are


def list_media_files(folder: Path, recognise: Recognise) -> list[str]:
    """Media files below `folder`, sorted, without hidden ones.

    Files with a media suffix are accepted, as probing reports what is wrong with them; of the others those that
    `recognise` accepts by content. In an object store the suffix decides.

    Paths are text here and below: making a million Path objects would take longer than finding the files.

    Args:
        recognise: Called once with all files that are not text or of another well-known kind.
    """
    found = walk_files(folder)
    media = [path for path in found if suffix_of(path) in MEDIA_SUFFIXES]
    others = [path for path in found if suffix_of(path) not in MEDIA_SUFFIXES]
    doubtful = [] if is_remote(folder) else [path for path in others if read_content(path) != "other"]
    recognised = recognise(doubtful) if doubtful else set()
    skipped = [path for path in others if path not in recognised]
    log_skipped(folder, skipped, "they hold no media that can be decoded")
    return sort_by_folder([*media, *recognised])


def walk_files(folder: Path) -> list[str]:
    """All files below `folder` that are not hidden, also behind links to folders; each folder counts once.

    A folder that cannot be read is skipped with a warning.
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
    log_skipped(folder, hidden, "they are hidden")
    return found


def _walk_folders(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Folders with the names of their files: first the real ones, then the targets of links.

    A folder is entered once, so that loops end, and a parent of `folder` is not.
    """
    seen = {_identify(str(parent)) for parent in Path(folder).resolve().parents}
    pending = deque([folder])
    while pending:
        for root, folders, files in os.walk(pending.popleft(), onerror=_warn_of_folder, followlinks=False):
            key = _identify(root)
            if key in seen:
                logger.info("The folder %r is skipped: it leads to one that is read already", root)
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


def log_skipped(folder: Path, paths: Sequence[str], why: str, level: int = logging.INFO) -> None:
    """Count and name unused files in one line of the log."""
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
    """A name for a log: line breaks and undecodable bytes are escaped."""
    return repr(spell_out(name))


def spell_out(path: str) -> str:
    """`path` with undecodable bytes written as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def sort_by_folder(paths: Iterable[str]) -> list[str]:
    """Paths in the order of their parts."""
    return sorted(paths, key=lambda path: path.replace("/", "\0"))


def prefix_of(folder: Path | str) -> str:
    """The folder with one slash at its end, which a bucket and the root of a disk have already."""
    return f"{str(folder).rstrip('/')}/"
