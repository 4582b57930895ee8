"""Error responses: an HTTP status, a short code and a sentence; never a path or a traceback."""

from __future__ import annotations

import errno
import json
import traceback
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi.responses import JSONResponse

from vmnet_pipeline.errors import MediaError, VmnetError

if TYPE_CHECKING:
    from collections.abc import Mapping

MEDIA_SENTENCES = {
    "empty_file": "The file is empty.",
    "unknown_format": "Not a readable video or audio file.",
    "too_many_streams": "The file has too many streams.",
    "no_media_stream": "The file has neither audio nor video.",
    "no_audio_stream": "The file has no audio.",
    "no_video_stream": "The file has no video.",
    "undecodable_audio": "The audio of the file is damaged or in an unknown format.",
    "undecodable_video": "The video of the file is damaged or in an unknown format.",
    "frame_too_large": "The frames of the file are too large.",
    "decoder_crashed": "The file crashed its decoder.",
    "timed_out": "Decoding the file takes too long.",
    "too_long": "The file is too long: start the service with a larger `--set max_duration_s=SECONDS`, or use "
    "`kedro recommend FILE`.",
    "too_short": "The music lasts less than 50 ms.",
    "protected": "The file is protected against copying.",
    "uncopyable": "The frames of the video cannot be copied into another file.",
    "out_of_memory": "Decoding the file takes too much memory.",
}
N_PLACES = 8  # functions named in the log line of a failure
MAX_MESSAGE = 300  # in characters. Keys and filters, which messages repeat, may be as long as the request.
MAX_LINE = 1000


class RefusedError(VmnetError):
    """A request to refuse.

    Attributes:
        code: Short stable slug.
        retry_after_s: Seconds until a retry makes sense, or None.
    """

    def __init__(self, status: int, code: str, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(shorten(message))
        self.status, self.code, self.retry_after_s = status, code, retry_after_s


def refuse_media(reason: str) -> RefusedError:
    """Refuse a media file, by its `MediaError.reason`, without naming its path."""
    return RefusedError(422, reason, MEDIA_SENTENCES.get(reason, "The file cannot be decoded."))


def refuse_other_checkpoint() -> RefusedError:
    """Refuse to compare embeddings of two networks, e.g. after a training and before the new index."""
    return RefusedError(503, "other_checkpoint", "The search index was made with another network; try again later.", 60)


def shorten(text: str, limit: int = MAX_MESSAGE) -> str:
    """Truncate a text, so that no response grows with its request."""
    return text if len(text) <= limit else f"{text[:limit]} ..."


def write_line(text: object) -> str:
    """Make a text fit for one log line: printable characters only, bounded length."""
    words = shorten(str(text), MAX_LINE)
    return "".join(letter if letter.isprintable() else " " for letter in words)


def describe_failure(error: BaseException) -> str:
    """Describe a failure in one log line: its type and the functions it passed, innermost first.

    Its message is omitted: it may contain paths, or what a client has sent.
    """
    places = [
        f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_name}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    reason = error.reason if isinstance(error, MediaError) else ""
    if isinstance(error, OSError):
        reason = errno.errorcode.get(error.errno or 0, "")
    return f"{type(error).__name__}{reason and f' {reason}'} (in {', '.join(places[: -N_PLACES - 1 : -1])})"


def make_error_response(status: int, code: str, message: str, retry_after_s: int | None = None) -> JSONResponse:
    """Make a JSON response `{"error": {"code": ..., "message": ...}}`, the form of every error."""
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return JSONResponse(make_error_body(code, message), status, headers)


def make_error_body(code: str, message: str) -> dict[str, dict[str, str]]:
    """Make the body of an error response."""
    return {"error": {"code": code, "message": shorten(message)}}


def write_bad_request(status: HTTPStatus, security_headers: Mapping[str, str]) -> bytes:
    """Write the response to bytes that are not HTTP and never reach the application."""
    body = json.dumps(make_error_body("http", "Not a valid HTTP/1.1 request.")).encode()
    own = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    own |= {"allow": "GET, HEAD, POST"} if status == HTTPStatus.METHOD_NOT_ALLOWED else {}
    headers = {**security_headers, **own, "cache-control": "no-store"}
    lines = "".join(f"{name.lower()}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n{lines}\r\n".encode() + body
