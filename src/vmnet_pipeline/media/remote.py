"""Read media files of an object store in blocks; FFmpeg gets only an open file, as for local ones."""

from __future__ import annotations

import errno
import io
from typing import TYPE_CHECKING, Any, cast

from vmnet_pipeline.errors import MediaError, StorageError
from vmnet_pipeline.storage.paths import as_path, storage_errors

if TYPE_CHECKING:
    import os

    from typing_extensions import Buffer

BLOCK_BYTES = 1 << 20
KEPT_BLOCKS = 32
"""Decoding jumps between index and content of a file, so blocks are kept, at most 32 MB per open file."""

STREAM_BYTES = 8 << 20
_MAX_PLACE = 1 << 60


class RemoteFile(io.RawIOBase):
    """An object opened for reading. FFmpeg takes a failed read for its end; `check` tells the difference."""

    def __init__(self, file: Any, name: str) -> None:
        self._file, self._name = file, name
        self._error: Exception | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Buffer) -> int:
        """Read what fits into `buffer`."""
        view = memoryview(buffer)
        try:
            content = self._file.read(len(view))
        except Exception as error:  # every kind of store has its own
            self._error = error
            raise OSError(f"reading failed ({type(error).__name__}: {error})") from error
        view[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Change the position; an impossible one returns an error number, as for a local file."""
        place = (0, self._file.tell(), self._file.size)[whence] + offset
        return cast("int", self._file.seek(place)) if 0 <= place <= _MAX_PLACE else -errno.EINVAL

    def tell(self) -> int:
        """The place."""
        return cast("int", self._file.tell())

    def close(self) -> None:
        """Release the blocks."""
        if not self.closed:
            self._file.close()
        super().close()

    def check(self) -> None:
        """Raise a `MediaError` (`unreadable`) if reading has failed."""
        if self._error is not None:
            raise MediaError("unreadable", f"{self._name}: reading failed ({self._error}); run again") from self._error


def open_remote_file(path: str | os.PathLike[str], *, streams: bool = False) -> RemoteFile:
    """Open a non-empty object; with `streams` in large blocks, to be read once from its beginning to its end.

    Raises:
        MediaError: `missing_file`, `not_a_file`, `empty_file` or `unreadable`.
    """
    try:
        place: Any = as_path(str(path))
        details = place.fs.info(place.path)
        if details["type"] != "file":
            raise MediaError("not_a_file", f"{path}: not a file; give the path of a media file")
        if not details["size"]:
            raise MediaError("empty_file", f"{path}: the file is empty; copy it again")
        if streams:
            file = place.fs.open(place.path, "rb", block_size=STREAM_BYTES, cache_type="readahead")
        else:
            kept = {"maxblocks": KEPT_BLOCKS}
            file = place.fs.open(place.path, "rb", block_size=BLOCK_BYTES, cache_type="blockcache", cache_options=kept)
    except FileNotFoundError as error:
        raise MediaError("missing_file", f"{path}: no such file; check the path") from error
    except storage_errors(StorageError, ValueError) as error:
        raise MediaError("unreadable", f"{path}: cannot be opened ({error}); check name and credentials") from error
    return RemoteFile(file, str(path))
