"""Sample frames of any video file at a steady rate, chosen by time."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

from vmnet_pipeline.errors import MediaError, ParameterError
from vmnet_pipeline.media.clock import MAX_HOLD_S
from vmnet_pipeline.media.container import (
    MAX_FRAME_PX,
    find_video_stream,
    has_decoder,
)
from vmnet_pipeline.media.parts import open_parts
from vmnet_pipeline.media.pixels import FrameConverter, check_frame_size
from vmnet_pipeline.media.reading import decode_packets

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import numpy as np
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from vmnet_pipeline.media.parts import Parts
    from vmnet_pipeline.media.reading import Reader

    _Developable = tuple[Fraction, VideoFrame, FrameConverter]

# Decoders that skip an unreferenced frame without changing any other (tested for each).
_CODECS_THAT_SKIP = frozenset({"h264", "hevc", "mpeg4"})
# Containers that store when each frame is shown; for others (AVI) the demuxer guesses.
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
    """Yield the frame that is on the screen at t = 0, 1/rate, 2/rate, ...

    The frame at t is the last one whose timestamp is not after t, so variable frame rates are right and a held frame is
    repeated. Time counts from the first instant of the file, of frames or of audio; if the frames begin later, the
    first one is shown from the beginning. Jumps of the clock are bridged, so that no frame is held longer than its
    format allows (`media.clock`). Times end before the end of the last frame and `max_duration_s`; a video shorter than
    one period gives its first frame. In damaged stretches the frame before is held.

    Frames are what a player shows on an SDR screen: deinterlaced, cropped as the container says, in square pixels, HDR
    (HLG, PQ) and wide gamuts mapped to BT.709, rotated and mirrored by the display matrix. Colours are converted by the
    file's own matrix and range (BT.601 limited if it names none); transparency is dropped.

    Args:
        rate_hz: Frames per second of video, > 0.
        max_duration_s: Length of the window in seconds, > 0; None for everything.
        max_frames: Maximum number of frames, >= 1; None for no limit.
        n_threads: Threads of the decoder. One by default, since callers run several decoders in parallel.
        warnings: Receives a sentence on everything that could not be read as stored, after the last frame.

    Yields:
        (t_s, frame): time in seconds and (height, width, 3) uint8 RGB, C-contiguous. A frame held for several t is the
        same array each time: copy it before writing into it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from vmnet_pipeline.demo.clip import make_clip
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     clip = make_clip(Path(folder, "clip.mp4"), duration_s=2.0, width=64, height=36)
        ...     [(t_s, frame.shape) for t_s, frame in sample_frames(clip, rate_hz=1.0)]
        [(0.0, (36, 64, 3)), (1.0, (36, 64, 3))]

    Raises:
        MediaError: Reasons of `open_media_file` and `start_container`, `no_video_stream`, `frame_too_large`, or
            `undecodable_video` when not one picture decodes.
        ParameterError: An argument out of its range.
    """
    n_wanted = _count_wanted(rate_hz, max_duration_s, max_frames)
    with open_parts(path) as parts:
        index, sampling_hz = -1, _as_fraction(rate_hz)
        timed = _decode_parts(parts, path, n_threads, sampling_hz)
        for index, (middle, frame, converter) in _choose_frames(timed, sampling_hz, n_wanted):
            yield index / rate_hz, converter.convert(frame, path, is_late=index >= middle * sampling_hz)
        if parts.reader is None:
            raise MediaError("no_video_stream", f"{path}: has no video; give another file for the video side")
        if index < 0:
            message = f"{path}: none of its frames can be decoded; convert or replace the file"
            raise MediaError("undecodable_video", message)
        if warnings is not None:
            warnings += parts.describe_losses()


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
    """The intended decimal number: 0.2 as a binary number times 25 is slightly more than 5."""
    return Fraction(value).limit_denominator(1_000_000)


def prepare_decoder(stream: VideoStream, path: str | os.PathLike[str], n_threads: int = 1) -> None:
    """Check the declared frame size, and limit size and threads of the decoder, which must not be open yet.

    Raises:
        MediaError: `undecodable_video` for a codec without decoder, or `frame_too_large`.
    """
    if not has_decoder(stream):
        raise MediaError("undecodable_video", f"{path}: FFmpeg has no decoder for its video; convert the file")
    check_frame_size(stream.width, stream.height, path)
    stream.codec_context.thread_count = n_threads
    stream.codec_context.thread_type = "AUTO"
    stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PX)}


def _decode_parts(
    parts: Parts, path: str | os.PathLike[str], n_threads: int, rate_hz: Fraction
) -> Iterator[tuple[Fraction, Fraction, _Developable]]:
    """(start, end, (middle, frame, what makes a picture of it)), times in seconds, of all parts of a file."""
    latest: _Developable | None = None
    for reader in parts.read_side(find_video_stream):
        if latest is not None:
            latest[2].convert(latest[1], path, is_late=True)  # while its stream is open
        stream = cast("VideoStream", reader.streams[0])
        prepare_decoder(stream, path, n_threads)
        converter = FrameConverter(stream, parts.read_crop(stream))
        frames = converter.watch(_decode_wanted(reader, stream, rate_hz))
        for start, end, frame in _time_frames(frames, reader, stream):
            latest = (start + end) / 2, frame, converter
            yield start, end, latest


def _choose_frames(
    timed: Iterator[tuple[Fraction, Fraction, _Developable]], rate_hz: Fraction, n_wanted: int | None
) -> Iterator[tuple[int, _Developable]]:
    """(k, frame on the screen at time k / rate_hz) for k = 0, 1, 2, ..."""
    index = 0
    shown: _Developable | None = None
    end = Fraction(0)
    for start, frame_end, frame in timed:
        while shown is not None and index < start * rate_hz:
            yield index, shown
            index += 1
            if index == n_wanted:
                return
        shown, end = frame, frame_end
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
    """Pass on all packets, setting the decoder before each; nothing is skipped until `first` holds a frame."""
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
) -> Iterator[tuple[Fraction, Fraction, VideoFrame]]:
    """(start, end, frame), in seconds since the first instant of the file, never going back in time."""
    latest, duration = reader.base_s, Fraction(0)
    for frame in frames:
        start = reader.tell(frame)
        latest = latest + duration if start is None else max(start, latest)
        duration = _estimate_duration(frame, stream)
        reader.end_s = float(latest + duration)
        yield latest, latest + duration, frame


def _estimate_duration(frame: VideoFrame, stream: VideoStream) -> Fraction:
    """Seconds that a frame is held: as declared, else by the frame rate, else 0."""
    if frame.duration and stream.time_base:
        return min(frame.duration * stream.time_base, Fraction(MAX_HOLD_S))
    rate_hz = stream.average_rate or stream.guessed_rate
    return 1 / rate_hz if rate_hz else Fraction(0)
