"""What the service says when something is wrong: a status, a short code, a sentence; never a path or a traceback."""

from __future__ import annotations

import re
import traceback
from typing import TYPE_CHECKING

from fastapi.responses import JSONResponse

from vmnet_pipeline.errors import VmnetError

if TYPE_CHECKING:
    from vmnet_pipeline.errors import MediaError

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
    "out_of_memory": "The file could not be read: that takes too much memory.",
}
_PATH = re.compile(r"""'[^']*/[^']*'|"[^"]*/[^"]*"|(?<![\w>])(?:~|\.{0,2})/[^\s'",;()]*""")
N_PLACES = 8
"""Functions of a failure that its line in the log names."""
OTHER_SENTENCE = "The file cannot be read."


class RefusedError(VmnetError):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status.
        code: Short stable slug.
        retry_after_s: When it may be tried again, or None.
    """

    def __init__(self, status: int, code: str, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_after_s = status, code, retry_after_s


def refuse_media(error: MediaError) -> RefusedError:
    """An error of a media file in words that do not tell where the file lay."""
    return RefusedError(422, error.reason, MEDIA_SENTENCES.get(error.reason, OTHER_SENTENCE))


def refuse_other_checkpoint() -> RefusedError:
    """Search would compare embeddings of two networks: one is trained anew, and its index not made yet."""
    return RefusedError(503, "other_checkpoint", "The search index and the network do not belong together.", 60)


def hide_paths(text: str) -> str:
    """A message without the paths of files, for a log that others may read."""
    return _PATH.sub("<path>", text)


def describe_failure(error: BaseException) -> str:
    """One line for the log: what failed, and the functions it went through, the last of them first; no paths."""
    places = [
        f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_name}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    words, way = hide_paths(" ".join(str(error).split())), ", ".join(places[: -N_PLACES - 1 : -1])
    return f"{type(error).__name__}: {words} (in {way})"


def make_error_response(status: int, code: str, message: str, retry_after_s: int | None = None) -> JSONResponse:
    """`{"error": {"code": ..., "message": ...}}`, the form of every error."""
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)
