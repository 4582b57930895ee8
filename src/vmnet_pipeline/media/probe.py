"""Probe a media file: container, streams, durations, checksum."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.media.container import (
    find_audio_stream,
    find_video_stream,
    has_decoder,
    open_media_file,
)
from vmnet_pipeline.media.lengths import choose_length, confirm_lengths
from vmnet_pipeline.media.parts import open_parts
from vmnet_pipeline.media.pixels import check_frame_size, read_display_matrix, swaps_sides
from vmnet_pipeline.media.reading import MAX_BARREN_PACKETS, Reader, decode_packet
from vmnet_pipeline.media.video import prepare_decoder
from vmnet_pipeline.types import MediaInfo, Modality, StreamInfo

if TYPE_CHECKING:
    import os
    from collections.abc import Collection

    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

    from vmnet_pipeline.media.parts import Parts
    from vmnet_pipeline.media.sandbox import Sandbox

_CHECKSUM_BLOCK_BYTES = 1 << 20


def checksum_file(path: str | os.PathLike[str]) -> str:
    """Checksum of a file's content: `sha256:` and 64 hex digits. The file is streamed, never held in memory.

    Raises:
        MediaError: Reasons of `open_media_file`, or `unreadable` when reading fails midway.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHECKSUM_BLOCK_BYTES))
    with open_media_file(path, streams=True) as file:
        try:
            while n_read := file.readinto(buffer):
                digest.update(buffer[:n_read])
        except OSError as error:
            raise MediaError("unreadable", f"{path}: reading failed ({error}); check the disk") from error
    return f"sha256:{digest.hexdigest()}"


def probe_media(
    path: str | os.PathLike[str],
    *,
    check: Collection[Modality] = ("audio", "video"),
    checksum: str = "",
    max_duration_s: float = math.inf,
) -> MediaInfo:
    """Describe the content of a media file, and check that it can be decoded.

    Headers alone call a broken file good, so the first frame of each side in `check` is decoded.

    Args:
        check: Sides that must decode if present. A side that nobody wants may be left out; it is then
            reported as its header describes it.
        checksum: Of its content, where it is known; it is computed otherwise.
        max_duration_s: Of no recording more is read than this, where its header is not believed.

    Returns:
        What was found; `audio` or `video` is None if the file does not have that side.

    Raises:
        MediaError: Reasons of `open_media_file` and `start_container`, `no_media_stream` (neither side present),
            `undecodable_audio`, `undecodable_video`, `frame_too_large`, or `too_long` for a checked side that lasts
            more than `max_duration_s`.
    """
    checksum = checksum or checksum_file(path)
    with open_parts(path) as parts:
        found = list[MediaInfo]()
        for container in parts:
            if parts.reader is not None and parts.reader.losses.gave_up:  # at the beginning of this part
                found[-1] = _leave_out_warnings(found[-1])
            found.append(_probe_part(parts, container, path, check, checksum, max_duration_s))
        joined = "; ".join(parts.describe_parts())
    audio, video = (_sum_sides([getattr(part, side) for part in found], joined) for side in ("audio", "video"))
    for side in (audio if "audio" in check else None, video if "video" in check else None):
        if side is not None and (side.duration_s or 0.0) > max_duration_s:
            raise _too_long(path, max_duration_s)
    durations = [part.duration_s for part in found if part.duration_s is not None]
    duration_s = sum(durations) if durations else None
    return replace(found[0], duration_s=duration_s, size_bytes=parts.size_bytes, audio=audio, video=video)


def _too_long(path: str | os.PathLike[str], limit_s: float) -> MediaError:
    return MediaError("too_long", f"{path}: lasts longer than {limit_s:.0f} s; cut it")


def _probe_part(
    parts: Parts,
    container: InputContainer,
    path: str | os.PathLike[str],
    check: Collection[Modality],
    checksum: str,
    max_duration_s: float,
) -> MediaInfo:
    """Describe one of the recordings of a file; only in the first each side must decode."""
    audio_stream = cast("AudioStream | None", parts.choose_stream(container, find_audio_stream))
    video_stream = cast("VideoStream | None", parts.choose_stream(container, find_video_stream))
    if parts.n_parts == 1 and audio_stream is None and video_stream is None:
        raise MediaError("no_media_stream", f"{path}: holds neither audio nor video; remove it")
    decoded = check if parts.n_parts == 1 else ()
    if video_stream is not None and "video" in decoded:
        prepare_decoder(video_stream, path)
    streams: list[Stream] = [s for s in (audio_stream, video_stream) if s is not None]
    scan = _scan_streams(path, parts, container, streams, check, decoded, max_duration_s)
    audio = None if audio_stream is None else _describe_audio(audio_stream, scan, "audio" in decoded, path)
    video = None if video_stream is None else _describe_video(video_stream, scan, "video" in decoded, path)
    return MediaInfo(container.format.name, scan.duration_s, parts.size_bytes, checksum, audio, video)


def _leave_out_warnings(part: MediaInfo) -> MediaInfo:
    audio, video = (side and replace(side, warning="") for side in (part.audio, part.video))
    return replace(part, audio=audio, video=video)


def _sum_sides(sides: list[StreamInfo | None], joined: str) -> StreamInfo | None:
    """One side of all recordings of a file: that of the first with the total length."""
    if sides[0] is None or (len(sides) == 1 and not joined):
        return sides[0]
    known = [side for side in sides if side is not None]
    duration_s = sum(side.duration_s or 0.0 for side in known) or None
    warning = "; ".join(filter(None, [*(side.warning for side in known), joined]))
    return replace(sides[0], duration_s=duration_s, warning=warning)


def probe_in_sandbox(
    sandbox: Sandbox,
    path: str | os.PathLike[str],
    *,
    check: Collection[Modality] = ("audio", "video"),
    max_duration_s: float = math.inf,
) -> MediaInfo:
    """Run `probe_media` in a child process, which contains a crashing or hanging decoder.

    The checksum is computed here: it interprets nothing, and the time for it grows with the file.

    Raises:
        MediaError: Reasons of `probe_media` and of `Sandbox.call`.
        SandboxError: No child can be started.
    """
    options = {"check": tuple(check), "checksum": checksum_file(path), "max_duration_s": max_duration_s}
    return sandbox.call(probe_media, str(path), **options)


@dataclass(slots=True)
class _Scan:
    """Results of reading the packets, by stream index."""

    duration_s: float | None = None
    first_frames: dict[int, Any] = field(default_factory=dict)
    durations_s: dict[int, float | None] = field(default_factory=dict)
    warnings: dict[int, str] = field(default_factory=dict)


def _scan_streams(
    path: str | os.PathLike[str],
    parts: Parts,
    container: InputContainer,
    streams: list[Stream],
    check: Collection[str],
    decoded: Collection[str],
    max_duration_s: float,
) -> _Scan:
    """Decode the first frame of some streams, and measure those to check; read to the end in doubt."""
    scan, reader = _Scan(), Reader(container, *streams)
    parts.reader = reader
    unchecked = {s.index for s in streams if s.type in decoded and has_decoder(s)}
    n_barren, n_bytes = dict.fromkeys(unchecked, 0), Counter[int]()
    is_whole = True
    for packet in reader.packets():
        n_bytes[packet.stream_index] += packet.size
        if packet.stream_index in unchecked:
            _check_packet(packet, scan, unchecked, n_barren)
        if not unchecked:
            is_whole = False
            break
    for stream in streams:
        if stream.index in unchecked and (frames := decode_packet(stream, None)):
            scan.first_frames[stream.index] = frames[0]
    checked = [stream for stream in streams if stream.type in check]
    if is_whole:
        _measure_streams(container, streams, reader, scan)
        return scan
    found = confirm_lengths(path, container, checked, reader, n_bytes) if checked else {}
    if found is None:
        if not _read_whole(parts, streams, scan, [stream.index for stream in checked], max_duration_s):
            raise _too_long(path, max_duration_s)
    else:
        for stream in streams:
            scan.durations_s[stream.index] = choose_length(container, stream, found.get(stream.index, 0.0))
        scan.duration_s = choose_length(container, None, found.get(None, 0.0))
    return scan


def _read_whole(parts: Parts, streams: list[Stream], scan: _Scan, checked: list[int], limit_s: float) -> bool:
    """Measure streams of a part by all their packets, unless a checked one lasts longer than the limit."""
    with parts.reopen() as container:
        again = [container.streams[stream.index] for stream in streams]
        parts.reader = reader = Reader(container, *again)
        for packet in reader.packets():
            if packet.stream_index in checked and reader.lasts_beyond(packet.stream_index, limit_s):
                return False
        _measure_streams(container, again, reader, scan)
    return True


def _measure_streams(container: InputContainer, streams: list[Stream], reader: Reader, scan: _Scan) -> None:
    """Lengths and losses of streams that were read to the end."""
    for stream in streams:
        present_s = reader.measure(stream.index)
        scan.durations_s[stream.index] = choose_length(container, stream, present_s)
        scan.warnings[stream.index] = "; ".join(reader.describe_losses(stream.index, present_s))
    scan.duration_s = choose_length(container, None, reader.measure())


def _check_packet(packet: Packet[Any], scan: _Scan, unchecked: set[int], n_barren: dict[int, int]) -> None:
    """Feed the decoder until it gives a frame or has failed too often."""
    index = packet.stream.index
    if frames := decode_packet(packet.stream, packet):
        scan.first_frames[index] = frames[0]
    n_barren[index] += 1
    if frames or n_barren[index] >= MAX_BARREN_PACKETS:
        unchecked.discard(index)


def _describe_audio(stream: AudioStream, scan: _Scan, check: bool, path: str | os.PathLike[str]) -> StreamInfo:
    """Sample rate and channels come from the decoder, as some headers lack them."""
    context, frame = stream.codec_context, scan.first_frames.get(stream.index)
    if check and frame is None:
        message = f"{path}: its audio ({_name_codec(stream)}) cannot be decoded; convert or replace the file"
        raise MediaError("undecodable_audio", message)
    if frame is not None:
        rate_hz, n_channels = frame.sample_rate, frame.layout.nb_channels
    else:
        rate_hz, n_channels = (context.sample_rate, context.channels) if has_decoder(stream) else (None, None)
    duration_s = scan.durations_s[stream.index]
    warning = scan.warnings.get(stream.index, "")
    return StreamInfo(_name_codec(stream), duration_s, sample_rate_hz=rate_hz, channels=n_channels, warning=warning)


def _describe_video(stream: VideoStream, scan: _Scan, check: bool, path: str | os.PathLike[str]) -> StreamInfo:
    """Width and height are those of the upright frame, if one was decoded."""
    frame = scan.first_frames.get(stream.index)
    if check and frame is None:
        message = f"{path}: its video ({_name_codec(stream)}) cannot be decoded; convert or replace the file"
        raise MediaError("undecodable_video", message)
    width, height = (stream.width, stream.height) if has_decoder(stream) else (None, None)
    if frame is not None:
        check_frame_size(frame.width, frame.height, path)
        turned = swaps_sides(read_display_matrix(frame))
        width, height = (frame.height, frame.width) if turned else (frame.width, frame.height)
    rate_hz = stream.average_rate or stream.guessed_rate
    return StreamInfo(
        _name_codec(stream),
        scan.durations_s[stream.index],
        width=width,
        height=height,
        frame_rate_hz=float(rate_hz) if rate_hz else None,
        warning=scan.warnings.get(stream.index, ""),
    )


def _name_codec(stream: Stream) -> str:
    return stream.codec_context.name if has_decoder(stream) else "unknown"
