"""The private folder of uploads: recreated if removed, and cleaned up after its service, even a killed one."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from vmnet_pipeline.serving.errors import RefusedError
from vmnet_pipeline.storage.locks import try_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "vmnet-uploads-"
MIN_FREE_BYTES = 1 << 20  # with less room than this the service is not ready
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
RETRY_S = 30


class UploadFolder:
    """A temporary folder, locked while this process lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor = -1
        self.path = Path()
        with suppress(OSError):
            _remove_leftovers(Path(tempfile.gettempdir()))
        with suppress(OSError):  # `find_fault` and uploads report a full disk, which may be temporary
            self._ensure()

    def _ensure(self) -> Path:
        with self._lock:
            if self._descriptor < 0 or not _is_same(self.path, self._descriptor):
                self._forget()
                root = Path(tempfile.gettempdir())
                root.mkdir(parents=True, exist_ok=True)
                self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
                self._descriptor = _lock_folder(self.path)
            return self.path

    @contextmanager
    def open_file(self) -> Iterator[tuple[BinaryIO, Path]]:
        """Yield a new file for one upload; it is removed when the block ends.

        Raises:
            RefusedError: 507 when the disk is full, 503 when it cannot be written.
        """
        try:
            descriptor, name = tempfile.mkstemp(prefix="upload-", dir=self._ensure())
        except OSError as error:
            raise refuse_storage(error) from error
        file, path = os.fdopen(descriptor, "wb"), Path(name)
        try:
            yield file, path
        finally:
            with suppress(OSError):  # the failure to write was raised before
                file.close()
            with suppress(OSError):
                path.unlink()

    def find_fault(self) -> str:
        """Why an upload cannot be written now; empty if it can."""
        try:
            with self.open_file() as (file, path):
                free = shutil.disk_usage(path.parent).free
                file.write(b"\0" * 4096)
                file.flush()
        except (OSError, RefusedError):
            return "uploads cannot be written: the disk is full, or the folder for temporary files is not writable"
        return "" if free >= MIN_FREE_BYTES else "the disk of the folder for temporary files is full"

    def remove(self) -> None:
        """Remove the folder with its content."""
        with self._lock:
            if self._descriptor >= 0 and _is_same(self.path, self._descriptor):
                shutil.rmtree(self.path, ignore_errors=True)
            self._forget()

    def _forget(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def refuse_storage(error: OSError) -> RefusedError:
    """Turn a failure to write an upload into an error response."""
    if error.errno in FULL:
        return RefusedError(507, "storage_full", "Insufficient storage on this server; try again later.", RETRY_S)
    return RefusedError(503, "no_storage", "The file cannot be stored on this server; try again later.", RETRY_S)


def _lock_folder(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not try_lock(descriptor, alone=True):
        os.close(descriptor)
        raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), str(path))
    return descriptor


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except OSError:
        return False


def _remove_leftovers(root: Path) -> None:
    for path in sorted(root.glob(f"{PREFIX}*")):
        with suppress(OSError):
            descriptor = _lock_folder(path)
            try:
                if os.fstat(descriptor).st_uid == os.getuid():
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)
