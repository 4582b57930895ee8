"""Media files that another process opens and hands over, so that a decoder needs no right to open any.

A local file comes as an open descriptor. A remote file is read by the process that opened it, piece by piece on demand,
so that the decoder needs neither network nor credentials.
"""

from __future__ import annotations

import errno
import io
import os
import socket
import struct
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.media.remote import RemoteFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

_PIECE_BYTES = 1 << 20
_REQUEST = struct.Struct("<Q")  # where the wanted piece begins
_ANSWER = struct.Struct("<?I")  # whether it could be read, and how many bytes follow: of the file, or of the reason
_MAX_PLACE = 1 << 60


@dataclass(frozen=True, slots=True)
class Handed:
    """A file of another process."""

    path: str
    descriptor: int  # the open file, or the connection to who reads it
    size_bytes: int | None  # its size, if it is read by the other process; None for an open file


_handed: list[Handed] = []


@contextmanager
def use_handed(handed: Handed | None) -> Iterator[None]:
    """Make a file available to `open_handed` until the block ends, then close its descriptor."""
    if handed is None:
        yield
        return
    _handed.append(handed)
    try:
        yield
    finally:
        _handed.remove(handed)
        os.close(handed.descriptor)


def open_handed(path: str | os.PathLike[str]) -> io.RawIOBase | None:
    """Open a file that was handed over under this name, at its beginning; None if there is none."""
    for handed in _handed:
        if Path(handed.path) == Path(path):
            if handed.size_bytes is None:
                return _HandedFile(handed.descriptor)
            return RemoteFile(_FetchedFile(handed.descriptor, handed.size_bytes), handed.path)
    return None


class _HandedFile(io.RawIOBase):
    """Reads from a shared descriptor, with its own position."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._place = descriptor, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        content = os.pread(self._descriptor, len(view), self._place)
        view[: len(content)] = content
        self._place += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Change the position; an impossible one returns an error number, which FFmpeg understands."""
        place = (0, self._place, os.fstat(self._descriptor).st_size)[whence] + offset
        if not 0 <= place <= _MAX_PLACE:
            return -errno.EINVAL
        self._place = place
        return place

    def tell(self) -> int:
        return self._place


class _FetchedFile:
    """Like an open file of fsspec; the other end of a connection reads its pieces."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self.size = size_bytes
        self._descriptor, self._place = descriptor, 0
        self._piece, self._piece_start = b"", 0

    def read(self, n_bytes: int) -> bytes:
        if not self._piece_start <= self._place < self._piece_start + len(self._piece):
            self._piece_start = self._place - self._place % _PIECE_BYTES
            self._piece = self._fetch(self._piece_start) if self._place < self.size else b""
        start = self._place - self._piece_start
        content = self._piece[start : start + n_bytes]
        self._place += len(content)
        return content

    def seek(self, place: int) -> int:
        self._place = place
        return place

    def tell(self) -> int:
        return self._place

    def close(self) -> None:
        self._piece = b""

    def _fetch(self, start: int) -> bytes:
        with socket.socket(fileno=os.dup(self._descriptor)) as connection:
            connection.sendall(_REQUEST.pack(start))
            is_read, n_bytes = _ANSWER.unpack(_receive(connection, _ANSWER.size))
            content = _receive(connection, n_bytes)
        if not is_read:
            raise OSError(errno.EIO, content.decode(errors="replace"))
        return content


def serve_pieces(file: Any, connection: socket.socket) -> None:
    """Read pieces of an open file of fsspec for `_FetchedFile` in another process, until that closes its end.

    Closes both arguments.
    """
    with connection, file, suppress(OSError, struct.error):
        while True:
            (start,) = _REQUEST.unpack(_receive(connection, _REQUEST.size))
            try:
                file.seek(min(start, _MAX_PLACE))
                is_read, content = True, file.read(_PIECE_BYTES)
            except Exception as error:  # every kind of store has its own
                is_read, content = False, f"{type(error).__name__}: {error}".encode()[:1000]
            connection.sendall(_ANSWER.pack(is_read, len(content)) + content)


def _receive(connection: socket.socket, n_bytes: int) -> bytes:
    """This many bytes, or fewer when the other end is closed."""
    return connection.recv(n_bytes, socket.MSG_WAITALL)
