"""Drop the rights that decoding does not need, before the first byte of a file is read.

On Linux: the network, changing and making files, starting programs and processes, inspecting and signalling other
processes, capabilities, and reading of anything but code and the files handed over. Other systems offer no such means.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path

from vmnet_pipeline.media.landlock import restrict_files
from vmnet_pipeline.media.syscall_filter import install_filter

_NO_NEW_PRIVILEGES = 38
_CAPABILITIES_VERSION = 0x20080522
# What the loader, libraries and Python read later; of `/proc`, only what tells of this process and the hardware.
_SYSTEM_PLACES = ("/usr", "/lib", "/lib64", "/lib32", "/nix/store", "/gnu/store", "/etc/ld.so.cache",
                  "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/mime.types", "/proc/self/maps",
                  "/proc/self/statm", "/proc/self/status", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat",
                  "/proc/sys/vm/overcommit_memory", "/sys/devices/system",
                  "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")  # fmt: skip
_KEPT_VARIABLES = frozenset({"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP",
                             "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV",
                             "CONDA_PREFIX"})  # fmt: skip
_KEPT_PREFIXES = ("LC_", "PYTHON", "OMP_", "OPENBLAS_", "MKL_", "MALLOC_", "COV_", "COVERAGE_")


def confine(*, reads_paths: bool) -> list[str]:
    """Drop, for good, the rights that decoding does not need; with `reads_paths`, files may still be opened by name.

    Returns:
        Rights that this system does not let a process drop, and why; empty if there are none.
    """
    if sys.platform != "linux":
        return [f"{sys.platform} has neither Landlock nor seccomp"]
    libc, lacking = ctypes.CDLL(None, use_errno=True), []
    libc.prctl(_NO_NEW_PRIVILEGES, *(ctypes.c_ulong(value) for value in (1, 0, 0, 0)))
    try:
        restrict_files(None if reads_paths else _find_code())
    except OSError as error:
        lacking.append(f"Landlock: {error.strerror}")
    _drop_capabilities(libc)
    try:
        install_filter()
    except OSError as error:
        lacking.append(f"seccomp: {error.strerror}")
    return lacking


def select_environment() -> dict[str, str]:
    """The variables that such a process needs, none of which may hold a secret."""
    return {
        name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIXES)
    }


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Reduce a process of an administrator to the rights of its user."""
    heading = struct.pack("=Ii", _CAPABILITIES_VERSION, 0)
    if hasattr(libc, "capset"):
        libc.capset(heading, bytes(24))


def _find_code() -> list[str]:
    """Locations of Python and libraries, without the current folder and its parents, which may hold anything."""
    here = Path.cwd()
    imported = [place for place in sys.path if place and not here.is_relative_to(Path(place).absolute())]
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    own = str(Path(__file__).parents[1])
    return [*_SYSTEM_PLACES, sys.prefix, sys.base_prefix, own, *imported, *filter(None, libraries)]
