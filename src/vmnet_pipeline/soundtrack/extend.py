"""Make music as long as a video: play it on, or go back at a bar line, or begin it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.errors import MediaError, ParameterError
from vmnet_pipeline.soundtrack.fades import rise
from vmnet_pipeline.soundtrack.signals import RATE_HZ, Sound, cut, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

# Music up to this length is kept decoded while it is repeated: 23 MB.
_KEPT = 60 * RATE_HZ
_AT_BAR = round(0.03 * RATE_HZ)
_SHORTEST = RATE_HZ // 20
# Phrases are of eight, four or two bars.
_PHRASES = (8, 4, 2, 1)


@dataclass(frozen=True, slots=True)
class Piece:
    """A passage of the music that is played at once, in samples of the track; `overlap` of them with the one before."""

    start: int
    end: int
    overlap: int = 0


class Track:
    """The music, read from its beginning for each passage; a short one is kept decoded."""

    def __init__(self, sound: Sound) -> None:
        self._sound = sound
        self._kept: list[np.ndarray] | None = None

    def count(self, limit: int, progress: Callable[[float], None] = lambda share: None) -> int:
        """Samples of the track, at most `limit`."""
        n, kept = 0, list[np.ndarray]()
        for block in watch(cut(self._sound.blocks(), 0, limit), lambda n: progress(n / limit)):
            n += len(block)
            if n <= _KEPT:
                kept.append(block)
        self._kept = kept if n < limit and n <= _KEPT else None
        return n

    def keep_short(self) -> None:
        """Keep a short track decoded: it will be repeated."""
        self.count(_KEPT + 1)

    def play(self, pieces: Sequence[Piece]) -> Iterator[np.ndarray]:
        """Play passages one after the other; where they overlap, both are faded with equal power."""
        held = np.zeros((0, 2), np.float32)
        for piece, after in zip(pieces, [*pieces[1:], Piece(0, 0)], strict=True):
            fresh = self._cross(held, self._read(piece), piece.overlap)
            held = yield from _hold_back(fresh, after.overlap)
        yield held

    def _read(self, piece: Piece) -> Iterator[np.ndarray]:
        source = self._sound.blocks() if self._kept is None else iter(self._kept)
        return cut(source, piece.start, piece.end)

    @staticmethod
    def _cross(held: np.ndarray, blocks: Iterator[np.ndarray], n: int) -> Iterator[np.ndarray]:
        place = 0
        for block in blocks:
            if place < n:
                m = min(n - place, len(block))
                block = block.copy()
                block[:m] *= rise(n, place, place + m)[:, None]
                block[:m] += held[place : place + m] * rise(n, n - place - m, n - place)[::-1, None]
            place += len(block)
            yield block


def _hold_back(blocks: Iterator[np.ndarray], n: int) -> Generator[np.ndarray, None, np.ndarray]:
    """Pass a signal on but for its last n samples, which are returned."""
    held = np.zeros((0, 2), np.float32)
    for block in blocks:
        joined = np.concatenate([held, block])
        held = joined[max(0, len(joined) - n) :]
        if len(joined) > n:
            yield joined[: len(joined) - n]
    return held


def plan_pieces(
    start: int, length: int, n_track: int, bars: Sequence[int], crossfade: int, path: str
) -> tuple[list[Piece], str]:
    """Choose passages that give `length` samples from `start` on.

    Music that is too short goes back at its last bar line, to the bar from which one more passage is enough, by whole
    phrases where there is a choice, or else to its first bar. Without two bar lines it begins again as a whole.

    Args:
        start: First sample.
        length: Wanted samples.
        n_track: Samples of the track, as far as they are needed.
        bars: Samples at which its bars begin, in any order; empty if unknown.
        crossfade: Overlap in samples where a whole track begins again.
        path: Of the music, for messages.

    Returns:
        The passages and a remark on them, empty if the music is long enough.

    Raises:
        ParameterError: The music ends before `start`.
        MediaError: `too_short`: it lasts less than 50 ms.
    """
    if n_track < _SHORTEST:
        raise MediaError("too_short", f"{path}: lasts less than 50 ms; give another file")
    if start >= n_track:
        start_s, end_s = start / RATE_HZ, n_track / RATE_HZ
        raise ParameterError(f"start_s={start_s:.3f}: {path} ends at {end_s:.3f} s; choose an earlier start")
    if n_track - start >= length:
        return [Piece(start, start + length)], ""
    lines = sorted({bar for bar in bars if 0 <= bar < n_track})
    leave, enter, before, after = _choose_jump(start, length, n_track, lines, crossfade)
    pieces, n = [Piece(start, leave + after)], leave + after - start
    while n < length:
        pieces.append(Piece(enter - before, leave + after, before + after))
        n += leave - enter
    last = pieces[-1]
    pieces[-1] = Piece(last.start, last.end - (n - length), last.overlap)
    return pieces, _describe(len(pieces) - 1, leave, enter, is_at_bar=leave in lines)


def _choose_jump(start: int, length: int, n_track: int, lines: list[int], crossfade: int) -> tuple[int, int, int, int]:
    """Where to leave, where to enter again, and how long the overlap is before and after that instant."""
    exits = [bar for bar in lines if bar - start >= _SHORTEST]
    if len(lines) > 1 and exits:
        leave = exits[-1]
        enter = _choose_entry(lines[: lines.index(leave)], length - (leave - start), leave)
        if enter is not None:
            overlap = min(_AT_BAR, (leave - enter) // 2, leave - start)
            after = min(overlap // 2, n_track - leave)
            before = min(overlap - after, enter)
            return leave, enter, before, min(overlap - before, n_track - leave)
    overlap = min(crossfade, n_track // 4, (n_track - start) // 2)
    return n_track - overlap, 0, 0, overlap


def _choose_entry(lines: list[int], missing: int, leave: int) -> int | None:
    """The latest bar from which the rest can be played, whole phrases before the exit if possible; else the first."""
    enough = [bar for bar in lines if leave - bar >= missing]
    for phrase in _PHRASES:
        fitting = [bar for bar in enough if (len(lines) - lines.index(bar)) % phrase == 0]
        if fitting:
            return fitting[-1]
    for phrase in _PHRASES:
        fitting = [bar for bar in lines if (len(lines) - lines.index(bar)) % phrase == 0]
        if fitting:
            return fitting[0]
    return None


def _describe(n_jumps: int, leave: int, enter: int, *, is_at_bar: bool) -> str:
    times = "once" if n_jumps == 1 else f"{n_jumps} times"
    if is_at_bar:
        return (
            f"the music is shorter than the video: it goes back {times}, from the bar at {leave / RATE_HZ:.2f} s to "
            f"that at {enter / RATE_HZ:.2f} s"
        )
    return f"the music is shorter than the video and its bars are not known: it begins again {times}, with a crossfade"
