"""Made music on which a network is timed and its precisions are compared; the same on every machine."""

from __future__ import annotations

import numpy as np

N_PARTIALS = 12


def make_music(n_samples: int, rate_hz: int, seed: int) -> np.ndarray:
    """(n_samples,) float32 in [-1, 1]: chords of decaying partials, a beat of noise, loud and quiet parts."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(n_samples) / rate_hz
    since_chord_s, since_beat_s = time_s % 1.5, time_s % 0.5
    roots_hz = 55.0 * 2 ** (rng.integers(0, 36, (4, 3)) / 12)
    chord = (time_s // 1.5).astype(int) % len(roots_hz)
    samples = np.zeros(n_samples)
    for voice in range(roots_hz.shape[1]):
        pitch_hz = roots_hz[chord, voice]
        for partial in range(1, N_PARTIALS + 1):
            tone = np.sin(2 * np.pi * partial * pitch_hz * time_s) / partial
            samples += tone * (partial * pitch_hz < rate_hz / 2) * np.exp(-partial * since_chord_s / 2)
    samples += rng.standard_normal(n_samples) * np.exp(-12 * since_beat_s)
    samples *= np.where(time_s % 6 < 4.5, 1.0, 0.02)
    return np.asarray(samples / np.abs(samples).max(), np.float32)
