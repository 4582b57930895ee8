"""Open untrusted media files; shared by `probe`, `audio` and `video`.

A file is opened once, here, and FFmpeg sees only that open file: it gets no path, no protocol and no way to open a
second file, so a playlist disguised as a video leads nowhere. The format is recognised by content; the extension counts
only for raw frames, which have no mark.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.media.handed import open_handed
from vmnet_pipeline.media.remote import open_remote_file
from vmnet_pipeline.storage.names import hint_at_case
from vmnet_pipeline.storage.paths import is_remote

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

MEDIA_REASONS = {
    "missing_file": "nothing at that path",
    "not_a_file": "a folder, pipe, socket or device",
    "empty_file": "zero bytes",
    "unreadable": "the system refuses to open or read it (permission, I/O error)",
    "unknown_format": "not a known container, or one that only points to other files (a playlist)",
    "too_many_streams": "more streams than any honest file has",
    "no_media_stream": "a container with neither audio nor video, e.g. a photo or subtitles",
    "no_audio_stream": "the wanted audio is not in the file",
    "no_video_stream": "the wanted video is not in the file",
    "undecodable_audio": "none of its audio decodes, or not to finite numbers",
    "undecodable_video": "none of its video decodes",
    "frame_too_large": "frames above `MAX_SIDE_PX` or `MAX_FRAME_PX`, or without any pixel",
}
"""Every `MediaError.reason` that this package raises."""

MAX_STREAMS = 64
MAX_SIDE_PX = 16_384
MAX_FRAME_PX = 100_000_000
_READ_BUFFER_BYTES = 65_536
# FFmpeg searches 5 MB for the first packet of each stream; slides of a transport stream come late in time.
_ANALYSIS_US = 3600 * 10**6
_OPEN_OPTIONS = {
    "protocol_whitelist": "none",
    "max_pixels": str(MAX_FRAME_PX),
    "threads": "1",
    "analyzeduration": str(_ANALYSIS_US),
}
# WAV may contain DTS, for which FFmpeg searches up to 2,500 packets; its mark is in the first ones.
_WAV_OPTIONS = {"max_probe_packets": "4"}
# Raw frames: the content of such a file tells nothing, or that it is one picture.
_RAW_FORMATS = {
    ".mjpeg": "mjpeg", ".mjpg": "mjpeg", ".sbc": "sbc", ".msbc": "sbc", ".aptx": "aptx", ".aptxhd": "aptx_hd",
    ".g722": "g722",
}  # fmt: skip
_PROTECTED = frozenset({"encv", "enca", "drmi", "drms", "drmt", "aavd"})
# Containers of file names instead of media, and text rendered as video.
_REFUSED_FORMATS = frozenset({"concat", "concatf", "dash", "hls", "imf", "sdp", "tty", "webm_dash_manifest"})


class _LocalFile(io.FileIO):
    """An open file whose `seek` returns an error number for an impossible position: PyAV (18.1) prints exceptions."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        try:
            return super().seek(offset, whence)
        except OSError as error:
            return -(error.errno or errno.EIO)


def open_regular_file(path: str | os.PathLike[str]) -> io.FileIO:
    """Open a regular, non-empty file for reading, unbuffered.

    Pipes and devices are refused before they are opened, which may block or rewind them, and again afterwards, in case
    the path was exchanged in between.

    Raises:
        MediaError: `missing_file`, `not_a_file`, `empty_file` or `unreadable`.
    """
    try:
        _check_regular(Path(path).stat(), path)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        _raise_for_system(error, path)
    file = _LocalFile(descriptor)
    try:
        _check_regular(os.fstat(descriptor), path)
    except MediaError:
        file.close()
        raise
    return file


def _check_regular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise MediaError("not_a_file", f"{path}: not a regular file; give the path of a media file")
    if status.st_size == 0:
        raise MediaError("empty_file", f"{path}: the file is empty; copy or download it again")


def _raise_for_system(error: OSError | ValueError, path: str | os.PathLike[str]) -> NoReturn:
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOENT, errno.ENOTDIR) or isinstance(error, ValueError):
        message = f"{path!s}: no such file{hint_at_case(Path(path))}; check the path"
        raise MediaError("missing_file", message) from error
    message = f"{path}: cannot be opened ({error}); check its permissions and the disk"
    raise MediaError("unreadable", message) from error


def open_media_file(path: str | os.PathLike[str], *, streams: bool = False) -> io.RawIOBase:
    """Open a local or remote file for reading; with `streams` it is read once from its beginning to its end.

    Raises:
        MediaError: `missing_file`, `not_a_file`, `empty_file` or `unreadable`.
    """
    handed = open_handed(path)
    if handed is not None:
        return handed
    return open_remote_file(path, streams=streams) if is_remote(path) else open_regular_file(path)


def start_container(file: io.RawIOBase, path: str | os.PathLike[str]) -> InputContainer:
    """Open a container with FFmpeg in an open file; the caller closes both.

    Raises:
        MediaError: `unreadable`, `unknown_format` or `too_many_streams`.
    """
    container = _open_by_content(file, path)
    try:
        _check_container(container, path)
    except MediaError:
        container.close()
        raise
    return container


def _probe_less(file: io.RawIOBase) -> dict[str, str]:
    """Options for reading less before the first sample of a WAV file."""
    head = file.read(12) or b""
    file.seek(0)
    return _WAV_OPTIONS if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE" else {}


def _open_by_content(file: io.RawIOBase, path: str | os.PathLike[str]) -> InputContainer:
    """Have FFmpeg recognise the format; what is none, or one picture, may be raw frames by its name."""
    raw = _RAW_FORMATS.get(Path(path).suffix.lower())
    if raw is None:
        return _open_with_ffmpeg(file, path)
    with contextlib.suppress(MediaError):
        container = _open_with_ffmpeg(file, path)
        if not _is_still_format(container.format.name):
            return container
        container.close()
    file.seek(0)
    return _open_with_ffmpeg(file, path, raw)


def _open_with_ffmpeg(
    file: io.RawIOBase, path: str | os.PathLike[str], file_format: str | None = None
) -> InputContainer:
    import av

    _silence_ffmpeg()
    try:
        container: InputContainer = av.open(
            file,
            "r",
            file_format,
            options={**_OPEN_OPTIONS, **_probe_less(file)},
            metadata_errors="replace",
            buffer_size=_READ_BUFFER_BYTES,
            io_open=_refuse_to_open,
        )
        return container
    except (av.error.FFmpegError, PermissionError, ValueError, RuntimeError, MemoryError) as error:
        raise _unknown_format(path, error) from error
    except OSError as error:  # of the file itself, passed on through FFmpeg
        raise MediaError("unreadable", f"{path}: cannot be read ({error}); check the disk") from error


def _unknown_format(path: str | os.PathLike[str], error: BaseException) -> MediaError:
    why = getattr(error, "strerror", None) or error  # its whole text has the number of the open file in it
    return MediaError("unknown_format", f"{path}: not a media file that FFmpeg knows ({why}); convert or remove it")


def _refuse_to_open(url: str, flags: int, options: dict[str, Any]) -> NoReturn:
    raise PermissionError(errno.EACCES, "a media file may not open other files", url)


@functools.cache
def _silence_ffmpeg() -> None:
    """Silence FFmpeg's log, once, so that messages enabled for debugging stay; errors arrive as exceptions."""
    import av

    av.logging.set_level(None)


def _check_container(container: InputContainer, path: str | os.PathLike[str]) -> None:
    if _REFUSED_FORMATS & set(container.format.name.split(",")):
        name = container.format.name
        message = f"{path}: a list of other files ({name}), not a media file; give the media files themselves"
        raise MediaError("unknown_format", message)
    if len(container.streams) > MAX_STREAMS:
        message = f"{path}: {len(container.streams)} streams, at most {MAX_STREAMS} are accepted; remux the file"
        raise MediaError("too_many_streams", message)


def find_audio_stream(container: InputContainer, failed: Collection[int] = ()) -> AudioStream | None:
    """The audio stream that a player with our decoders would choose, or None; those at the indices `failed` are out."""
    candidates = [stream for stream in container.streams.audio if stream.index not in failed]
    return cast("AudioStream | None", _choose_stream(container.streams.best("audio"), candidates))


def find_video_stream(container: InputContainer, failed: Collection[int] = ()) -> VideoStream | None:
    """The same of moving pictures: neither cover pictures nor still images count."""
    if _is_still_format(container.format.name):
        return None
    moving = [stream for stream in container.streams.video if _is_moving(stream) and stream.index not in failed]
    return cast("VideoStream | None", _choose_stream(container.streams.best("video"), moving))


def _choose_stream(best: Stream | None, candidates: Sequence[Stream]) -> Stream | None:
    """FFmpeg's choice, unless it is not a candidate or lacks a decoder that another one has (`apac` of phones).

    Then the first by FFmpeg's criteria: not for the impaired, default, bit rate, position in the file.
    """
    if best is None or (best in candidates and has_decoder(best)):
        return best
    decodable = [stream for stream in candidates if has_decoder(stream)]
    if decodable:
        return min(decodable, key=_rank_stream)
    return best if best in candidates else next(iter(candidates), None)


def _rank_stream(stream: Stream) -> tuple[int, int, int]:
    from av.stream import Disposition

    impaired = Disposition.hearing_impaired | Disposition.visual_impaired
    merits = (not stream.disposition & impaired) + bool(stream.disposition & Disposition.default)
    return -merits, -(stream.codec_context.bit_rate or 0), stream.index


def _is_still_format(name: str) -> bool:
    return name == "image2" or name.endswith("_pipe")


def _is_moving(stream: VideoStream) -> bool:
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
    return not stream.disposition & still


def is_protected(stream: Stream) -> bool:
    """Whether its entry in the file says that its content is encrypted (ISO/IEC 23001-7 and older ways)."""
    return has_decoder(stream) and str(stream.codec_context.codec_tag) in _PROTECTED


def has_decoder(stream: Stream) -> bool:
    """Whether FFmpeg can decode this stream's codec at all; if not, its codec context is None."""
    return stream.codec_context is not None
