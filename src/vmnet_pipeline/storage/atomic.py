"""Writing files so that a reader never sees half of one, whatever happens to the writer."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
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
from vmnet_pipeline.storage.paths import is_remote, upload
from vmnet_pipeline.storage.weak_disks import UNABLE, flush, rename_over

if TYPE_CHECKING:
    from collections.abc import Iterator

TEMPORARY_PREFIX = ".tmp-"
_OLD_S = 7 * 24 * 3600.0

_REMEDIES = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space, or have the quota raised",
    errno.EFBIG: "Take a file system, or a limit of the shell, that allows larger files",
    errno.EIO: "See to the disk, or its connection: the log of the system says more",
    errno.EACCES: "Correct the rights of the folder",
    errno.EPERM: "Correct the rights of the folder",
    errno.EROFS: "Take a place that can be written",
}
_FULL_DATABASE = "database or disk is full"


def explain_disk_error(error: BaseException | None) -> StorageError | None:
    """In words, and with what to do about it, that a disk is full or defect, or lacks rights; None for other errors.

    Args:
        error: What was raised. Libraries wrap the error of the system, and some keep only its text.
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
    """Yield a temporary path beside `path`; on a clean exit it takes the place of `path`.

    The temporary name is unique, so that several writers never collide; the last one wins. When the
    block raises, the temporary file is removed and `path` is as it was. For a place in an object store the temporary
    file is a local one, and is uploaded at the end.

    Args:
        path: The file.
        durable: Whether a loss of power too leaves the old content or the new one. It takes some milliseconds, which
            is for what took long to make.
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
    """Yield a temporary folder beside `folder`; on a clean exit it takes the place of `folder`, whole and for good.

    A reader that opened files of the old folder keeps them. When the block raises, `folder` is as it was. Of several
    writers the last one wins. What killed writers left is put in order first: see `exchange` for what is recovered.
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
            recover_folder(folder)  # what had to step aside is not needed any more
        finally:
            discard(temporary)


def _name_temporary(folder: Path) -> Path:
    return folder.with_name(f"{TEMPORARY_PREFIX}{folder.name}-{uuid.uuid4().hex}")


@contextmanager
def _make_locked_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that is locked as long as this process lives, so that others see that it is in use."""
    with contextlib.ExitStack() as held:
        while True:
            temporary = _name_temporary(folder)
            temporary.mkdir()
            with contextlib.suppress(FileNotFoundError):
                held.enter_context(lock_folder(temporary))
            if temporary.exists():
                break
            held.close()  # somebody took it for stale before it was locked
        yield temporary


@contextmanager
def lock_folder(folder: Path, *, waits: bool = True) -> Iterator[bool]:
    """Lock a local folder until the block ends, if the file system can.

    Args:
        folder: A folder that is there.
        waits: Whether to wait until nobody else has it.

    Yields:
        Whether this process has it now.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except OSError:
            yield False
            return
        yield True
    finally:
        os.close(handle)


def _remove_stale_folders(folder: Path) -> None:
    for path in folder.parent.glob(f"{TEMPORARY_PREFIX}{glob.escape(folder.name)}-{'?' * 32}"):
        with contextlib.suppress(OSError), lock_folder(path, waits=False) as is_stale:
            if is_stale or _is_old(path):
                discard(path)


def _is_old(path: Path) -> bool:
    """Whether nobody can be at a folder any more, for disks without locks."""
    return time.time() - path.stat().st_mtime > _OLD_S


def flush_file_system(folder: Path) -> None:
    """Have everything written that is on its way to the file system of a local folder, whoever wrote it."""
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
    """Write UTF-8 text; readers see the old content or the new one, never a part. See `replace_atomically`."""
    with replace_atomically(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_stale_temporaries(folder: Path, newest: Path, older_than_s: float = 3600.0) -> None:
    """Remove temporary files that killed writers left in `folder`.

    Args:
        folder: A local folder with few files.
        newest: A file that was written just now: its time is that of the file system, not of this machine's clock.
        older_than_s: Another writer may still be at younger ones.
    """
    with contextlib.suppress(OSError):
        now_s = newest.stat().st_mtime
        for path in folder.glob(".tmp*"):  # not only our own: safetensors has such files, too
            if path.is_file() and now_s - path.stat().st_mtime >= older_than_s:
                path.unlink()
