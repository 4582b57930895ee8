"""Packets and frames of an open file on one time line of both sides; losses are counted."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

from vmnet_pipeline.media.clock import MAX_HOLD_S, Clock, is_indexed, states_times
from vmnet_pipeline.media.container import MAX_FRAME_PX, find_audio_stream, find_video_stream, has_decoder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from av.container import InputContainer
    from av.frame import Frame
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

# Failures in a row after which the rest of a stream is given up: a damaged stretch is skipped, but
# a file whose index lists the same bad bytes a billion times cannot keep a worker busy.
MAX_BARREN_PACKETS = 2_000
_N_HELD_BACK = 32
_MAX_ERRORS_IN_ROW = 100
# Smaller gaps come from encoders and muxers: silence there would be heard as a click.
MIN_GAP_S = 0.1
_MAX_STEP_S = 1
# No codec puts more audio into one packet; a last one of hours comes from a header.
_MAX_AUDIO_S = 10
_ANY = 1 << 63
# Streams of one file that begin further apart than this have unrelated clocks.
_MAX_START_GAP_S = 10
# Less than this is not worth a warning: a damaged frame or two.
_LOSS_S = 0.5
_SHORT_SHARE = 0.02
_SHORT_S = 1.0
# A side may end before applause or credits; beyond this, warn, as a last frame may be meant to be held.
_EARLY_S = 3.0
# Formats whose header or index says how long the streams are, rather than FFmpeg guessing from a bit rate.
_SIZED_STREAMS = frozenset({"mov", "flac", "wav"})
_SIZED_FILES = frozenset({"matroska", "flv", "asf", "avi"})


@dataclass(slots=True)
class Losses:
    """What could not be read or decoded of a file."""

    n_errors: int = 0  # places at which reading failed
    n_damaged: int = 0  # incomplete packets
    gave_up: bool = False  # whether the rest was not read
    is_cut: bool = False  # whether the last packet is incomplete
    has_new_streams: bool = False  # whether streams appeared after the file was opened
    last_place: int | None = None  # byte at which the last wanted packet begins
    failed_s: float = 0.0  # length of the packets that did not decode
    n_barren: int = 0  # packets since the last that gave frames
    barren_place: int | None = None  # byte at which the first of them begins
    barren_s: float = 0.0  # length of those of them that did not decode

    @property
    def changes_codec(self) -> bool:
        """Whether nothing decodes any more, for longer than decoders hold frames back."""
        return self.n_barren > _N_HELD_BACK


class Reader:
    """Reads one side of an open container, or both.

    Attributes:
        losses: What could not be read so far.
        base_s: When the part begins, in seconds from the first instant of the file.
        end_s: End of the last frame, in seconds from the first instant of the file, as the one who decodes says.
    """

    def __init__(self, container: InputContainer, *streams: Stream, base_s: Fraction = Fraction(0)) -> None:
        """Prepare; in a format without an index the other side is also read, for its clock.

        Args:
            base_s: When the part begins, in seconds from the first instant of the file.
        """
        self.base_s, self.end_s = base_s, float(base_s)
        self.streams, self.losses = streams, Losses()
        self.clock = Clock(states_times(container))
        self._container = container
        own = {stream.type: stream for stream in streams}
        sides = (own.get("audio") or find_audio_stream(container), own.get("video") or find_video_stream(container))
        self._sides = [side for side in sides if side is not None]
        self._is_indexed = is_indexed(container)
        self._names = set(container.format.name.split(","))
        self._file_s = _count_frames(self._sides) if "avi" in self._names else read_length(container)
        self._audio = [side.index for side in self._sides if side.type == "audio"]
        # streams cannot be used once their container is closed
        self.indices = [stream.index for stream in streams]
        self._declared_s = {stream.index: _get_duration(stream) for stream in streams}
        self._origin: Fraction | None = None
        self._told: Fraction | None = None

    @property
    def origin_s(self) -> Fraction | None:
        """The first instant of the file on the time line; None before the first packet, or where none has a time."""
        return None if self._origin is None else self._origin - self.base_s

    def packets(self) -> Iterator[Packet[Any]]:
        """Packets of the streams, their timestamps on the time line of the file."""
        wanted = {stream.index for stream in self.streams}
        read = self.streams if self._is_indexed else {s.index: s for s in (*self.streams, *self._sides)}.values()
        audio = [s for s in self._sides if s.type == "audio" and s.time_base is not None]
        longest = {s.index: int(_MAX_AUDIO_S / (s.time_base or 1)) for s in audio}
        for packet in read_packets(self._container, list(read), self.losses):
            if (packet.duration or 0) > longest.get(packet.stream_index, _ANY):
                packet.duration = 0
            if self._origin is None:
                self._origin = self._find_origin(packet)
            self.clock.place(packet)
            if packet.stream_index in wanted:
                self.losses.last_place = max(packet.pos or 0, self.losses.last_place or 0)
                # FFmpeg makes decoders drop what follows a fragment of a later time
                yield _copy_packet(packet) if packet.is_discard and self.clock.n_jumps else packet

    def frames(self) -> Iterator[Any]:
        """Frames of the first stream in the order of presentation; damaged packets are skipped."""
        return decode_packets(self.streams[0], self.packets(), self.losses)

    def tell(self, frame: Frame) -> Fraction | None:
        """Seconds from the first instant of the file, the begin of its earlier side; None if a frame has no time."""
        time_base = self.streams[0].time_base
        if frame.pts is None or time_base is None:
            return None
        time = frame.pts * time_base
        if self._origin is None:
            self._origin = time
        self._told = self._correct(time)
        return self._told - self._origin + self.base_s

    def _correct(self, time: Fraction) -> Fraction:
        """Move the few frames whose time jumps before decoding does, as encoders reorder frames."""
        latest = self.clock.get_latest_jump(self.streams[0].index)
        if self._told is None or latest is None or time - self._told < _MAX_STEP_S:
            return time
        moved = time + Fraction(latest, 1_000_000_000)
        return moved if abs(moved - self._told) < _MAX_STEP_S else time

    def _find_origin(self, packet: Packet[Any]) -> Fraction | None:
        """Where the earlier side begins, in seconds on the time line, which begins with the first packet."""
        starts = {side.index: get_start(side) for side in self._sides}
        first = starts.get(packet.stream_index)
        if first is None and packet.pts is not None and packet.time_base is not None:
            first = packet.pts * packet.time_base
        if first is None:
            return None
        limit = MAX_HOLD_S if self.clock.states_times else _MAX_START_GAP_S
        near = [start for start in (*starts.values(), first) if start is not None and abs(start - first) <= limit]
        own = starts.get(self.streams[0].index)
        return own if own is not None and own - min(near) < MIN_GAP_S else min(near)

    def measure(self, index: int | None = None) -> float:
        """Seconds from the first to the last frame of a stream, or of all, that were read; 0 where none has a time."""
        start, end = self.clock.get_span(index)
        return (end - start) / 1e9

    def lasts_beyond(self, index: int, limit_s: float) -> bool:
        """Whether a stream, as far as it was read, is longer than this."""
        end = self.clock.get_end(index)
        return end is not None and end - self.clock.get_span(index)[0] > limit_s * 1e9

    def find_duration(self) -> float:
        """Seconds that the part lasts, on both sides, after it was read to its end."""
        if self.losses.has_new_streams:
            return self.measure(self.indices[0])
        if self.losses.changes_codec:
            return self.end_s - float(self.base_s)
        return self._file_s if self._is_indexed else self.measure()

    def _find_declared(self, index: int, duration_s: float) -> tuple[float, float]:
        """Seconds that were read and that header or index declare, of the stream or the file; or zeros."""
        if self._names & _SIZED_STREAMS and (declared_s := self._declared_s[index]):
            return duration_s, declared_s
        return (self.measure(), self._file_s) if self._names & _SIZED_FILES else (0.0, 0.0)

    def describe_losses(self, index: int, duration_s: float, *, is_full: bool = False) -> list[str]:
        """Warnings about what was read of a stream, without the path.

        Args:
            index: Of one of the streams that were read; the container may be closed.
            is_full: Whether nothing more was wanted.
        """
        found = []
        present_s, declared_s = (0.0, 0.0) if is_full else self._find_declared(index, duration_s)
        if present_s < declared_s - max(_SHORT_S, _SHORT_SHARE * declared_s):
            found.append(f"only {duration_s:.1f} s of the {declared_s:.1f} s that the file declares can be read")
        elif not is_full and (self.losses.is_cut or self.losses.gave_up):
            found.append(f"the file is cut off or damaged after {duration_s:.1f} s; what follows cannot be read")
        if self.losses.n_errors and not self.losses.gave_up:
            found.append(f"reading failed in {self.losses.n_errors} places and went on after them")
        if not is_full and duration_s < self.measure(index) - _SHORT_S:
            found.append(f"only {duration_s:.1f} s of the {self.measure(index):.1f} s that were read can be decoded")
        elif self.losses.failed_s >= _LOSS_S:
            found.append(f"{self.losses.failed_s:.1f} s are damaged and cannot be decoded")
        gaps_s = self.clock.get_gaps(index) / 1e9
        # frames may be held; if audio pauses as well, or packets are incomplete, something is missing
        if gaps_s and (self.losses.n_damaged or any(self.clock.get_gaps(side) for side in self._audio)):
            found.append(f"{gaps_s:.1f} s are missing in its midst; silence or the frame before stands there")
        if n_jumps := self.clock.n_jumps:
            left_s = self.clock.get_left_out(index) / 1e9
            rest = f", {left_s:.1f} s are left out" if left_s >= _SHORT_S else ""
            times = "once" if n_jumps == 1 else f"{n_jumps} times"
            found.append(f"its clock jumps {times}; it goes on without a gap{rest}")
        early_s = (self.clock.get_span()[1] - self.clock.get_span(index)[1]) / 1e9
        if not is_full and early_s >= _EARLY_S:
            found.append(f"it ends {early_s:.1f} s before the other side of the file")
        return found


def _copy_packet(packet: Packet[Any]) -> Packet[Any]:
    """The same data and times without flags, which cannot be unset."""
    from av.packet import Packet as NewPacket

    copy = NewPacket(bytes(packet))
    copy.stream, copy.time_base = packet.stream, packet.time_base
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    return copy


def get_start(stream: Stream) -> Fraction | None:
    """Begin of a stream in seconds by its own timestamps; None if unknown before reading."""
    if stream.start_time is None or stream.time_base is None:
        return None
    return stream.start_time * stream.time_base


def _count_frames(sides: Sequence[Stream]) -> float:
    """Seconds of the frames that an AVI file declares; what FFmpeg calls its duration follows from its size."""
    rated = [cast("VideoStream", side) for side in sides if side.type == "video"]
    return max((side.frames / float(side.average_rate) for side in rated if side.average_rate), default=0.0)


def states_end(container: InputContainer) -> bool:
    """Whether the declared length is the time of the end of all streams: Matroska, FLV."""
    return not {"matroska", "flv"}.isdisjoint(container.format.name.split(","))


def read_length(container: InputContainer) -> float:
    """Seconds that the header declares of a file, from its first instant on."""
    start = max(0, container.start_time or 0) if states_end(container) else 0
    return max(0, (container.duration or 0) - start) / 1e6


def _get_duration(stream: Stream) -> float:
    if stream.duration is None or stream.time_base is None:
        return 0.0
    return float(stream.duration * stream.time_base)


def read_packets(container: InputContainer, streams: list[Stream], losses: Losses) -> Iterator[Packet[Any]]:
    """Non-empty packets of the given streams; reading continues after errors as long as packets come.

    The demuxer is told to leave the other streams out, so that their bytes are not read where the
    container has an index. Empty packets are left out because they would tell the decoder to finish.
    """
    import av
    from av.stream import Discard

    wanted = {stream.index for stream in streams}
    for other in container.streams:
        if other.index not in wanted:
            other.discard = Discard.all
    n_in_row = 0
    while n_in_row < _MAX_ERRORS_IN_ROW:
        try:
            for packet in container.demux(*streams):
                if packet.size > 0:
                    n_in_row, losses.is_cut = 0, packet.is_corrupt
                    losses.n_damaged += packet.is_corrupt
                    yield packet
            return
        except av.error.FFmpegError:
            n_in_row += 1
            losses.n_errors += n_in_row == 1
        except (ValueError, OSError):  # of the file itself
            break
        except IndexError:  # PyAV (18.1) fails at the end on streams that appeared after opening (MPEG-TS)
            losses.has_new_streams = True
            return
    losses.gave_up = True


def decode_packet(stream: Stream, packet: Packet[Any] | None, losses: Losses | None = None) -> list[Any]:
    """Decode a packet, or None at the end, to frames; none if it is damaged."""
    import av

    if not has_decoder(stream):
        return []
    try:
        return list(stream.codec_context.decode(packet))
    except (av.error.FFmpegError, ValueError, MemoryError):
        if losses is not None and packet is not None and packet.time_base is not None:
            losses.failed_s += float((packet.duration or 0) * packet.time_base)
        return []


def gives_frames(container: InputContainer, index: int) -> bool:
    """Whether anything of a stream decodes, as far as `decode_packets` tries; the container has been read then."""
    stream, losses = container.streams[index], Losses()
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PX)}
    return next(decode_packets(stream, read_packets(container, [stream], losses), losses), None) is not None


def decode_packets(stream: Stream, packets: Iterator[Packet[Any]], losses: Losses) -> Iterator[Any]:
    """Frames of the given packets and those still in the decoder; gives up after a long run of failures."""
    for packet in packets:
        failed_s = losses.failed_s
        frames = decode_packet(stream, packet, losses)
        yield from frames
        losses.barren_s = 0.0 if frames else losses.barren_s + losses.failed_s - failed_s
        losses.barren_place = packet.pos if frames or not losses.n_barren else losses.barren_place
        losses.n_barren = 0 if frames else losses.n_barren + 1
        if losses.n_barren >= MAX_BARREN_PACKETS:
            losses.gave_up = True
            break
    yield from decode_packet(stream, None)
