"""Pictures of any video file at a steady rate, chosen by time."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.errors import MediaError, ParameterError
from vmnet_pipeline.media.clock import MAX_HOLD_S
from vmnet_pipeline.media.container import (
    MAX_FRAME_PX,
    MAX_SIDE_PX,
    find_video_stream,
    has_decoder,
    open_container,
)
from vmnet_pipeline.media.reading import Reader, decode_packets

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

# Decoders that leave out an unreferenced picture without touching any other (tested for each).
_CODECS_THAT_SKIP = frozenset({"h264", "hevc", "mpeg4"})
# Containers that store when each picture is shown; elsewhere (AVI) the demuxer guesses.
_TIMED_CONTAINERS = frozenset({"mov", "matroska", "mpegts"})
_PROGRESSIVE = 1


def sample_frames(
    path: str | os.PathLike[str],
    *,
    rate_hz: float = 1.0,
    max_duration_s: float | None = 60.0,
    max_frames: int | None = None,
    n_threads: int = 1,
    warnings: list[str] | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the picture that is on the screen at t = 0, 1/rate, 2/rate, ...

    The picture at t is the last one whose timestamp is not after t; so variable frame rates come out right,
    and a picture that stands still is repeated. Time counts from the first instant of the file, be it of frames
    or of audio: where the frames begin later, the first one stands from the beginning. A clock that jumps is
    bridged, so that no picture stands longer than its format can mean (`media.clock`).
    Times go up to, and do not include, the end of the last picture and `max_duration_s`; a video shorter
    than one period gives its first picture. Damaged stretches are skipped, and the picture before stands.

    Pictures are turned and mirrored as the file's display matrix says, in the file's own pixels (pixel
    aspect ratio and interlacing are left as they are). Colours are converted by the file's own matrix and
    range (BT.601 limited where it names none), without tone mapping; transparency is dropped.

    Args:
        path: A media file.
        rate_hz: Pictures per second of video, > 0.
        max_duration_s: Length of the window in seconds, > 0; None for everything.
        max_frames: Most pictures to give, >= 1; None for no limit.
        n_threads: Threads of the decoder. One by default, since callers run several decoders side by side.
        warnings: Takes a sentence on everything that could not be read as the file has it, after the last picture.

    Yields:
        (t_s, picture): time in seconds and (height, width, 3) uint8 RGB, C-contiguous. A picture that
        stands for several t is the same array each time: copy it before writing into it.

    Raises:
        MediaError: Reasons of `open_container`, `no_video_stream`, `frame_too_large`, or
            `undecodable_video` when not one picture decodes.
        ParameterError: An argument out of its range.
    """
    n_wanted = _count_wanted(rate_hz, max_duration_s, max_frames)
    with open_container(path) as container:
        stream = find_video_stream(container)
        if stream is None:
            raise MediaError("no_video_stream", f"{path}: has no moving picture; give another file for the video side")
        prepare_decoder(stream, path, n_threads)
        converter = _FrameConverter()
        reader = Reader(container, stream)
        index = -1
        for index, frame in _choose_frames(reader, stream, _as_fraction(rate_hz), n_wanted):
            yield index / rate_hz, converter.convert(frame, path)
        if index < 0:
            message = f"{path}: none of its pictures can be decoded; convert or replace the file"
            raise MediaError("undecodable_video", message)
        if warnings is not None:
            warnings += reader.describe_losses(stream, reader.end_s, is_full=index + 1 == n_wanted)


def _count_wanted(rate_hz: float, max_duration_s: float | None, max_frames: int | None) -> int | None:
    """How many sampling times lie in the window; None without a limit."""
    if not rate_hz > 0:
        raise ParameterError(f"rate_hz={rate_hz}: must be positive")
    if max_duration_s is not None and not max_duration_s > 0:
        raise ParameterError(f"max_duration_s={max_duration_s}: must be positive, or None")
    if max_frames is not None and max_frames < 1:
        raise ParameterError(f"max_frames={max_frames}: must be at least 1, or None")
    # t = k / rate counts while it is below the end, so this rounds up
    in_window = None if max_duration_s is None else math.ceil(_as_fraction(max_duration_s) * _as_fraction(rate_hz))
    limits = [limit for limit in (in_window, max_frames) if limit is not None]
    return min(limits, default=None)


def _as_fraction(value: float) -> Fraction:
    """The decimal number that was meant: 0.2 as a binary number times 25 is a little more than 5."""
    return Fraction(value).limit_denominator(1_000_000)


def prepare_decoder(stream: VideoStream, path: str | os.PathLike[str], n_threads: int = 1) -> None:
    """Check the declared picture size and bound the decoder, which must not be open yet, to it and to its threads.

    Raises:
        MediaError: `undecodable_video` for a codec without decoder, or `frame_too_large`.
    """
    if not has_decoder(stream):
        raise MediaError("undecodable_video", f"{path}: FFmpeg has no decoder for its picture; convert the file")
    check_frame_size(stream.width, stream.height, path)
    stream.codec_context.thread_count = n_threads
    stream.codec_context.thread_type = "AUTO"
    stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PX)}


def check_frame_size(width: int, height: int, path: str | os.PathLike[str]) -> None:
    """Refuse pictures that no memory should be given to.

    Raises:
        MediaError: `frame_too_large`, also for pictures without any pixel.
    """
    if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX and width * height <= MAX_FRAME_PX):
        limit = f"{MAX_SIDE_PX} px a side and {MAX_FRAME_PX // 10**6} megapixels"
        raise MediaError("frame_too_large", f"{path}: {width}x{height} px, accepted are 1 px to {limit}; scale it")


def _choose_frames(
    reader: Reader, stream: VideoStream, rate_hz: Fraction, n_wanted: int | None
) -> Iterator[tuple[int, VideoFrame]]:
    """(k, frame on the screen at time k / rate_hz) for k = 0, 1, 2, ..."""
    index = 0
    shown: VideoFrame | None = None
    end = Fraction(0)
    for start, frame in _time_frames(_decode_wanted(reader, stream, rate_hz), reader, stream):
        while shown is not None and index < start * rate_hz:
            yield index, shown
            index += 1
            if index == n_wanted:
                return
        shown, end = frame, start + _estimate_duration(frame, stream)
    while shown is not None and (index == 0 or index < end * rate_hz) and index != n_wanted:
        yield index, shown
        index += 1


def _decode_wanted(reader: Reader, stream: VideoStream, rate_hz: Fraction) -> Iterator[VideoFrame]:
    """Frames in the order of presentation, without some that are on the screen at no sampling time.

    About half the pictures of a usual film serve no other picture as a reference. The decoder is told
    to skip these, unless they are wanted. What is wanted is known from the timestamps of packets a little
    ahead: once a packet has a decoding time beyond a sampling time, no later one can be shown before it.
    Streams for which this does not hold (fields in packets of their own, missing or disordered
    timestamps) are decoded in full.
    """
    first: list[VideoFrame] = []
    packets = _steer_decoder(stream, reader, first, rate_hz)
    for frame in decode_packets(stream, packets, reader.losses):
        if not first:
            first.append(frame)
        yield frame


def _steer_decoder(
    stream: VideoStream, reader: Reader, first: list[VideoFrame], rate_hz: Fraction
) -> Iterator[Packet[Any]]:
    """Hand on all packets, setting the decoder before each; nothing is skipped until `first` holds a frame."""
    packets = reader.packets()
    for packet in packets:
        yield packet
        if first:
            break
    if first and first[0].pts is not None and reader.origin_s is not None and stream.time_base and _can_skip(stream):
        ticks_per_sample = 1 / (rate_hz * stream.time_base)
        for is_wanted, packet in _mark_wanted(packets, reader.origin_s / stream.time_base, ticks_per_sample):
            stream.codec_context.skip_frame = "DEFAULT" if is_wanted else "NONREF"
            yield packet
        stream.codec_context.skip_frame = "DEFAULT"
    yield from packets


def _can_skip(stream: VideoStream) -> bool:
    context = stream.codec_context
    timed = not _TIMED_CONTAINERS.isdisjoint(stream.container.format.name.split(","))
    return timed and context.name in _CODECS_THAT_SKIP and context.field_order == _PROGRESSIVE


def _mark_wanted(
    packets: Iterator[Packet[Any]], origin: Fraction, ticks_per_sample: Fraction
) -> Iterator[tuple[bool, Packet[Any]]]:
    """(whether it must be decoded, packet) in the given order; ends early, and with all marked, on odd timestamps."""
    group: list[tuple[int, Packet[Any]]] = []
    limit = origin
    last_dts = None
    for packet in packets:
        pts, dts = packet.pts, packet.dts
        if pts is None or dts is None or dts > pts or (last_dts is not None and dts < last_dts):
            yield from ((True, member) for member in [*(member for _, member in group), packet])
            return
        last_dts = dts
        if dts > limit:
            yield from _mark_group(group, limit)
            group = []
            limit += max(1, math.ceil((dts - limit) / ticks_per_sample)) * ticks_per_sample
        group.append((pts, packet))
    yield from _mark_group(group, limit)


def _mark_group(group: list[tuple[int, Packet[Any]]], limit: Fraction) -> Iterator[tuple[bool, Packet[Any]]]:
    """Of the packets shown up to `limit` only the last is wanted; those after it are kept, as nothing is known yet."""
    wanted = max((pts for pts, _ in group if pts <= limit), default=None)
    for pts, packet in group:
        yield pts > limit or pts == wanted, packet


def _time_frames(
    frames: Iterator[VideoFrame], reader: Reader, stream: VideoStream
) -> Iterator[tuple[Fraction, VideoFrame]]:
    """(seconds since the first instant of the file, frame), never going back in time."""
    latest, duration = Fraction(0), Fraction(0)
    for frame in frames:
        start = reader.tell(frame)
        latest = latest + duration if start is None else max(start, latest)
        duration = _estimate_duration(frame, stream)
        reader.end_s = float(latest + duration)
        yield latest, frame


def _estimate_duration(frame: VideoFrame, stream: VideoStream) -> Fraction:
    """How long a frame stands, in seconds: as declared, else by the frame rate, else 0."""
    if frame.duration and stream.time_base:
        return min(frame.duration * stream.time_base, Fraction(MAX_HOLD_S))
    rate_hz = stream.average_rate or stream.guessed_rate
    return 1 / rate_hz if rate_hz else Fraction(0)


class _FrameConverter:
    """Turns decoded frames to upright RGB; keeps the scaler, and the last result for a repeated frame."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter: VideoReformatter = VideoReformatter()
        self._source: VideoFrame | None = None
        self._picture: np.ndarray = np.empty((0, 0, 3), np.uint8)
        self._angle: int | None = None
        self._matrix: np.ndarray | None = None

    def convert(self, frame: VideoFrame, path: str | os.PathLike[str]) -> np.ndarray:
        """(height, width, 3) uint8 RGB of `frame`."""
        if frame is not self._source:
            check_frame_size(frame.width, frame.height, path)
            rgb = self._reformatter.reformat(frame, format="rgb24", threads=1)
            self._picture = np.ascontiguousarray(orient_picture(rgb.to_ndarray(), self._find_matrix(frame)))
            self._source = frame
        return self._picture

    def _find_matrix(self, frame: VideoFrame) -> np.ndarray | None:
        """Read again only when the angle changes."""
        if frame.rotation != self._angle:
            self._angle, self._matrix = frame.rotation, read_display_matrix(frame)
        return self._matrix


def read_display_matrix(frame: VideoFrame) -> np.ndarray | None:
    """The file's display matrix of a frame, (3, 3) int32 in 16.16 fixed point, or None."""
    data = read_side_data(frame, "DISPLAYMATRIX")
    return None if data is None else np.frombuffer(data, np.int32, count=9).reshape(3, 3)


def read_side_data(frame: VideoFrame, name: str) -> bytes | None:
    """What a frame carries beside its pixels, by its name in `av.sidedata.sidedata.Type`; None where it does not.

    PyAV (18.1) ties a frame whose side data is read into a reference cycle, which keeps its pixels until Python
    collects garbage: 53 MB each at 8192x4320. So it is read from a copy of one pixel.
    """
    import av
    from av.video.reformatter import VideoReformatter

    try:
        source = VideoReformatter().reformat(frame, width=1, height=1, format="gray", interpolation="POINT", threads=1)
    except (av.error.FFmpegError, ValueError):  # a pixel format that cannot be scaled
        source = frame
    data: Any = source.side_data.get(name)
    return None if data is None else bytes(data)


def swaps_sides(matrix: np.ndarray | None) -> bool:
    """Whether width and height change places when the picture is turned upright."""
    if matrix is None:
        return False
    size = np.abs(matrix[:2, :2].astype(np.int64))
    return bool(size[0, 1] + size[1, 0] > size[0, 0] + size[1, 1])


def orient_picture(picture: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Turn and mirror a (height, width, 3) picture upright; the nearest quarter turn counts.

    The matrix maps a stored point (x, y) to (a x + c y, b x + d y), with a, b, c, d at [0,0], [0,1],
    [1,0], [1,1].

    Source: ISO/IEC 14496-12, track header box.
    """
    if matrix is None:
        return picture
    along_x, along_y = int(matrix[0, 0]), int(matrix[1, 1])
    if swaps_sides(matrix):
        picture = picture.transpose(1, 0, 2)
        along_x, along_y = int(matrix[1, 0]), int(matrix[0, 1])
    if along_x < 0:
        picture = picture[:, ::-1]
    if along_y < 0:
        picture = picture[::-1]
    return picture
