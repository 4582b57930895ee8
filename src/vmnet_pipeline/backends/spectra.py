"""Mel spectrograms with scipy.

Not with librosa, whose filters are equal to 1e-12 (`tests/backends/test_spectra.py`): every child process
that decodes would import it and numba for 1.8 s, and its first spectrogram compiles.

Transforms in float32, whose rounding lies far below that of 16-bit sound; sums over bands in float64, so that
logs of quiet bands stay exact.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK_FRAMES = 2048
HTK_BREAK_HZ = 700.0
HTK_SCALE = 1127.0
SLANEY_HZ_PER_MEL = 200.0 / 3.0
SLANEY_BREAK_HZ = 1000.0
SLANEY_LOG_STEP = np.log(6.4) / 27.0


def import_libraries() -> None:
    """Import what spectra need; a process that decodes does so before it limits memory for a file."""
    import scipy.fft  # noqa: F401


def hz_to_mel_htk(frequency_hz: np.ndarray | float) -> np.ndarray:
    """Mel scale of HTK: 1127 ln(1 + f / 700)."""
    return np.asarray(HTK_SCALE * np.log1p(np.asarray(frequency_hz, np.float64) / HTK_BREAK_HZ))


def hz_to_mel_slaney(frequency_hz: np.ndarray | float) -> np.ndarray:
    """Mel scale of Slaney's Auditory Toolbox: linear to 1 kHz, logarithmic above."""
    frequency = np.asarray(frequency_hz, np.float64)
    above = np.log(np.maximum(frequency, SLANEY_BREAK_HZ) / SLANEY_BREAK_HZ) / SLANEY_LOG_STEP
    return np.asarray(np.minimum(frequency, SLANEY_BREAK_HZ) / SLANEY_HZ_PER_MEL + above)


def mel_to_hz_slaney(mel: np.ndarray) -> np.ndarray:
    """Inverse of `hz_to_mel_slaney`."""
    break_mel = SLANEY_BREAK_HZ / SLANEY_HZ_PER_MEL
    above = np.exp(SLANEY_LOG_STEP * np.maximum(mel - break_mel, 0.0))
    return np.asarray(np.minimum(mel, break_mel) * SLANEY_HZ_PER_MEL * above)


def _bin_frequencies(sample_rate_hz: int, n_fft: int) -> np.ndarray:
    return np.arange(n_fft // 2 + 1) * (sample_rate_hz / n_fft)


def _raise_triangles(points: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(n_points, n_edges - 2) triangles of height 1, band b from edge b over edge b + 1 to edge b + 2."""
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (points[:, None] - lower) / (centre - lower)
    falling = (upper - points[:, None]) / (upper - centre)
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)))


@cache
def build_htk_filters(sample_rate_hz: int, n_fft: int, n_mels: int, low_hz: float, high_hz: float) -> np.ndarray:
    """(n_fft // 2 + 1, n_mels) float64 HTK filters: triangles linear in mel, not normalised.

    The row of 0 Hz is zero, since no triangle reaches below `low_hz` >= 0.

    Source: the VGGish front end (tensorflow/models, research/audioset/vggish).
    """
    edges = np.linspace(hz_to_mel_htk(low_hz), hz_to_mel_htk(high_hz), n_mels + 2)
    filters = _raise_triangles(hz_to_mel_htk(_bin_frequencies(sample_rate_hz, n_fft)), edges)
    filters[0] = 0.0
    return np.asarray(filters)


@cache
def build_slaney_filters(sample_rate_hz: int, n_fft: int, n_mels: int) -> np.ndarray:
    """(n_fft // 2 + 1, n_mels) float64 Slaney filters from 0 Hz to half the rate: linear in Hz, area 1.

    Source: Slaney, "Auditory Toolbox" (1998); the default of `librosa.feature.melspectrogram`.
    """
    mels = np.linspace(0.0, hz_to_mel_slaney(sample_rate_hz / 2), n_mels + 2)
    edges_hz = mel_to_hz_slaney(mels)
    filters = _raise_triangles(_bin_frequencies(sample_rate_hz, n_fft), edges_hz)
    return np.asarray(filters * (2.0 / (edges_hz[2:] - edges_hz[:-2])))


def measure_mel(
    samples: np.ndarray,
    filters: np.ndarray,
    *,
    frame: int,
    hop: int,
    n_fft: int,
    spectrum: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Mel spectrogram without centring or padding.

    Args:
        samples: (n,) float.
        filters: (n_fft // 2 + 1, n_mels) weights.
        frame: Samples per frame, under a periodic Hann window.
        hop: Samples between frames.
        n_fft: Length of the transform; frames are zero-padded at their end.
        spectrum: Applied to the complex spectrum: magnitude or power.

    Returns:
        (n_frames, n_mels) float64, n_frames = 1 + (n - frame) // hop, or 0 if n < frame.
    """
    from scipy import fft

    n_frames = max(0, 1 + (len(samples) - frame) // hop)
    window = (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(frame) / frame)).astype(np.float32)
    mel = np.empty((n_frames, filters.shape[1]))
    for start in range(0, n_frames, BLOCK_FRAMES):
        stop = min(start + BLOCK_FRAMES, n_frames)
        part = np.asarray(samples[start * hop : (stop - 1) * hop + frame], np.float32)
        frames = np.lib.stride_tricks.sliding_window_view(part, frame)[::hop]
        mel[start:stop] = spectrum(fft.rfft(frames * window, n_fft, overwrite_x=True)) @ filters
    return mel


def take_power(spectrum: np.ndarray) -> np.ndarray:
    """Squared magnitude."""
    return np.asarray(spectrum.real**2 + spectrum.imag**2)
