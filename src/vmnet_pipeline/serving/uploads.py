"""Receive request bodies within limits: media files straight to disk, JSON in memory."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from vmnet_pipeline.serving.errors import RefusedError
from vmnet_pipeline.serving.upload_folder import refuse_storage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fastapi import Request
    from python_multipart.multipart import MultipartCallbacks

    from vmnet_pipeline.serving.upload_folder import UploadFolder

MULTIPART = "multipart/form-data"
ENVELOPE_BYTES = 65_536  # for boundaries and other parts of a form
FILE_FIELD = "file"
MAX_PARTS = 16
SHORT_BYTES = 65_536  # JSON up to this size is parsed in this process
DRAIN_S = 5.0
JSON = "application/json"
CHARSETS = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii"})
MEDIA_TYPES = frozenset({MULTIPART, "application/octet-stream", "application/ogg", "application/mp4"})
MAX_TYPE_LENGTH = 1000
BLANKS = b" \t\r\n\xef\xbb\xbf"
JSON_HINT = f"A query in JSON needs `Content-Type: {JSON}`."


@asynccontextmanager
async def receive_upload(request: Request, folder: UploadFolder, max_bytes: int) -> AsyncIterator[tuple[Path, int]]:
    """Write the media file of a request into `folder`; it is removed when the block ends.

    The body is the file itself, or a form (`multipart/form-data`) with it in the field `file`.

    Yields:
        Path and size in bytes.

    Raises:
        RefusedError: 413 when it is larger than `max_bytes`, 400 when the form is damaged or has no file, 422 when the
            body looks like JSON, 507 and 503 when it cannot be written.
    """
    kind, options = read_type(request.headers.get("content-type", ""))
    is_form = kind == MULTIPART
    limit = max_bytes + (ENVELOPE_BYTES if is_form else 0)
    check_declared_size(request, limit)
    with folder.open_file() as (file, path):
        sink = _FormSink(options.get(b"boundary", b""), file) if is_form else _PlainSink(file)
        await _copy(request, sink, limit, max_bytes)
        with _refusing():
            file.flush()
        if sink.size == 0:
            raise _refuse_empty(is_form=is_form)
        try:
            yield path, sink.size
        except RefusedError as error:
            if not path.exists():  # removed by another process
                raise refuse_storage(FileNotFoundError()) from error
            raise _explain_type(error, kind) from error


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn a failure to write into an error response."""
    try:
        yield
    except OSError as error:
        raise refuse_storage(error) from error


def read_type(header: str) -> tuple[str, dict[bytes, bytes]]:
    """The media type of a body in lower case, empty if none is given, and its options; 422 for too long a header."""
    if len(header) > MAX_TYPE_LENGTH:
        raise RefusedError(422, "wrong_type", "The `Content-Type` header is too long.")
    kind, options = parse_options_header(header)
    return kind.decode("latin-1").strip().lower(), options


def is_json(request: Request) -> bool:
    """Whether a body is declared as JSON; 422 for a compressed one, or one that is not UTF-8."""
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise RefusedError(422, "wrong_type", "Compressed bodies are not supported: omit `Content-Encoding`.")
    kind, options = read_type(request.headers.get("content-type", ""))
    if kind != JSON:
        return False
    if options.get(b"charset", b"utf-8").lower() not in CHARSETS:
        raise RefusedError(422, "wrong_type", "JSON must be UTF-8: omit `charset`.")
    return True


def _refuse_empty(*, is_form: bool) -> RefusedError:
    where = f"in the field `{FILE_FIELD}` of the form" if is_form else "as the body, or as `file` of a form"
    return RefusedError(400, "no_file", f"No file received: send a media file {where}. {JSON_HINT}")


def _explain_type(error: RefusedError, kind: str) -> RefusedError:
    """Mention the type of a body that is not media: it may have been meant as JSON."""
    if error.code != "unknown_format" or kind in MEDIA_TYPES or kind.startswith(("audio/", "video/")):
        return error
    told = f"with `Content-Type: {kind}`" if kind else "without a `Content-Type`"
    return RefusedError(422, error.code, f"{error} It was sent {told}. {JSON_HINT}")


def check_declared_size(request: Request, limit: int, *, is_json: bool = False) -> None:
    """Refuse with 413 by the header, before any of the body is read."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit, is_json=is_json)


def is_short(request: Request) -> bool:
    """Whether the header declares a short body."""
    declared = request.headers.get("content-length", "")
    return declared.isdigit() and int(declared) <= SHORT_BYTES


async def read_json_body(request: Request, limit: int) -> bytes:
    """Read a body into memory; 413 if it exceeds `limit` bytes."""
    check_declared_size(request, limit, is_json=True)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise _too_large(limit, is_json=True)
    return bytes(body)


async def discard_body(request: Request, limit: int) -> None:
    """Read and drop the rest of a refused body, within limits, so that the client reads the response."""
    size = 0
    try:
        async with asyncio.timeout(DRAIN_S):
            async for piece in request.stream():
                size += len(piece)
                if size > limit:
                    return
    except (TimeoutError, RuntimeError, RefusedError):  # the body was read before, or is too slow
        return


async def _copy(request: Request, sink: _PlainSink | _FormSink, limit: int, max_bytes: int) -> None:
    n_read = 0
    async for piece in request.stream():
        n_read += len(piece)
        if n_read > limit:
            raise _too_large(max_bytes)
        if n_read == len(piece) and isinstance(sink, _PlainSink) and piece.lstrip(BLANKS)[:1] in (b"{", b"["):
            raise RefusedError(422, "wrong_type", f"The body looks like JSON but has another type. {JSON_HINT}")
        # A piece has at most 64 KiB; writing it to the page cache is faster than switching threads.
        with _refusing():
            sink.write(piece)
        if sink.size > max_bytes:
            raise _too_large(max_bytes)
    sink.finish()


def _too_large(limit: int, *, is_json: bool = False) -> RefusedError:
    mebibytes = limit / (1 << 20)
    setting = f"{'max_json_mb' if is_json else 'max_upload_mb'}={math.ceil(2 * mebibytes)}"
    other = "" if is_json else ", or use `kedro recommend FILE`"
    message = f"The body exceeds the limit of {mebibytes:.4g} MiB: start the service with `--set {setting}`{other}."
    return RefusedError(413, "too_large", message)


class _PlainSink:
    """The body is the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.size = file, 0

    def write(self, piece: bytes) -> None:
        self._file.write(piece)
        self.size += len(piece)

    def finish(self) -> None:
        """Nothing is left to do."""


class _FormSink:
    """The file is one part of a form; other parts are skipped."""

    def __init__(self, boundary: bytes, file: BinaryIO) -> None:
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
            # A second file would be appended to the first one.
            self._is_file = options.get(b"name") == FILE_FIELD.encode() and self.size == 0
        self._name = self._value = b""

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._file.write(data[start:end])
            self.size += end - start

    def _end_form(self) -> None:
        self._is_complete = True


def _damaged_form() -> RefusedError:
    return RefusedError(400, "bad_form", "Malformed form: send `multipart/form-data` with the media file as `file`.")
