"""Reads the locks: what is installed, in which versions, with which checksums."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = (ROOT / "requirements.lock", ROOT / "requirements-torch-cpu.txt")
CUDA_LOCK = ROOT / "requirements-torch-cuda.txt"

_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?:\s*;\s*(?P<marker>[^\\]+?))?\s*(?:\\|$)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Pin:
    """One locked package.

    Attributes:
        name: Normalised name.
        version: Exact version.
        marker: Environments that it is for; empty: all.
        hashes: SHA-256 of every file that is accepted.
    """

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]


def read_locks(*paths: Path) -> list[Pin]:
    """All pins of some locks, by name; a name may come more than once, for different environments.

    Raises:
        ValueError: A line is neither a pin nor a checksum nor a comment, or a pin has no checksum.
    """
    pins = {(pin.name, pin.version): pin for path in paths for pin in _read_lock(path) if "'never'" not in pin.marker}
    return [pins[key] for key in sorted(pins)]


def _read_lock(path: Path) -> list[Pin]:
    text = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    pins = []
    for entry in filter(None, text.replace("\\\n", " ").split("\n")):
        found, hashes = _PIN.match(f"{entry.split('--hash')[0].strip()} \\"), _HASH.findall(entry)
        if found is None or not hashes:
            raise ValueError(f"{path.name}: {entry[:80]!r} is not a version with checksums; renew it with `make lock`")
        name = re.sub(r"[-_.]+", "-", found["name"]).lower()
        pins.append(Pin(name, found["version"], (found["marker"] or "").strip(), tuple(sorted(hashes))))
    return pins
