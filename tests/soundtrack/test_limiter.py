from __future__ import annotations

import numpy as np
import pytest
from test_loudness import add_all

from scenes import RATE, make_noise
from vmnet_pipeline.soundtrack.limiter import limit
from vmnet_pipeline.soundtrack.loudness import PeakMeter


def run(signal, gain_db, ceiling_dbtp, size=1000):
    blocks = (signal[start : start + size] for start in range(0, len(signal), size))
    return np.concatenate(list(limit(blocks, gain_db, ceiling_dbtp)))


@pytest.mark.parametrize("size", [100, 24_000, 10**6])
def test_what_stays_below_the_ceiling_is_only_amplified(size):
    signal = make_noise(1.0, level=0.05)
    assert run(signal, 6.0, -1.0, size) == pytest.approx(signal * 10 ** (6 / 20), abs=1e-6)


@pytest.mark.parametrize("size", [100, 24_000])
def test_true_peaks_keep_to_the_ceiling_and_the_rest_is_untouched(size):
    signal = make_noise(2.0, level=0.02)
    signal[RATE : RATE + 300] *= 60
    limited = run(signal, 0.0, -3.0, size)
    assert len(limited) == len(signal)
    assert -3.3 < add_all(PeakMeter(), limited, 1000) <= -2.95
    far = np.abs(np.arange(len(signal)) - RATE) > 0.06 * RATE
    assert limited[far] == pytest.approx(signal[far], abs=1e-6)


def test_a_signal_shorter_than_the_look_ahead_is_whole():
    signal = make_noise(0.001, level=3.0)
    assert len(run(signal, 0.0, -1.0)) == len(signal)
    assert np.abs(run(signal, 0.0, -1.0)).max() <= 0.9
    assert sum(map(len, limit([], 0.0, -1.0))) == 0
