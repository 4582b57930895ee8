"""Work around what some disks cannot do (FAT, SMB, NFS, mounted buckets).

A workaround that is less safe is logged once per process.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import time
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

UNABLE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY)
_FOLDER_UNABLE = (*UNABLE, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR)
IN_USE = (errno.EBUSY, errno.ETXTBSY, errno.EACCES, errno.EPERM, errno.EEXIST)
"""Error numbers of renaming over an open file."""

PATIENCE_S = 2.0
_POLL_S = 0.1
_warned: set[str] = set()


def warn_once(message: str, *values: object) -> None:
    """Log a warning once per process."""
    if message not in _warned:
        _warned.add(message)
        logger.warning(message, *values)


def flush(place: Path | int) -> None:
    """Flush a file, an open descriptor, or the names in a folder to disk, to survive a loss of power."""
    if isinstance(place, int):
        _flush_open(place)
        return
    try:
        handle = os.open(place, os.O_RDONLY)
    except OSError as error:
        if place.is_dir() and error.errno in _FOLDER_UNABLE:
            return
        raise
    try:
        _flush_open(handle)
    finally:
        os.close(handle)


def _flush_open(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        if error.errno not in (_FOLDER_UNABLE if is_folder else UNABLE):
            raise
        if not is_folder:  # few disks can flush a folder
            warn_once("Files cannot be flushed to this disk (%s): a loss of power may take the latest", error.strerror)


def allow_reading(path: Path) -> None:
    """Let others read a file that was private while it was written, if the disk keeps rights and the file is ours."""
    with contextlib.suppress(PermissionError):
        path.chmod(0o644)


def rename_over(temporary: Path, path: Path) -> None:
    """Rename a file, also over an open one where the disk refuses that.

    Raises:
        StorageError: The old file is in use and cannot be moved away.
        OSError: It cannot be renamed.
    """
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            temporary.replace(path)
            return
        except OSError as error:
            if error.errno not in IN_USE or not path.is_file():
                raise
            if time.monotonic() >= end:
                _step_aside(temporary, path, error)
                return
        time.sleep(_POLL_S)


def _step_aside(temporary: Path, path: Path, reason: OSError) -> None:
    """Move the old file away first; for a moment the name is missing."""
    aside = temporary.with_suffix(".old")
    try:
        path.replace(aside)
    except OSError:
        raise StorageError(
            f"{path} cannot be replaced ({reason.strerror}). Close the programs that have it open, or correct its "
            "permissions, and run again: everything finished so far is kept."
        ) from reason
    try:
        temporary.replace(path)
    except OSError:
        aside.replace(path)
        raise
    warn_once("%s was replaced in two steps, as this disk cannot rename over an open file", path)
    with contextlib.suppress(OSError):
        aside.unlink()
