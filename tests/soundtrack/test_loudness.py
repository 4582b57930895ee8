from __future__ import annotations

import numpy as np
import pytest

from scenes import RATE, make_noise, make_tone, measure_loudness, write_music
from vmnet_pipeline.soundtrack.loudness import LoudnessMeter, PeakMeter


def add_all(meter, samples, size):
    for start in range(0, len(samples), size):
        meter.add(samples[start : start + size])
    return meter.measure()


def make_lively(seconds=12.0):
    """Loud and quiet parts, so that both gates have something to do."""
    signal = make_noise(seconds, seed=3)
    n = len(signal) // 4
    signal[n : 2 * n] *= 0.001
    signal[2 * n : 3 * n] *= 0.1
    return signal


@pytest.mark.parametrize("size", [480, 12_345, 10**6])
def test_the_meter_agrees_with_pyloudnorm_whatever_the_blocks(size):
    from pyloudnorm import Meter

    signal = make_lively()
    expected = Meter(RATE, filter_class="DeMan").integrated_loudness(signal.astype(np.float64))
    assert add_all(LoudnessMeter(), signal, size) == pytest.approx(expected, abs=0.01)


def test_the_meters_agree_with_ffmpeg(tmp_path):
    signal = make_lively() + make_tone(12.0, 11_025, 0.3)
    path = write_music(tmp_path / "a.wav", signal, "pcm_f32le")
    loudness_lufs, peak_dbtp = measure_loudness(path)
    assert add_all(LoudnessMeter(), signal, 5000) == pytest.approx(loudness_lufs, abs=0.05)
    assert add_all(PeakMeter(), signal, 5000) == pytest.approx(peak_dbtp, abs=0.2)


def test_a_tone_of_full_scale_has_the_loudness_of_the_standard():
    """997 Hz at 0 dB of full scale in one of two channels: -3.01 LUFS (BS.1770)."""
    tone = make_tone(5.0, 997, 1.0)
    tone[:, 1] = 0
    assert add_all(LoudnessMeter(), tone, 4800) == pytest.approx(-3.01, abs=0.02)


def test_a_peak_between_samples_is_found():
    """A quarter of the sample rate, 45 degrees off: samples reach 0.707 of a peak of 1."""
    phase = np.pi / 2 * np.arange(RATE) + np.pi / 4
    tone = np.stack([np.sin(phase)] * 2, axis=1) * np.hanning(RATE)[:, None]
    assert add_all(PeakMeter(), tone, 1000) == pytest.approx(0.0, abs=0.1)
    assert 20 * np.log10(np.abs(tone).max()) < -3.0


def test_silence_and_the_shortest_signals_have_a_loudness():
    assert add_all(LoudnessMeter(), np.zeros((RATE, 2)), 4800) <= -70
    assert LoudnessMeter().measure() <= -70
    short = make_tone(0.02, 997, 1.0)
    assert add_all(LoudnessMeter(), short, 100) == pytest.approx(0.0, abs=1.0)
    assert PeakMeter().measure() <= -100
