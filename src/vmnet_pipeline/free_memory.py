"""Find how much memory this process may still take: what is free on the machine, and in its control groups."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from vmnet_pipeline.cores import list_groups

_MEMINFO = Path("/proc/meminfo")
_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))  # version 2, version 1


def find_free_memory_mb() -> int | None:
    """Megabytes that this process may still take; None where the system does not tell."""
    found = [free for free in (_read_machine(), *map(_read_group, list_groups("memory"))) if free is not None]
    return max(0, min(found)) >> 20 if found else None


def _read_machine() -> int | None:
    with suppress(OSError, ValueError, KeyError):
        return _read_table(_MEMINFO)["MemAvailable:"] << 10
    return None


def _read_group(folder: Path) -> int | None:
    """Bytes left of a group's limit; pages of files that nobody uses count as free."""
    for limit, usage in _FILES:
        with suppress(OSError, ValueError):  # no such file, or "max"
            free = int((folder / limit).read_text(encoding="ascii")) - int((folder / usage).read_text(encoding="ascii"))
            with suppress(OSError, ValueError, KeyError):
                free += _read_table(folder / "memory.stat")["inactive_file"]
            return free
    return None


def _read_table(path: Path) -> dict[str, int]:
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1}
