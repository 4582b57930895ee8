"""Write files and folders so that a reader never sees a part of one, whatever happens to the writer."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import os
import tempfile
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import StorageError
from vmnet_pipeline.storage.exchange import discard, put_in_place, recover_folder
from vmnet_pipeline.storage.locks import try_lock
from vmnet_pipeline.storage.paths import is_remote, upload
from vmnet_pipeline.storage.weak_disks import UNABLE, flush, rename_over

if TYPE_CHECKING:
    from collections.abc import Iterator

TEMPORARY_PREFIX = ".tmp-"
_OLD_S = 7 * 24 * 3600.0

_REMEDIES = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space, or have the quota raised",
    errno.EFBIG: "Use a file system, or a shell limit, that allows larger files",
    errno.EIO: "Check the disk, or its connection; the system log says more",
    errno.EACCES: "Correct the permissions of the folder",
    errno.EPERM: "Correct the permissions of the folder",
    errno.EROFS: "Choose a location that can be written",
}
_FULL_DATABASE = "database or disk is full"


def explain_disk_error(error: BaseException | None) -> StorageError | None:
    """Explain, with the remedy, a disk that is full or defective or lacks permissions; None for other errors.

    Libraries wrap the error of the system, and some keep only its text.
    """
    messages = []
    while error is not None:
        messages.append(" ".join(str(error).split()))
        for code, remedy in _REMEDIES.items():
            is_full = code == errno.ENOSPC and _FULL_DATABASE in str(error)
            if is_full or getattr(error, "errno", None) == code or os.strerror(code) in str(error):
                return StorageError(f"{messages[0]}. {remedy}, and run again: everything finished so far is kept.")
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def replace_atomically(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path next to `path`; on a clean exit it replaces `path`.

    The temporary name is unique, so writers never collide; the last one wins. When the block raises, the temporary file
    is removed and `path` is unchanged. For an object store the temporary file is local and uploaded at the end.

    With `durable`, old or new content also survives a loss of power; this costs some milliseconds.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="vmnet-") as folder:
            local = Path(folder) / f"content{path.suffix}"
            yield local
            upload(local, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = name_temporary(path)
    try:
        yield temporary
        if durable:
            flush(temporary)
        rename_over(temporary, path)
        if durable:
            flush(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `folder`; on a clean exit it replaces `folder`, whole and durably.

    A reader that opened files of the old folder keeps them. When the block raises, `folder` is unchanged. Of several
    writers the last one wins. Leftovers of killed writers are cleaned up first: see `exchange` for what is recovered.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    recover_folder(folder)
    _remove_stale_folders(folder)
    with _make_locked_folder(folder) as temporary:
        try:
            yield temporary
            for path in (*temporary.rglob("*"), temporary):
                flush(path)
            put_in_place(temporary, folder)
            flush(folder.parent)
            recover_folder(folder)  # removes a folder that had to step aside
        finally:
            discard(temporary)


def name_temporary(path: Path) -> Path:
    """A unique name next to a file, with its suffix: libraries choose formats by it."""
    return path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}{path.suffix}")


@contextmanager
def _make_locked_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that is locked while this process lives, so that others see that it is in use."""
    with contextlib.ExitStack() as held:
        while True:
            temporary = folder.with_name(f"{TEMPORARY_PREFIX}{folder.name}-{uuid.uuid4().hex}")
            temporary.mkdir()
            with contextlib.suppress(FileNotFoundError):
                held.enter_context(lock_folder(temporary))
            if temporary.exists():
                break
            held.close()  # another process took it for stale before it was locked
        yield temporary


@contextmanager
def lock_folder(folder: Path, *, waits: bool = True) -> Iterator[bool]:
    """Lock an existing local folder until the block ends, and yield whether this process has the lock."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield try_lock(handle, alone=True, waits=waits)
    finally:
        os.close(handle)


def _remove_stale_folders(folder: Path) -> None:
    for path in folder.parent.glob(f"{TEMPORARY_PREFIX}{glob.escape(folder.name)}-{'?' * 32}"):
        with contextlib.suppress(OSError), lock_folder(path, waits=False) as is_stale:
            if is_stale or time.time() - path.stat().st_mtime > _OLD_S:  # by age on disks without locks
                discard(path)


def flush_file_system(folder: Path) -> None:
    """Flush all pending writes to the file system of a local folder, whoever wrote them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        os.sync()
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if libc.syncfs(handle):
            code = ctypes.get_errno()
            if code not in UNABLE:
                raise OSError(code, os.strerror(code), str(folder))
            os.sync()
    finally:
        os.close(handle)


def write_text_atomically(path: Path, text: str, *, durable: bool = False) -> None:
    """Write UTF-8 text; readers see the old content or the new one, see `replace_atomically`."""
    with replace_atomically(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_stale_temporaries(folder: Path, newest: Path, older_than_s: float = 3600.0) -> None:
    """Remove temporary files that killed writers left in `folder`.

    Args:
        folder: A local folder with few files.
        newest: A file that was just written: its time is that of the file system, not of this machine's clock.
        older_than_s: Younger ones may still be in use by another writer.
    """
    with contextlib.suppress(OSError):
        now_s = newest.stat().st_mtime
        for path in folder.glob(".tmp*"):  # safetensors also makes such files
            if path.is_file() and now_s - path.stat().st_mtime >= older_than_s:
                path.unlink()
