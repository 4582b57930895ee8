"""Replace a folder by another one; at no moment can the only copy be lost.

Linux and macOS exchange two names in one step: the name always exists. Where the system or the file system cannot
(NFS, FAT, some FUSE), the old folder steps aside under its own name, `.replaced-NAME-TOKEN`, for the moment between
two renames. A process killed then leaves the name missing; the next writer puts the old folder back before it removes
anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import os
import shutil
import sys
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

REPLACED_PREFIX = ".replaced-"
_CURRENT_FOLDER, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE; RENAME_SWAP of macOS is 2, too
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM)
_REFUSED = (errno.EPERM, errno.EACCES, errno.EBUSY, errno.ETXTBSY)  # by disks that rename over nothing that is in use
_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def put_in_place(new: Path, folder: Path) -> None:
    """Replace `folder` by `new`; of several processes that do so at once the last one wins.

    Afterwards `new` is the old folder, if they could be exchanged, or is gone.
    """
    while True:
        try:
            new.rename(folder)  # where there is none, or an empty one
            return
        except OSError as error:
            if error.errno not in (*_OCCUPIED, *(_REFUSED if os.path.lexists(folder) else ())):
                raise
        try:
            exchange(new, folder)
            return
        except FileNotFoundError:
            if not new.exists():
                raise
        except OSError as error:
            if error.errno not in (*_CANNOT, *_REFUSED):
                raise
            _step_aside(folder)


def exchange(first: Path, second: Path) -> None:
    """Exchange two names in one step.

    Raises:
        OSError: One is missing, or it cannot be done here (`ENOSYS`, or what the file system says).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first), os.fsencode(second)
    if sys.platform == "darwin":
        failed = libc.renamex_np(*names, _EXCHANGE)
    elif hasattr(libc, "renameat2"):
        failed = libc.renameat2(_CURRENT_FOLDER, names[0], _CURRENT_FOLDER, names[1], _EXCHANGE)
    else:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(second))
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(second))


def recover_folder(folder: Path) -> None:
    """Put back a folder that a killed process left under another name, and remove those that have been replaced.

    It needs no lock: a process between its two renames finds the name taken and begins again.
    """
    replaced = sorted(
        folder.parent.glob(f"{REPLACED_PREFIX}{glob.escape(folder.name)}-{'?' * 32}"), key=_read_time, reverse=True
    )
    for path in replaced:
        if not os.path.lexists(folder):
            with contextlib.suppress(OSError):  # another process was faster
                path.rename(folder)
        # `replaced` was listed before `folder` was looked for: so `folder` is the newer one.
        elif os.path.lexists(path):
            discard(path)


def _read_time(path: Path) -> float:
    """When it stepped aside."""
    try:
        return path.lstat().st_ctime
    except OSError:
        return 0.0


def _step_aside(folder: Path) -> None:
    recover_folder(folder)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(folder.with_name(f"{REPLACED_PREFIX}{folder.name}-{uuid.uuid4().hex}"))


def discard(path: Path) -> None:
    """Remove a folder, or a file of that name; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
