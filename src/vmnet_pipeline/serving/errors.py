"""What the service says when something is wrong: a status, a short code, a sentence; never a path or a traceback."""

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
    "unknown_format": "This is not a video or sound file that can be read.",
    "too_many_streams": "The file has too many streams.",
    "no_media_stream": "The file holds neither sound nor moving pictures.",
    "no_audio_stream": "The file has no sound.",
    "no_video_stream": "The file has no moving pictures.",
    "undecodable_audio": "The sound of the file is damaged or of an unknown kind.",
    "undecodable_video": "The pictures of the file are damaged or of an unknown kind.",
    "frame_too_large": "The pictures of the file are too large.",
    "decoder_crashed": "The file could not be read: it made its decoder fail.",
    "timed_out": "Reading the file takes longer than is allowed here.",
    "too_long": "The file lasts longer than is allowed here.",
    "out_of_memory": "The file could not be read: that takes too much memory.",
}
N_PLACES = 8
"""Functions of a failure that its line in the log names."""
MAX_MESSAGE = 300
"""Characters of a message: the name of a key, or a condition, may be as long as the request."""
MAX_LINE = 1000
NOT_HTTP = "This is no request of HTTP/1.1."
OTHER_SENTENCE = "The file cannot be read."


class RefusedError(VmnetError):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status.
        code: Short stable slug.
        retry_after_s: When it may be tried again, or None.
    """

    def __init__(self, status: int, code: str, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(shorten(message))
        self.status, self.code, self.retry_after_s = status, code, retry_after_s


def refuse_media(reason: str) -> RefusedError:
    """An error of a media file, by its `MediaError.reason`, in words that do not tell where the file lay."""
    return RefusedError(422, reason, MEDIA_SENTENCES.get(reason, OTHER_SENTENCE))


def refuse_other_checkpoint() -> RefusedError:
    """Search would compare embeddings of two networks: one is trained anew, and its index not made yet."""
    return RefusedError(503, "other_checkpoint", "The search index and the network do not belong together.", 60)


def shorten(text: str, limit: int = MAX_MESSAGE) -> str:
    """The beginning of a text, so that no answer grows with its request."""
    return text if len(text) <= limit else f"{text[:limit]} ..."


def write_line(text: object) -> str:
    """A text of the operator's for one line of the log: of printable characters only, and not too long."""
    words = shorten(str(text), MAX_LINE)
    return "".join(letter if letter.isprintable() else " " for letter in words)


def describe_failure(error: BaseException) -> str:
    """One line for the log: the kind of failure and the functions it went through, the last of them first.

    Its own words are left out: they may tell paths, or repeat what a client has sent.
    """
    places = [
        f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_name}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    reason = getattr(error, "reason", "") if isinstance(error, MediaError) else _name_errno(error)
    return f"{type(error).__name__}{reason and f' {reason}'} (in {', '.join(places[: -N_PLACES - 1 : -1])})"


def _name_errno(error: BaseException) -> str:
    return errno.errorcode.get(error.errno or 0, "") if isinstance(error, OSError) else ""


def make_error_response(status: int, code: str, message: str, retry_after_s: int | None = None) -> JSONResponse:
    """`{"error": {"code": ..., "message": ...}}`, the form of every error."""
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return JSONResponse(make_error_body(code, message), status, headers)


def make_error_body(code: str, message: str) -> dict[str, dict[str, str]]:
    """The content of an error."""
    return {"error": {"code": code, "message": shorten(message)}}


def write_bad_request(status: HTTPStatus, security_headers: Mapping[str, str]) -> bytes:
    """The bytes of the answer to what is no HTTP, and never reaches the application."""
    body = json.dumps(make_error_body("http", NOT_HTTP)).encode()
    own = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    own |= {"allow": "GET, HEAD, POST"} if status == HTTPStatus.METHOD_NOT_ALLOWED else {}
    headers = {**security_headers, **own, "cache-control": "no-store"}
    lines = "".join(f"{name.lower()}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n{lines}\r\n".encode() + body
