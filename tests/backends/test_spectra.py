"""Front ends against independent float64 formulas written as plain loops, and against librosa."""

from __future__ import annotations

import math

import librosa
import numpy as np
import pytest
import scipy.signal

from vmnet_pipeline.backends import musicnn, spectra, vggish

TOLERANCE = 1e-4


def naive_vggish_log_mel(samples: np.ndarray) -> np.ndarray:
    """The published formulas, one frame, one bin and one band at a time."""

    def mel(hz: float) -> float:
        return 1127.0 * math.log(1.0 + hz / 700.0)

    edges = [mel(125.0) + k * (mel(7500.0) - mel(125.0)) / 65 for k in range(66)]
    weights = np.zeros((257, 64))
    for bin_ in range(1, 257):
        m = mel(bin_ * 16000 / 512)
        for band in range(64):
            low, mid, high = edges[band : band + 3]
            weights[bin_, band] = max(0.0, min((m - low) / (mid - low), (high - m) / (high - mid)))
    window = [0.5 - 0.5 * math.cos(2 * math.pi * k / 400) for k in range(400)]
    rows = []
    for start in range(0, len(samples) - 400 + 1, 160):
        frame = samples[start : start + 400].astype(np.float64) * window
        magnitude = np.abs(np.fft.fft(np.concatenate([frame, np.zeros(112)]))[:257])
        rows.append([math.log(float(magnitude @ weights[:, band]) + 0.01) for band in range(64)])
    return np.array(rows)


def naive_musicnn_log_mel(samples: np.ndarray) -> np.ndarray:
    """Centred power spectrum by scipy, Slaney triangles one by one."""

    def hz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)

    top = 15 + 27 * math.log(8.0) / math.log(6.4)
    edges = [hz(k * top / 97) for k in range(98)]
    padded = np.concatenate([np.zeros(256), samples.astype(np.float64), np.zeros(256)])
    window = scipy.signal.get_window("hann", 512)
    mel = np.zeros((1 + len(samples) // 256, 96))
    weights = np.zeros((257, 96))
    for band in range(96):
        low, mid, high = edges[band : band + 3]
        for bin_ in range(257):
            f = bin_ * 16000 / 512
            weights[bin_, band] = max(0.0, min((f - low) / (mid - low), (high - f) / (high - mid))) * 2 / (high - low)
    for row in range(len(mel)):
        power = np.abs(np.fft.fft(padded[row * 256 : row * 256 + 512] * window)[:257]) ** 2
        mel[row] = power @ weights
    return np.log10(10000 * mel + 1)


def test_vggish_log_mel_equals_naive_formulas(rich_sound):
    ours = vggish.measure_log_mel(rich_sound)
    assert ours.shape == (1 + (len(rich_sound) - 400) // 160, 64)
    assert ours.dtype == np.float32
    assert np.abs(ours - naive_vggish_log_mel(rich_sound)).max() <= TOLERANCE


def test_musicnn_log_mel_equals_naive_formulas(rich_sound):
    ours = musicnn.measure_log_mel(rich_sound)
    assert ours.shape == (1 + len(rich_sound) // 256, 96)
    assert ours.dtype == np.float32
    assert np.abs(ours - naive_musicnn_log_mel(rich_sound)).max() <= TOLERANCE


@pytest.mark.slow  # librosa compiles itself at its first spectrogram
def test_musicnn_log_mel_equals_librosa(rich_sound):
    mel = librosa.feature.melspectrogram(
        y=rich_sound.astype(np.float64), sr=16000, n_fft=512, hop_length=256, n_mels=96
    )
    assert np.abs(musicnn.measure_log_mel(rich_sound) - np.log10(10000 * mel.T + 1)).max() <= TOLERANCE


def test_slaney_filters_equal_librosa():
    theirs = librosa.filters.mel(sr=16000, n_fft=512, n_mels=96, dtype=np.float64)
    np.testing.assert_allclose(spectra.build_slaney_filters(16000, 512, 96), theirs.T, atol=1e-12)


def test_htk_filters_keep_dc_out_and_stay_unnormalised():
    filters = spectra.build_htk_filters(16000, 512, 64, 125.0, 7500.0)
    assert not filters[0].any()
    assert filters.max() > 0.9  # triangles of height 1, not of area 1
    assert not filters[np.arange(257) * 31.25 >= 7500].any()


def test_loud_sound_does_not_overflow():
    """A full-scale tone gives mels far above 6.55, where 10000 x leaves float16."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(48_000) / 16_000).astype(np.float32)
    log_mel = musicnn.measure_log_mel(tone)
    assert np.isfinite(log_mel).all()
    assert log_mel.max() > np.log10(10000 * 6.55 + 1)


def test_blocks_join_seamlessly(rich_sound, monkeypatch):
    whole = vggish.measure_log_mel(rich_sound)
    monkeypatch.setattr(spectra, "BLOCK_FRAMES", 7)
    np.testing.assert_allclose(vggish.measure_log_mel(rich_sound), whole, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 399])
def test_sound_shorter_than_a_frame_gives_no_frame(n):
    assert vggish.measure_log_mel(np.zeros(n, np.float32)).shape == (0, 64)
