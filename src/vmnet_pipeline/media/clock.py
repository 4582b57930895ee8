"""One time line for the streams of a file whose clock restarts, jumps or wraps.

Recordings that were joined, lost segments and counters that overflow leave timestamps that go back, or forward by
seconds to years. Players continue at the frame rate, and so does this. All streams of a file share one clock, so the
other stream tells a jump from a frame that is held, and both are moved by the same amount: audio and frames stay
together.

    timestamp + offset of the epoch = time on the line, in nanoseconds

An epoch lasts from one jump to the next. Streams enter it one after the other, since their packets are interleaved.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet

_NS = 1_000_000_000
# Deviations that are not jumps: rounding, also of the lengths of audio frames.
_JITTER_NS = _NS // 10
# Frames are decoded and shown in different orders, and some demuxers know only the latter.
_DISORDER_NS = _NS
# A frame may last this long in any format; beyond it, three times the longest before.
_SHORT_HOLD_NS = 3 * _NS
_HOLD_GROWTH = 3
# Before a rate is known. Also how far apart in a file the streams of one instant may be.
_FIRST_HOLD_NS = 10 * _NS
_N_STEPS_KNOWN = 8
# Longest hold in a format that states when each frame is shown; one wrong timestamp would otherwise last for years.
MAX_HOLD_S = 3600
_N_EPOCHS_KEPT = 3
# Frames that a decoder may hold back to bring them into order.
_N_REORDERED = 32
_GAP_NS = _NS // 2
_SAME_NS = _NS // 2
_TS_DISCONT = 0x200  # AVFMT_TS_DISCONT of FFmpeg: timestamps may have gaps that mean nothing


def states_times(container: InputContainer) -> bool:
    """Whether the format states when each frame is shown, instead of the clock of a transmission.

    Fragments of an MP4 file each start at a time of their own, as segments of a stream do; FFmpeg counts no frames of
    a track in fragments.
    """
    names = set(container.format.name.split(","))
    if "mov" in names:
        return is_indexed(container)
    return not (container.format.flags & _TS_DISCONT or names & {"flv", "wtv"})


def is_indexed(container: InputContainer) -> bool:
    """Whether an index places every packet: a clock cannot jump, and one stream is read without the others."""
    if "mov" not in container.format.name.split(","):
        return False
    return all(stream.frames > 0 for stream in container.streams if stream.type in ("audio", "video"))


@dataclass(slots=True, eq=False)
class _Epoch:
    offset: int


@dataclass(slots=True)
class _Track:
    """Where a stream is on the time line, in nanoseconds."""

    epoch: _Epoch  # of its latest packet
    next: int  # end of its packets in decoding order
    start: int | None  # when its first frame is shown; None while an edit list leaves out all
    shown: int  # when its last frame ends
    ahead: int  # end of a frame that is shown long after the others; it counts when no jump follows
    step: int = 0  # the shortest distance of two packets, for a format that does not say how long they last
    longest: int = 0  # longest hold of a frame, judged by the stream alone
    n_steps: int = 0  # packets after the first
    may_disorder: bool = False  # whether packets may not come in the order of their times
    jumped: int = 0  # by how much its latest jump moved it
    n_since: int = _N_REORDERED  # packets since then
    gaps: int = 0  # total length of its gaps
    left_out: int = 0  # total length of its jumps ahead
    shift: int = 0  # moves the stream against its epoch, within jitter, so that neither gap nor overlap remains

    @property
    def offset(self) -> int:
        """Offset from the stream's own time to the line."""
        return self.epoch.offset + self.shift


@dataclass(slots=True)
class Clock:
    """Moves the timestamps of packets to one time line; packets of all streams come in the order of the file."""

    states_times: bool  # see the function of this name; frames are then held as stated, up to `MAX_HOLD_S`
    n_jumps: int = 0
    _tracks: dict[int, _Track] = field(default_factory=dict)
    _epochs: list[_Epoch] = field(default_factory=lambda: [_Epoch(0)])

    def place(self, packet: Packet[Any]) -> None:
        """Move a packet to its place on the line; one without timestamps is left as it is."""
        time_base = packet.time_base
        if time_base is None:
            return
        ns_per_tick = _NS * time_base.numerator / time_base.denominator
        duration = round((packet.duration or 0) * ns_per_tick)
        ticks, track = packet.dts, self._tracks.get(packet.stream_index)
        if ticks is None and (track is None or not track.may_disorder):
            ticks = packet.pts
        if ticks is not None:
            lead = 0 if packet.pts is None else round((packet.pts - ticks) * ns_per_tick)
            if abs(lead) > MAX_HOLD_S * _NS:
                packet.pts, lead = ticks, 0
            time = round(ticks * ns_per_tick)
            track = self._start(packet, time, lead) if track is None else self._follow(track, time, lead, duration)
            is_left_out = packet.is_discard and not self.n_jumps
            self._extend(track, time + track.offset, lead, duration, is_left_out=is_left_out)
        elif track is not None and packet.pts is None:
            track.next += duration
            track.shown = max(track.shown, track.next)
        offset = self._epochs[-1].offset if track is None else track.offset
        if offset:
            _move(packet, round(offset / ns_per_tick))

    def get_end(self, stream_index: int | None = None) -> int | None:
        """End of the latest frame of a stream, or of all; None before the first packet."""
        tracks = self._tracks.items()
        return max((track.shown for index, track in tracks if stream_index in (None, index)), default=None)

    def get_span(self, stream_index: int | None = None) -> tuple[int, int]:
        """Begin and end of a stream, or of all, on the line as far as packets were placed; equal if none was."""
        tracks = [track for index, track in self._tracks.items() if stream_index in (None, index)]
        if not tracks:
            return 0, 0
        starts = (track.shown if track.start is None else track.start for track in tracks)
        return min(starts), max(max(track.shown, track.ahead) for track in tracks)

    def get_gaps(self, stream_index: int) -> int:
        """Total length of gaps of a stream whose clock continued."""
        track = self._tracks.get(stream_index)
        return 0 if track is None else track.gaps

    def get_left_out(self, stream_index: int) -> int:
        """Total length of the jumps ahead of a stream."""
        track = self._tracks.get(stream_index)
        return 0 if track is None else track.left_out

    def get_latest_jump(self, stream_index: int) -> int | None:
        """Offset of the last jump if it is within the latest packets of a stream, else None."""
        track = self._tracks.get(stream_index)
        return None if track is None or track.n_since > _N_REORDERED else track.jumped

    def _start(self, packet: Packet[Any], time: int, lead: int) -> _Track:
        epoch = self._enter(time + lead)
        start = time + lead + epoch.offset
        track = _Track(epoch, time + epoch.offset, None, start, start, may_disorder=packet.stream.type == "video")
        self._tracks[packet.stream_index] = track
        return track

    def _follow(self, track: _Track, time: int, lead: int, duration: int) -> _Track:
        """Choose the epoch of a packet that is decoded at `time` and shown `lead` later."""
        gap = self._find_epoch(track, time, lead)
        track.longest, track.n_steps = max(track.longest, gap), track.n_steps + 1
        track.n_since += 1
        if not duration:
            step = time + track.offset - track.next + track.step
            track.step = min(track.step or _JITTER_NS, max(step, 0))
        return track

    @staticmethod
    def _extend(track: _Track, time: int, lead: int, duration: int, *, is_left_out: bool) -> None:
        """Advance to the end of a packet that is decoded at `time` on the line; packets left out are not shown."""
        duration = duration or track.step
        end, late = time + lead + duration, time - track.next
        track.longest = max(track.longest, duration)
        track.next = max(track.next, time + duration) if track.may_disorder else time + duration
        if is_left_out and track.start is not None:
            return
        if not is_left_out:
            track.start = min(time + lead if track.start is None else track.start, time + lead)
        if end - track.shown > late + duration + _DISORDER_NS:  # a hold, or a jump that decoding has not reached
            track.ahead = max(track.ahead, end)
        else:
            track.shown = max(track.shown, end)

    def _enter(self, shown: int) -> _Epoch:
        """The epoch of a stream's first packet: the latest, unless its clock is unrelated to the others'."""
        (first, last), epoch = self.get_span(), self._epochs[-1]
        limit = MAX_HOLD_S * _NS if self.states_times else _FIRST_HOLD_NS
        if not self._tracks or first - limit <= shown + epoch.offset <= last + limit:
            return epoch
        return self._begin(last - shown)

    def _begin(self, offset: int) -> _Epoch:
        self._epochs = [*self._epochs[1 - _N_EPOCHS_KEPT :], _Epoch(offset)]
        self.n_jumps += 1
        return self._epochs[-1]

    def _find_epoch(self, track: _Track, time: int, lead: int) -> int:
        """Set the epoch in which a packet best follows the one before, or a new one.

        Returns:
            How long the frame before stands beyond its own duration, as this stream alone tells.
        """
        late = time + track.offset - track.next
        if -(_DISORDER_NS if track.may_disorder else _JITTER_NS) <= late <= _JITTER_NS:
            return max(0, late)
        before, is_shared = track.epoch, self._others_went_on(track, late)
        if late < 0 or not (self._may_stand(track, late) if is_shared is None else is_shared):
            track.epoch = self._find_other_epoch(track, time) or self._begin(self._find_offset(track, time, lead))
        else:
            track.epoch = self._find_newer_epoch(track, time, late) or track.epoch
        if track.epoch is not before:
            offset = track.shift + before.offset
            self._join(track, time, lead)
            track.jumped, track.n_since, track.ahead = track.offset - offset, 0, track.shown
            track.left_out = max(0, track.left_out - track.jumped)
        gap = max(0, time + track.offset - track.next)
        track.gaps += gap if gap >= _GAP_NS else 0
        return 0 if is_shared else gap

    def _join(self, track: _Track, time: int, lead: int) -> None:
        """Continue a stream without gap or overlap in a new epoch; more than jitter moves all streams."""
        gap = self._measure_gap(track, time, lead) + track.epoch.offset
        track.shift = -gap if abs(gap) <= _JITTER_NS else 0
        if gap < -_JITTER_NS:
            track.epoch.offset -= gap

    def _measure_gap(self, track: _Track, time: int, lead: int) -> int:
        """From the end of a stream to a packet without offset: as decoded, or as shown if the file states that."""
        return time + lead - track.shown if self.states_times else time - track.next

    def _find_offset(self, track: _Track, time: int, lead: int) -> int:
        """Offset of an epoch that starts at the end of the stream that enters it first, unless another is far ahead."""
        ahead = (self.get_end() or 0) - track.shown
        return (ahead if ahead > _JITTER_NS else 0) - self._measure_gap(track, time, lead)

    def _find_other_epoch(self, track: _Track, time: int) -> _Epoch | None:
        """The epoch that another stream has entered, or an older one after a single wrong timestamp."""
        newer = self._find_newer_epoch(track, time, _FIRST_HOLD_NS)
        older = [
            epoch
            for epoch in self._epochs
            if epoch is not track.epoch and abs(time + epoch.offset - track.next) < _SAME_NS
        ]
        return newer or next(iter(older), None)

    def _find_newer_epoch(self, track: _Track, time: int, late: int) -> _Epoch | None:
        """The epoch that another stream has entered, if a packet follows better there."""
        epoch = self._epochs[-1]
        gap = time + epoch.offset - track.next
        return epoch if epoch is not track.epoch and -_SHORT_HOLD_NS <= gap < late else None

    def _may_stand(self, track: _Track, late: int) -> bool:
        """Whether a frame may be held this long, judged by the stream alone."""
        if self.states_times:
            return late <= MAX_HOLD_S * _NS
        shortest = _FIRST_HOLD_NS if track.n_steps < _N_STEPS_KNOWN else _SHORT_HOLD_NS
        return late <= max(shortest, _HOLD_GROWTH * track.longest)

    def _others_went_on(self, track: _Track, late: int) -> bool | None:
        """Whether another stream filled most of a gap, so that this one is held or silent; None if unknown.

        One that ended long before cannot; nor can the streams of a format that states its times, which may all rest.
        """
        others = [other for other in self._tracks.values() if other is not track and other.epoch is track.epoch]
        if any(other.next >= track.next + late // 2 for other in others):
            return True
        alive = any(other.next >= track.next - _SHORT_HOLD_NS for other in others)
        return False if alive and late > _SHORT_HOLD_NS and not self.states_times else None


def _move(packet: Packet[Any], ticks: int) -> None:
    if packet.pts is not None:
        packet.pts += ticks
    if packet.dts is not None:
        packet.dts += ticks
