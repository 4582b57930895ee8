"""Send media files, or ranges of them, from the checked descriptor, so that a renamed path changes nothing."""

from __future__ import annotations

import os
import re
import stat
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from vmnet_pipeline.serving.config import TRANSPORT
from vmnet_pipeline.serving.errors import make_error_response
from vmnet_pipeline.serving.middleware import IS_HEAD
from vmnet_pipeline.serving.schemas import ErrorBody

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from starlette.datastructures import Headers
    from starlette.types import Receive, Scope, Send

MEDIA_TYPES = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm",
    ".mkv": "video/x-matroska", ".avi": "video/x-msvideo", ".ogv": "video/ogg", ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4", ".aac": "audio/aac", ".ogg": "audio/ogg", ".oga": "audio/ogg", ".opus": "audio/ogg",
    ".flac": "audio/flac", ".wav": "audio/wav",
}  # fmt: skip
"""Everything else is sent as plain bytes, so that no file of a gallery is taken for a page."""
PIECE_BYTES = 65_536
MAX_RANGE_LENGTH = 64
MAX_TIME_S = 253_402_300_799  # of the year 9999; some disks take any time
_RANGE = re.compile(r"bytes=(?:(?P<first>\d+)-(?P<last>\d+)?|-(?P<length>\d+))", re.ASCII | re.IGNORECASE)
_WALK = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # do not wait for the writer of a pipe


def open_below(path: Path, roots: Sequence[Path]) -> BinaryIO | None:
    """Open a regular file below one of the roots, following links; None if there is none.

    Links are resolved first; the result is opened from its root without following any, so one that is placed there in
    between is refused.
    """
    try:
        place = path.resolve()
        root = next((root for root in (root.resolve() for root in roots) if place.is_relative_to(root)), None)
        return None if root is None or root == place else _open_plain(root, place.relative_to(root).parts)
    except (OSError, RuntimeError, ValueError):  # RuntimeError: a loop of links
        return None


def _open_plain(root: Path, parts: Sequence[str]) -> BinaryIO | None:
    folder = os.open(root, _WALK)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _WALK, dir_fd=folder)
            os.close(folder)
            folder = inner
        file = os.fdopen(os.open(parts[-1], _READ, dir_fd=folder), "rb", buffering=0)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        return None
    return file


def find_part(header: str, size: int) -> tuple[int, int] | None:
    """First byte and end of a `Range` header; None if it is not in the file.

    The whole file for no or several ranges: a server may ignore the header.
    """
    match = _RANGE.fullmatch(header) if len(header) <= MAX_RANGE_LENGTH else None
    if match is None:
        return 0, size
    if match["length"] is not None:
        first, end = max(0, size - int(match["length"])), size
    else:
        first, end = int(match["first"]), min(size, int(match["last"] or size) + 1)
        if match["last"] and int(match["last"]) < first:
            return 0, size
    return (first, end) if first < end else None


class MediaResponse(Response):
    """A media file, or one range of it; closes the file.

    Args:
        file: Open for reading, unbuffered.
        suffix: Of its name, to choose the media type.
        asked: Headers of the request.
    """

    media_type = "application/octet-stream"

    def __init__(self, file: BinaryIO, suffix: str, asked: Headers) -> None:
        self._file, about = file, os.fstat(file.fileno())
        self._size, etag = about.st_size, f'"{about.st_mtime_ns:x}-{about.st_size:x}"'
        changed = formatdate(min(about.st_mtime, MAX_TIME_S), usegmt=True)
        wanted = asked.get("range", "") if asked.get("if-range") in (None, etag, changed) else ""
        self._part = find_part(wanted, self._size)
        first, end = self._part or (0, 0)
        is_part = end - first < self._size
        headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, max-age=3600", "ETag": etag}
        headers |= {"Last-Modified": changed, "Content-Length": str(end - first)}
        headers |= {"Content-Range": f"bytes {first}-{end - 1}/{self._size}"} if is_part else {}
        super().__init__(
            status_code=206 if is_part else 200,
            headers=headers,
            media_type=MEDIA_TYPES.get(suffix.lower(), self.media_type),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it while the client is connected."""
        with self._file:
            if self._part is None:
                message = f"Range not satisfiable: the file has {self._size} bytes."
                response = make_error_response(416, "bad_range", message)
                response.headers["Content-Range"] = f"bytes */{self._size}"
                await response(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope.get(IS_HEAD):
                await send({"type": "http.response.body", "body": b""})
                return
            await self._send_part(*self._part, send, scope.get("extensions", {}).get(TRANSPORT))

    async def _send_part(self, first: int, end: int, send: Send, transport: Any) -> None:
        while True:
            read = partial(os.pread, self._file.fileno(), min(PIECE_BYTES, end - first), first)
            piece = await run_in_threadpool(read)
            first += len(piece)
            if not piece and first < end:
                raise OSError("the file has become shorter")
            await send({"type": "http.response.body", "body": piece, "more_body": first < end})
            if first >= end or (transport is not None and transport.is_closing()):
                return


MEDIA_ANSWERS: dict[int | str, dict[str, Any]] = {
    206: {"description": "The requested range."},
    416: {"model": ErrorBody, "description": "Range not satisfiable; `Content-Range` holds the size of the file."},
}
