"""Pitch classes, key and change of harmony."""

from __future__ import annotations

from functools import cache

import numpy as np

from vmnet_pipeline.backends.descriptors import series

A4_HZ = 440.0
LOW_HZ, HIGH_HZ = 130.0, 4_200.0  # below, the bins of a frame of 93 ms lie further apart than semitones
WIDTH_SEMITONES = 0.4
STEP_S = 0.5  # a chord lasts longer
# How well each pitch class fits to a key of C, by listeners.
# Source: C. Krumhansl, Cognitive Foundations of Musical Pitch (1990), table 2.1.
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


@cache
def build_chroma_filters(sample_rate_hz: int, n_fft: int) -> np.ndarray:
    """(n_fft // 2 + 1, 12) float64 weights of the bins for the pitch classes from C, Gaussian in semitones."""
    frequency = np.arange(n_fft // 2 + 1) * (sample_rate_hz / n_fft)
    is_used = (frequency >= LOW_HZ) & (frequency <= HIGH_HZ)
    semitones = 12 * np.log2(np.where(is_used, frequency, A4_HZ) / A4_HZ) + 9  # above C
    distance = (semitones[:, None] - np.arange(12) + 6) % 12 - 6
    return np.asarray(np.exp(-0.5 * (distance / WIDTH_SEMITONES) ** 2) * is_used[:, None])


def describe_harmony(chroma: np.ndarray, rate_hz: float) -> dict[str, float]:
    """Mode, key clarity, pitch variety and harmonic change.

    Args:
        chroma: (n, 12) magnitudes >= 0, n >= 1.
        rate_hz: Frames per second.
    """
    total = chroma.astype(np.float64).mean(axis=0)
    major, minor = (find_best_fit(total, profile) for profile in (MAJOR, MINOR))
    return {
        "mode": major - minor,
        "key_clarity": max(major, minor),
        "pitch_variety": series.measure_entropy(total - total.min()),
        "harmonic_change": measure_change(chroma, max(1, round(STEP_S * rate_hz))) / STEP_S,
    }


def find_best_fit(chroma: np.ndarray, profile: tuple[float, ...]) -> float:
    """Highest correlation of (12,) pitch classes with a profile at any of its twelve keynotes; 0 if all are equal."""
    if np.ptp(chroma) <= series.TINY * max(1.0, float(np.abs(chroma).max())):
        return 0.0
    return max(float(np.corrcoef(chroma, np.roll(profile, key))[0, 1]) for key in range(12))


def measure_change(chroma: np.ndarray, n_frames: int) -> float:
    """Mean cosine distance, in [0, 1], between the pitch classes of neighbouring steps of so many frames."""
    n_steps = len(chroma) // n_frames
    if n_steps < 2:
        return 0.0
    steps = chroma[: n_steps * n_frames].astype(np.float64).reshape(n_steps, n_frames, 12).mean(axis=1)
    unit = steps / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), series.TINY)
    is_sounding = unit.any(axis=1)
    both = is_sounding[1:] & is_sounding[:-1]
    agreement = np.einsum("ij,ij->i", unit[1:], unit[:-1])[both]
    return float(np.clip(1.0 - agreement, 0.0, 1.0).mean()) if both.any() else 0.0
