"""Copy the frames of a video, packet by packet, next to a new sound. Runs where files are decoded."""

from __future__ import annotations

import math
import os
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.media.clock import states_times
from vmnet_pipeline.media.container import (
    find_audio_stream,
    find_video_stream,
    has_decoder,
    is_protected,
    open_media_file,
    start_container,
)
from vmnet_pipeline.media.parts import find_starts
from vmnet_pipeline.media.reading import Reader, gives_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream

    from vmnet_pipeline.soundtrack.encoding import Encoder, Output

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""Suffix of a file to FFmpeg's name of its format."""

# Written by the muxer itself.
_OWN_TAGS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration"})
_WRITE_BUFFER_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Film:
    """What a video holds.

    Attributes:
        codec: FFmpeg's name of the codec of its frames.
        origin: First instant on the clock of its packets, in seconds, as numerator and denominator.
        duration_s: From there to the end of the last frame.
        frame_rate_hz: Average rate of its frames; 0 if unknown.
        n_bytes: Size of its frames.
        has_sound: Whether it has a sound of its own that there is a decoder for.
        warnings: What could not be read.
    """

    codec: str
    origin: tuple[int, int]
    duration_s: float
    frame_rate_hz: float
    n_bytes: int
    has_sound: bool
    warnings: list[str] = field(default_factory=list)

    @property
    def origin_s(self) -> Fraction:
        """First instant on the clock of its packets, in seconds."""
        return Fraction(*self.origin)


@contextmanager
def _open(path: str) -> Iterator[InputContainer]:
    with open_media_file(path) as file, closing(start_container(file, path)) as container:
        yield container


def survey_film(path: str, max_s: float, progress: Callable[[float], None]) -> Film:
    """Read all frames of a video, without decoding more than the first.

    Raises:
        MediaError: Reasons of `open_media_file` and `start_container`, `no_video_stream`, `protected`,
            `undecodable_video`, or `too_long`.
    """
    with open_media_file(path) as file:
        size = file.seek(0, os.SEEK_END)
        n_parts = len(find_starts(file, size))
    with _open(path) as container:
        index = _check_frames(path, container)
    with _open(path) as container:
        stream: Any = container.streams[index]
        reader = Reader(container, stream)
        n_bytes = 0
        for packet in whole_packets(reader):
            n_bytes += packet.size
            seconds = reader.measure(stream.index)
            if seconds > max_s:
                raise MediaError("too_long", f"{path}: lasts longer than {max_s / 3600:.4g} h; cut it")
            progress((packet.pos or 0) / size)
        origin = reader.origin_s or Fraction(0)
        end_s = reader.clock.get_span(stream.index)[1] / 1e9
        warnings = reader.describe_losses(stream.index, reader.measure(stream.index))
        if n_parts > 1:
            warnings.append(f"the file holds {n_parts} recordings that were joined; only the first is used")
        sound = find_audio_stream(container)
        has_sound = sound is not None and has_decoder(sound) and not is_protected(sound)
        if sound is not None and not has_sound:
            warnings.append("its own sound is protected, or of a codec that FFmpeg does not know; it is left out")
        return Film(
            codec=stream.codec_context.name,
            origin=(origin.numerator, origin.denominator),
            duration_s=max(end_s - float(origin), _last_resort(stream)),
            frame_rate_hz=float(stream.average_rate or stream.guessed_rate or 0),
            n_bytes=n_bytes,
            has_sound=has_sound,
            warnings=[f"video: {warning}" for warning in warnings],
        )


def _last_resort(stream: Any) -> float:
    """Length of a video of one frame that does not say how long it is shown."""
    return 1 / float(stream.average_rate or stream.guessed_rate or 25)


def _check_frames(path: str, container: InputContainer) -> int:
    """Index of the stream of frames."""
    stream = find_video_stream(container)
    if stream is None:
        raise MediaError("no_video_stream", f"{path}: has no moving frames; give a video")
    if not has_decoder(stream) or is_protected(stream):
        why = "its frames are protected (DRM), or of a codec that FFmpeg does not know"
        raise MediaError("protected", f"{path}: {why}; give a file without protection")
    if not gives_frames(container, stream.index):
        raise MediaError("undecodable_video", f"{path}: its frames cannot be decoded; convert or replace the file")
    return stream.index


def whole_packets(reader: Reader) -> Iterator[Packet[Any]]:
    """Packets that are not cut off."""
    return (packet for packet in reader.packets() if not packet.is_corrupt)


def check_format(path: str, file_format: str, codec: str) -> None:
    """Check that a format can hold frames of a codec.

    Raises:
        MediaError: `unfit_format`: it cannot.
    """
    import av

    class _Nowhere:
        def write(self, content: bytes) -> int:
            return len(content)

    with suppress(ValueError, av.error.FFmpegError):
        output = av.open(_Nowhere(), "w", file_format)
        output.add_mux_stream(codec)
        return
    fitting = "a .mp4 or .mkv" if codec in ("h264", "hevc", "mpeg4", "av1") else "a .mkv"
    raise MediaError("unfit_format", f"{path}: {file_format} cannot hold {codec}; write {fitting} file")


def write_film(
    path: str,
    film: Film,
    blocks: Iterable[np.ndarray],
    output: Output,
    *,
    file_format: str,
    encoder: Encoder,
) -> list[str]:
    """Write the frames of a video and a new sound.

    Args:
        path: The video.
        film: What `survey_film` found in it.
        blocks: The sound: (n, 2) float32 blocks, from the first instant of the video on.
        output: Where to write, at its beginning.
        file_format: One of the values of `FORMATS`.
        encoder: Of the sound.

    Returns:
        Warnings about what is left out.

    Raises:
        MediaError: `uncopyable`: the format does not take the frames.
        OSError: The output cannot be written.
    """
    import av

    with _open(path) as container:
        out = av.open(output, "w", file_format, buffer_size=_WRITE_BUFFER_BYTES)
        try:
            warnings = _write(container, film, blocks, out, encoder)
            out.close()
        except (av.error.FFmpegError, OSError) as error:
            with suppress(Exception):
                out.close()
            if output.error is not None:
                raise output.error from error
            message = f"{path}: its frames cannot be copied to {file_format} ({error}); write a .mkv file"
            raise MediaError("uncopyable", message) from error
    if output.error is not None:
        raise output.error
    return warnings


def _write(
    container: InputContainer, film: Film, blocks: Iterable[np.ndarray], out: OutputContainer, encoder: Encoder
) -> list[str]:
    stream = find_video_stream(container)
    assert stream is not None  # noqa: S101 - `survey_film` has checked it
    copies, warnings = {stream.index: _add_copy(out, stream)}, list[str]()
    for other in _list_texts(container):
        try:
            copies[other.index] = _add_copy(out, other)
        except ValueError:
            warnings.append(f"{out.format.name} cannot hold its subtitles ({other.codec_context.name}); left out")
    out.metadata.update({key: value for key, value in container.metadata.items() if key not in _OWN_TAGS})
    shifted_s = math.floor(film.origin_s / (stream.time_base or 1)) * (stream.time_base or Fraction(1))
    _copy_chapters(container, film, out)
    encoder.start(out, film.origin_s - shifted_s)
    reader = Reader(container, *(container.streams[index] for index in copies))
    placer = _Placer(shifted_s)
    frames = (placer.place(packet, copies[packet.stream_index]) for packet in whole_packets(reader))
    for packet in _interleave(frames, encoder.encode(blocks)):
        out.mux(packet)
    if placer.n_moved:
        warnings.append(f"video: {placer.n_moved} frames had impossible times; they follow those before them")
    return warnings


def _list_texts(container: InputContainer) -> list[Stream]:
    """Subtitles, of formats that state when they are shown."""
    return list(container.streams.subtitles) if states_times(container) else []


def _add_copy(out: OutputContainer, stream: Stream) -> Stream:
    """A stream like another one, for its packets as they are.

    Raises:
        ValueError: The format cannot hold it.
    """
    if stream.codec_context is None:
        raise ValueError("no codec")
    copy = out.add_stream_from_template(stream, opaque=True)
    copy.metadata.update({key: value for key, value in stream.metadata.items() if key not in _OWN_TAGS})
    copy.disposition = stream.disposition
    if "mov" in stream.container.format.name.split(",") and out.format.name in ("mp4", "mov"):
        copy.codec_context.codec_tag = stream.codec_context.codec_tag  # hvc1 or hev1: some players know only one
    return copy


def _copy_chapters(container: InputContainer, film: Film, out: OutputContainer) -> None:
    chapters: list[Any] = []
    for chapter in container.chapters():
        time_base: Any = chapter["time_base"]
        shifted = math.floor(film.origin_s / time_base) if film.origin_s > 0 else 0
        start, end = (max(0, chapter[name] - shifted) for name in ("start", "end"))
        if start < end and float(start * time_base) < film.duration_s:
            chapters.append({**chapter, "start": start, "end": end})
    if chapters:
        out.set_chapters(chapters)


class _Placer:
    """Moves packets to the output, in an order of decoding that muxers take.

    Attributes:
        n_moved: Packets whose times contradicted those before them, and were moved behind these.
    """

    def __init__(self, shifted_s: Fraction) -> None:
        self._shifted_s, self._last = shifted_s, dict[int, int]()
        self.n_moved = 0

    def place(self, packet: Packet[Any], stream: Stream) -> Packet[Any]:
        """Move a packet, earlier by a whole number of ticks, to a stream of the output."""
        ticks = round(self._shifted_s / packet.time_base)
        pts, dts = (None if time is None else time - ticks for time in (packet.pts, packet.dts))
        last = self._last.get(stream.index)
        if last is not None and (dts is not None or pts is None) and (dts is None or dts <= last):
            dts = last + 1
            self.n_moved += 1
        if dts is not None:
            self._last[stream.index] = dts
            pts = dts if pts is None else max(pts, dts)
        packet.pts, packet.dts, packet.stream = pts, dts, stream
        return packet


def _interleave(frames: Iterator[Packet[Any]], sound: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
    """Packets of both in the order of decoding, so that the muxer need not hold many back."""
    frame, next_sound = next(frames, None), next(sound, None)
    while frame is not None or next_sound is not None:
        if next_sound is None or (frame is not None and _tell(frame) <= _tell(next_sound)):
            assert frame is not None  # noqa: S101
            yield frame
            frame = next(frames, None)
        else:
            yield next_sound
            next_sound = next(sound, None)


def _tell(packet: Packet[Any]) -> float:
    ticks = packet.pts if packet.dts is None else packet.dts
    return -math.inf if ticks is None else float(ticks * packet.time_base)
