"""Landlock (Linux 5.13 and newer): give up access to all files but some, and to the network.

It applies to the calling thread and its children. Open descriptors stay usable.

Source: Linux, Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # the same on all machines
_ASK_VERSION, _PATH_BENEATH = 1, 1
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
# Rights of the first version, and how many bits later ones have: links between folders, truncation, device control.
_N_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_ALL_NETWORK = 0b11  # bind and connect
_ALL_SCOPES = 0b11  # abstract sockets, and signals, to processes outside


def restrict_files(readable: Iterable[str] | None) -> None:
    """Give up changing and running files, the network, and signals to others, as far as this kernel supports it.

    Args:
        readable: Files and folders that stay readable, missing ones are ignored; None: all stay readable.

    Raises:
        OSError: The kernel has no Landlock, or it is turned off.
    """
    version = _call(_CREATE, None, 0, _ASK_VERSION)
    rights = (1 << _N_FILE_RIGHTS.get(version, 16)) - 1
    if readable is None:
        rights &= ~(_READ_FILE | _READ_FOLDER)
    fields = [rights, *([_ALL_NETWORK] if version >= 4 else []), *([_ALL_SCOPES] if version >= 6 else [])]
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = _call(_CREATE, attributes, len(attributes), 0)
    try:
        for path in readable or ():
            with suppress(OSError):
                _let_read(ruleset, path)
        _call(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _let_read(ruleset: int, path: str) -> None:
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        rule = struct.pack("=Qi", _READ_FILE | (_READ_FOLDER if is_folder else 0), handle)
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(handle)


def _call(number: int, *arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    plain = (ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments)
    result: int = libc.syscall(ctypes.c_long(number), *plain)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
