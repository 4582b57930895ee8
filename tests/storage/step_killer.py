"""Kill a function before each of its system calls that change a file, one after the other (Linux, ptrace)."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import sys
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

libc = ctypes.CDLL(None, use_errno=True)
_TRACE_ME, _CONTINUE, _SYSTEM_CALL, _SET_OPTIONS, _DESCRIBE_CALL = 0, 7, 24, 0x4200, 0x420E
_MARK_CALLS, _KILL_WITH_TRACER, _AT_ENTRY = 1, 1 << 20, 1
# Number of a call on x86-64 and aarch64; of `open` and `openat` only what makes or empties a file.
_CHANGES = {
    "write": (1, 64), "pwrite64": (18, 68), "writev": (20, 66), "rename": (82, None), "renameat": (264, 38),
    "renameat2": (316, 276), "unlink": (87, None), "unlinkat": (263, 35), "mkdir": (83, None), "mkdirat": (258, 34),
    "rmdir": (84, None), "ftruncate": (77, 46), "truncate": (76, 45), "fsync": (74, 82), "fdatasync": (75, 83),
    "flock": (73, 32), "open": (2, None), "openat": (257, 56), "link": (86, None), "linkat": (265, 37),
    "symlink": (88, None), "symlinkat": (266, 36), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53),
    "utimensat": (280, 88), "copy_file_range": (326, 285), "sendfile": (40, 71), "fallocate": (285, 47),
}  # fmt: skip
_COLUMN = {"x86_64": 0, "aarch64": 1}.get(platform.machine())
_NAMES = {numbers[_COLUMN]: name for name, numbers in _CHANGES.items()} if _COLUMN is not None else {}
_CREATES = os.O_CREAT | os.O_TRUNC


def can_trace() -> bool:
    """Whether this system lets a process be stopped at its system calls."""
    if sys.platform != "linux" or _COLUMN is None:
        return False
    try:
        return run_until(lambda: None, None)[0] == "ended"
    except OSError:
        return False


def run_until(function: Callable[[], object], n_changes: int | None) -> tuple[str, list[str]]:
    """Run in a child that is killed before change number `n_changes`, from 0.

    Returns:
        `killed`, `ended` or `failed`, and the changes it had come to, the one that it did not get to do included.
    """
    pid = os.fork()
    if pid == 0:
        _be_traced(function)
    os.waitpid(pid, 0)
    _ask(_SET_OPTIONS, pid, 0, _MARK_CALLS | _KILL_WITH_TRACER)
    changes: list[str] = []
    passed_on = 0
    while True:
        _ask(_SYSTEM_CALL, pid, 0, passed_on)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return ("ended" if status == 0 else "failed"), changes
        number = os.WSTOPSIG(status)
        passed_on = 0 if number & 0x80 or number == signal.SIGTRAP else number
        if not number & 0x80 or not (name := _name_change(pid)):
            continue
        changes.append(name)
        if len(changes) - 1 == n_changes:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "killed", changes


def _be_traced(function: Callable[[], object]) -> None:
    status = 1
    try:
        _ask(_TRACE_ME, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _name_change(pid: int) -> str:
    """The change that a process, stopped at a system call, is about to make; empty for others and after the call."""
    about = ctypes.create_string_buffer(88)
    _ask(_DESCRIBE_CALL, pid, len(about), ctypes.addressof(about))
    kind, number, *values = struct.unpack_from("<B23xQ6Q", about.raw)
    name = _NAMES.get(number, "") if kind == _AT_ENTRY else ""
    if name == "write" and values[0] in (1, 2):
        return ""
    flags = {"open": 1, "openat": 2}.get(name)
    return name if flags is None or values[flags] & _CREATES else ""


def _ask(request: int, pid: int, address: int, data: int) -> None:
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(ctypes.c_long(request), ctypes.c_long(pid), ctypes.c_void_p(address), ctypes.c_void_p(data)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
