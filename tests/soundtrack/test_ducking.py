from __future__ import annotations

import numpy as np
import pytest

from scenes import RATE, make_noise, make_tone
from speech import make_speech
from vmnet_pipeline.soundtrack.ducking import Duck, SpeechFinder, load_detector, merge


def find(signal, size=24_000):
    finder = SpeechFinder(0.5, load_detector())
    for start in range(0, len(signal), size):
        finder.add(signal[start : start + size])
    return finder.finish()


def test_speech_is_found_where_it_is_and_nowhere_else():
    scene = make_noise(9.0, level=0.001)
    scene[2 * RATE : 4 * RATE] += make_speech(2.0)
    scene[6 * RATE : 7 * RATE] += make_speech(1.0, seed=3)
    assert np.allclose(find(scene), [(2.0, 4.0), (6.0, 7.0)], atol=0.25)
    assert find(scene, size=777) == find(scene)
    assert find(make_tone(3.0, 440)) == find(make_noise(3.0)) == find(np.zeros((RATE, 2), np.float32)) == []


def test_speech_that_goes_on_at_the_end_is_closed():
    (span,) = find(make_speech(1.0))
    assert span[0] < 0.2 and 0.9 < span[1] < 1.3


@pytest.mark.parametrize("size", [999, 48_000])
def test_the_gain_is_full_depth_under_speech_and_straight_in_decibels_around_it(size):
    duck = Duck([(2.0, 3.0), (6.0, 7.0)], depth_db=10.0, attack_s=0.5, release_s=1.0)
    ones = np.ones((10 * RATE, 2), np.float32)
    blocks = (ones[start : start + size] for start in range(0, len(ones), size))
    gains = 20 * np.log10(np.concatenate(list(duck.apply(blocks)))[:, 0])
    times = [0.0, 1.5, 1.75, 2.0, 2.9, 3.5, 4.0, 5.0, 6.5, 7.5, 9.0]
    expected = [0.0, 0.0, -5.0, -10.0, -10.0, -5.0, 0.0, 0.0, -10.0, -5.0, 0.0]
    assert [gains[round(time * RATE)] for time in times] == pytest.approx(expected, abs=0.01)


def test_pauses_shorter_than_the_way_up_and_down_are_bridged():
    duck = Duck([(1.0, 2.0), (2.5, 3.0)], depth_db=10.0, attack_s=0.5, release_s=0.5)
    (gains,) = duck.apply([np.ones((4 * RATE, 2), np.float32)])
    assert 20 * np.log10(gains[round(1.0 * RATE) : 3 * RATE]).max() == pytest.approx(-10.0, abs=0.01)
    assert merge([(3, 4), (1, 2), (1.5, 2.5)], 0.0) == [(1, 2.5), (3, 4)]
