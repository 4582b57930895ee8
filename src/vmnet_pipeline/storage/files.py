"""Writing files so that a reader never sees half of one, whatever happens to the writer."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vmnet_pipeline.storage.paths import is_remote, upload

if TYPE_CHECKING:
    from collections.abc import Iterator

TEMPORARY_PREFIX = ".tmp-"


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it takes the place of `path`.

    The temporary name is unique, so that several writers never collide; the last one wins. When the
    block raises, the temporary file is removed and `path` is as it was. For a place in an object store the temporary
    file is a local one, and is uploaded at the end.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="vmnet-") as folder:
            local = Path(folder) / f"content{path.suffix}"
            yield local
            upload(local, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; on a clean exit it takes the place of `folder`, whole.

    A reader that opened files of the old folder keeps them. When the block raises, `folder` is as it was.
    """
    temporary = folder.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    temporary.mkdir(parents=True)
    old = folder.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        yield temporary
        if folder.exists():
            folder.replace(old)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_text_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text; readers see the old content or the new one, never a part."""
    with replace_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_stale_temporaries(folder: Path, older_than_s: float = 3600.0) -> int:
    """Remove temporary files that killed writers left in `folder`; returns how many."""
    newest = max((entry.stat().st_mtime for entry in os.scandir(folder)), default=0.0)
    removed = 0
    for entry in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError):
            if entry.is_file() and newest - entry.stat().st_mtime >= older_than_s:
                entry.unlink()
                removed += 1
    return removed
