from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from vmnet_pipeline.errors import MediaError, ParameterError
from vmnet_pipeline.soundtrack.extend import Piece, Track, plan_pieces
from vmnet_pipeline.soundtrack.signals import RATE_HZ

BAR = 2 * RATE_HZ
BARS = [k * BAR + 1000 for k in range(20)]
LENGTH = 41 * RATE_HZ


def plan(start, length, bars=BARS, n_track=LENGTH, crossfade=RATE_HZ):
    return plan_pieces(start, length, n_track, bars, crossfade, "song.wav")


def total(pieces):
    return sum(piece.end - piece.start - piece.overlap for piece in pieces)


def test_music_that_is_long_enough_is_played_as_it_is():
    assert plan(1000, LENGTH - 1000) == ([Piece(1000, LENGTH)], "")


@pytest.mark.parametrize("start", [0, BARS[3], BARS[12] + 77, LENGTH - 5000])
@pytest.mark.parametrize("length", [LENGTH + 1, 3 * LENGTH + 5, 100 * LENGTH + 7])
@pytest.mark.parametrize("bars", [BARS, BARS[::-1], BARS[:1], []])
def test_passages_give_exactly_the_wanted_length(start, length, bars):
    pieces, remark = plan(start, length, bars)
    assert total(pieces) == length and remark
    assert all(0 <= piece.start < piece.end <= LENGTH for piece in pieces)
    for before, after in pairwise(pieces):
        assert before.end - before.start >= before.overlap + after.overlap


@pytest.mark.parametrize("start", [0, BARS[3], BARS[12] + 77])
def test_every_jump_is_from_bar_to_bar(start):
    """Where an overlap begins, one passage is as far from its bar line as the other."""
    pieces, _ = plan(start, 5 * LENGTH)
    for before, after in pairwise(pieces):
        left = before.end - after.overlap
        assert any((bar - left) == (other - after.start) for bar in BARS for other in BARS if bar != other)
        assert 0 < after.overlap <= 0.03 * RATE_HZ
        assert abs(left - after.start) % BAR == 0


def test_one_jump_back_by_whole_phrases_is_preferred():
    pieces, remark = plan(BARS[10], LENGTH - BARS[10] + 4 * RATE_HZ)
    assert len(pieces) == 2 and "once" in remark
    assert (pieces[0].end - pieces[1].overlap - pieces[1].start) / BAR in (4, 8)


def test_music_shorter_than_a_bar_begins_again_with_a_crossfade():
    pieces, remark = plan(0, 10 * RATE_HZ, bars=[100], n_track=RATE_HZ)
    assert {piece.overlap for piece in pieces[1:]} == {RATE_HZ // 4}
    assert "begins again" in remark and total(pieces) == 10 * RATE_HZ


def test_no_music_is_refused():
    with pytest.raises(ParameterError, match=r"song.wav ends at 41.000 s"):
        plan(LENGTH, 10)
    with pytest.raises(MediaError, match="less than 50 ms"):
        plan(0, RATE_HZ, n_track=100)


class Ramp:
    """A track whose samples are their own places, in blocks of odd lengths."""

    def __init__(self, n):
        self.samples = np.stack([np.arange(n, dtype=np.float32)] * 2, axis=1)

    def blocks(self):
        yield from np.array_split(self.samples, range(777, len(self.samples), 777))


@pytest.mark.parametrize("is_kept", [False, True])
def test_passages_are_played_at_their_samples_with_equal_power_between(is_kept):
    track = Track(Ramp(10_000))
    if is_kept:
        track.keep_short()
    pieces = [Piece(5000, 7000), Piece(1000, 3000, 400), Piece(1000, 1600, 400)]
    played = np.concatenate(list(track.play(pieces)))[:, 0]
    assert len(played) == 2000 + 1600 + 200
    assert np.array_equal(played[:1600], np.arange(5000, 6600))
    assert np.array_equal(played[2000:3200], np.arange(1400, 2600))
    assert np.array_equal(played[3600:], np.arange(1400, 1600))
    angle = (np.arange(400) + 0.5) * np.pi / 800
    expected = np.cos(angle) * np.arange(6600, 7000) + np.sin(angle) * np.arange(1000, 1400)
    assert played[1600:2000] == pytest.approx(expected, rel=1e-5)
