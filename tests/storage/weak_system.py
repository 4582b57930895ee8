"""Let system calls of this process and its children fail, as on disks that cannot do them (Linux, seccomp)."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Numbers of the calls on x86-64 and aarch64.
_CALLS = {
    "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36), "flock": (73, 32),
    "fcntl": (72, 25), "fsync": (74, 82), "fdatasync": (75, 83), "syncfs": (306, 267), "chmod": (90, None),
    "fchmod": (91, 52), "fchmodat": (268, 53), "write": (1, 64), "pwrite64": (18, 68), "writev": (20, 66),
    "ftruncate": (77, 46), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "mkdir": (83, None),
    "mkdirat": (258, 34),
}  # fmt: skip
_LOCKS = (6, 7, 37, 38)  # F_SETLK, F_SETLKW and those of open files; other calls of fcntl go on
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERROR, _NO_NEW_PRIVILEGES, _SET_FILTER = 0x7FFF0000, 0x00050000, 38, 22

WEAK = {
    **dict.fromkeys(("link", "linkat", "symlink", "symlinkat", "chmod", "fchmod", "fchmodat"), errno.EPERM),
    **dict.fromkeys(("flock", "fcntl"), errno.ENOLCK),
    **dict.fromkeys(("fsync", "fdatasync", "syncfs"), errno.EINVAL),
}
"""What disks such as exFAT, SMB and mounted buckets refuse."""


def can_refuse() -> bool:
    """Whether this system has such filters."""
    return sys.platform == "linux" and platform.machine() in _MACHINES


def refuse(calls: Mapping[str, int]) -> None:
    """Let calls fail with error numbers from now on; `fcntl` only where it locks."""
    column, architecture = _MACHINES[platform.machine()]
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, 0)]
    for name, code in calls.items():
        number = _CALLS[name][column]
        if number is None:
            continue
        answer = (_RETURN, 0, 0, _ERROR | code)
        if name != "fcntl":
            program += [(_EQUAL, 0, 1, number), answer]
            continue
        asked = [step for kind in _LOCKS for step in ((_EQUAL, 0, 1, kind), answer)]
        program += [(_EQUAL, 0, len(asked) + 2, number), (_LOAD, 0, 0, 24), *asked, (_LOAD, 0, 0, 0)]
    packed = b"".join(struct.pack("=HBBI", *step) for step in [*program, (_RETURN, 0, 0, _ALLOW)])
    buffer = ctypes.create_string_buffer(packed, len(packed))
    libc = ctypes.CDLL(None, use_errno=True)
    heading = struct.pack("@HP", len(packed) // 8, ctypes.addressof(buffer))
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if libc.prctl(_SET_FILTER, 2, heading):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
