"""Count the cores that this process may use: by its cpuset, its cgroup's quota, and its share as one of several."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path, PurePosixPath

_CGROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")

_share: int | None = None


def count_cores() -> int:
    """Cores that this process may use; at least 1.

    `os.cpu_count` is the machine's number: a container of two cores on a machine of 64 would start 64 threads.
    """
    return find_core_limit() or _count_allowed()


def limit_cores(n_cores: int | None) -> None:
    """Let this process count so many cores at most from now on: it is one of several workers on its machine."""
    global _share
    _share = n_cores


def find_core_limit() -> int | None:
    """Cores that this process may use where `limit_cores` or its cgroup says so; else None.

    Libraries know the cpuset, and not the other two: None leaves the number of threads to them.
    """
    limits = [limit for limit in (_share, _find_quota()) if limit is not None]
    return min(_count_allowed(), *limits) if limits else None


def _count_allowed() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _find_quota() -> int | None:
    """Cores of CPU time that the control groups above this process grant: the least of them, rounded up.

    Version 2 keeps "quota period" or "max period" in `cpu.max`, version 1 has a file for each and -1 for no quota
    (Linux, Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst).
    """
    quotas = [quota for folder in list_groups("cpu") for quota in (_read_quota(folder),) if quota is not None]
    return max(1, math.ceil(min(quotas))) if quotas else None


def list_groups(controller: str) -> list[Path]:
    """Folders of the control groups of `cpu` or `memory` that hold this process, and of those above them."""
    folders = []
    with suppress(OSError, ValueError):
        for line in _CGROUPS.read_text(encoding="utf-8", errors="replace").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            base = _MOUNT / controllers if controllers else _MOUNT
            inner = PurePosixPath(group.lstrip("/"))
            folders += [base / part for part in (inner, *inner.parents)]
    return folders


def _read_quota(folder: Path) -> float | None:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with suppress(OSError, ValueError):  # no such file, or "max"
            words = " ".join((folder / name).read_text(encoding="ascii") for name in names).split()
            quota, period = int(words[0]), int(words[1])
            if quota > 0 and period > 0:
                return quota / period
    return None
