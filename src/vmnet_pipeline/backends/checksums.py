"""Check a file against what its publisher states, and remember that it was checked."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import WeightsError
from vmnet_pipeline.storage.atomic import write_text_atomically
from vmnet_pipeline.storage.checksummed import hash_file, parse_json

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class FileCheck:
    """Published checksums of a file; None is not checked.

    Attributes:
        size: Bytes.
        sha256: Full hex digest.
        sha256_prefix: First hex digits of the sha256 (torch.hub puts them into file names).
        md5: Hex digest, for publishers that give nothing better.
    """

    size: int | None = None
    sha256: str | None = None
    sha256_prefix: str | None = None
    md5: str | None = None

    def __str__(self) -> str:
        known = [f"{name} {value}" for name, value in asdict(self).items() if value]
        return ", ".join(known) or "no checksum is published"


def verify_file(path: Path, check: FileCheck, *, label: str | None = None) -> str:
    """Check one file, called `label` in messages, and return its hex sha256.

    Raises:
        WeightsError: The file is another one, or damaged.
    """
    sha256 = hash_file(path)
    expected = [
        ("size", check.size, path.stat().st_size),
        ("sha256", check.sha256, sha256),
        ("sha256_prefix", check.sha256_prefix, sha256[: len(check.sha256_prefix or "")]),
        ("md5", check.md5, _hash_md5(path) if check.md5 else None),
    ]
    for kind, wanted, found in expected:
        if wanted is not None and wanted != found:
            raise WeightsError(
                f"{label or path}: {kind} is {found}, should be {wanted}; the file is damaged or another "
                "version: delete it and fetch it again"
            )
    return sha256


def _hash_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def _stamp_path(path: Path) -> Path:
    return path.with_name(path.name + ".verified.json")


def write_stamp(path: Path, sha256: str) -> None:
    """Note next to a file that it has been checked; a folder that cannot be written costs a hash next time."""
    status = path.stat()
    content = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256}
    with contextlib.suppress(OSError):
        write_text_atomically(_stamp_path(path), json.dumps(content))


def _read_valid_stamp(path: Path) -> str | None:
    try:
        content = parse_json(_stamp_path(path).read_text(encoding="utf-8"))
        status = path.stat()
        unchanged = content["size"] == status.st_size and content["mtime_ns"] == status.st_mtime_ns
        return str(content["sha256"]) if unchanged else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def has_stamp(path: Path) -> bool:
    """Whether the file was checked and has the size and time it had then."""
    return _read_valid_stamp(path) is not None


def read_stamp(path: Path) -> str:
    """Hex sha256 of a checked file: from its stamp, or computed where no stamp could be written."""
    return _read_valid_stamp(path) or hash_file(path)
