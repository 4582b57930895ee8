"""Take a media file from the body of a request onto the disk, a piece at a time, never more than is allowed."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from vmnet_pipeline.serving.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import Request
    from python_multipart.multipart import MultipartCallbacks

MULTIPART = "multipart/form-data"
ENVELOPE_BYTES = 65_536
"""What the other parts of a form and its boundaries may add."""
FILE_FIELD = "file"
MAX_PARTS = 16
SHORT_BYTES = 65_536
"""A JSON body of this size is parsed at once, whatever is in it."""
DRAIN_S = 5.0


@asynccontextmanager
async def receive_upload(request: Request, folder: Path, max_bytes: int) -> AsyncIterator[tuple[Path, int]]:
    """Write the media file of a request into `folder`; it is removed when the block ends.

    The body is the file itself, or a form (`multipart/form-data`) with it in the field `file`.

    Yields:
        Path and size in bytes.

    Raises:
        RefusedError: 413 when it is larger than `max_bytes`, 400 when the form is damaged or has no file.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    is_form = kind == MULTIPART.encode()
    limit = max_bytes + (ENVELOPE_BYTES if is_form else 0)
    check_declared_size(request, limit)
    with tempfile.NamedTemporaryFile(dir=folder, prefix="upload-") as file:
        sink = _FormSink(options.get(b"boundary", b""), file) if is_form else _PlainSink(file)
        await _copy(request, sink, limit, max_bytes)
        file.flush()
        size = sink.size
        if size == 0:
            raise RefusedError(400, "no_file", "Send a media file: as the body, or as `file` of a form.")
        yield Path(file.name), size


def check_declared_size(request: Request, limit: int) -> None:
    """Refuse by the header, before a byte of the body is read.

    Raises:
        RefusedError: 413.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)


def is_short(request: Request) -> bool:
    """Whether the header says that the body is short; one that does not tell its length may be long."""
    declared = request.headers.get("content-length", "")
    return declared.isdigit() and int(declared) <= SHORT_BYTES


async def read_json_body(request: Request, limit: int) -> bytes:
    """A body that is held in memory, hence short.

    Raises:
        RefusedError: 413.
    """
    check_declared_size(request, limit)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


async def discard_body(request: Request, limit: int) -> None:
    """Read the rest of a refused body and forget it, within limits, so that the client gets to read the answer."""
    size = 0
    try:
        async with asyncio.timeout(DRAIN_S):
            async for piece in request.stream():
                size += len(piece)
                if size > limit:
                    return
    except (TimeoutError, RuntimeError, RefusedError):  # RuntimeError: the body was read before; refused: too slow
        return


async def _copy(request: Request, sink: _PlainSink | _FormSink, limit: int, max_bytes: int) -> None:
    n_read = 0
    async for piece in request.stream():
        n_read += len(piece)
        if n_read > limit:
            raise _too_large(max_bytes)
        # A piece is at most 64 KiB; writing it into the page cache is quicker than a change of threads.
        sink.write(piece)
        if sink.size > max_bytes:
            raise _too_large(max_bytes)
    sink.finish()


def _too_large(limit: int) -> RefusedError:
    return RefusedError(413, "too_large", f"The file is larger than {limit / (1 << 20):.0f} MiB, which is the limit.")


class _PlainSink:
    """The body is the file."""

    def __init__(self, file: BinaryIO | tempfile._TemporaryFileWrapper[bytes]) -> None:
        self._file, self.size = file, 0

    def write(self, piece: bytes) -> None:
        self._file.write(piece)
        self.size += len(piece)

    def finish(self) -> None:
        """Nothing is left to do."""


class _FormSink:
    """The file is one part of a form; other parts are read over."""

    def __init__(self, boundary: bytes, file: BinaryIO | tempfile._TemporaryFileWrapper[bytes]) -> None:
        if not boundary:
            raise _damaged_form()
        self._file, self.size, self._n_parts = file, 0, 0
        self._name = self._value = b""
        self._is_file = self._is_complete = False
        calls: MultipartCallbacks = {
            "on_part_begin": self._begin_part,
            "on_part_data": self._take_data,
            "on_header_field": self._take_header_name,
            "on_header_value": self._take_header_value,
            "on_header_end": self._end_header,
            "on_end": self._end_form,
        }
        try:
            self._parser = MultipartParser(boundary, calls)
        except FormParserError as error:
            raise _damaged_form() from error

    def write(self, piece: bytes) -> None:
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _damaged_form() from error

    def finish(self) -> None:
        if not self._is_complete:
            raise _damaged_form()

    def _begin_part(self) -> None:
        self._is_file, self._n_parts = False, self._n_parts + 1
        if self._n_parts > MAX_PARTS:
            raise _damaged_form()

    def _take_header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            # A second file would be written behind the first one.
            self._is_file = options.get(b"name") == FILE_FIELD.encode() and self.size == 0
        self._name = self._value = b""

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._file.write(data[start:end])
            self.size += end - start

    def _end_form(self) -> None:
        self._is_complete = True


def _damaged_form() -> RefusedError:
    return RefusedError(400, "bad_form", "The form is damaged; send `multipart/form-data` with the media as `file`.")
