"""The hand-made sound features of the original VM-NET (2017): 1,140 numbers, with librosa.

For the harmonic and then the percussive part of the middle 29 s: 190 rows over time, each quantity in decibels below
its own maximum, also where it may be negative. Their means, then their variances, then their maxima.

Source: S. Hong, W. Im, H. Yang, CBVMR: content-based video-music retrieval using soft intra-modal structure
constraint (ICMR 2018), and its published extractor. Tempo and rhythm are switched off there.
"""

from __future__ import annotations

import tempfile
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

SAMPLE_RATE_HZ = 12_000
N_SAMPLES = 349_440  # 29.12 s
N_FFT = 512
HOP = 256
N_MELS = 96
N_MFCC = 20
MEL_RATE_HZ = 22_050  # the extractor does not hand the sampling rate on
ROWS: Mapping[str, int] = {
    "chroma_stft": 12,
    "chroma_cens": 12,
    "melspectrogram": N_MELS,
    "mfcc": N_MFCC,
    "mfcc_delta": N_MFCC,
    "mfcc_delta2": N_MFCC,
    "rms": 1,
    "spectral_centroid": 1,
    "spectral_bandwidth": 1,
    "spectral_rolloff": 1,
    "poly_order1": 2,
    "poly_order2": 3,
    "zero_crossing_rate": 1,
}
"""Quantities of one part, and how many rows each has."""
PARTS = ("harmonic", "percussive")
STATISTICS = ("mean", "variance", "maximum")
N_NUMBERS = len(STATISTICS) * len(PARTS) * sum(ROWS.values())


def name_numbers() -> tuple[str, ...]:
    """The 1,140 names in order, e.g. `mean_harmonic_chroma_stft_0`."""
    rows = [f"{part}_{name}_{k}" for part in PARTS for name, n in ROWS.items() for k in range(n)]
    return tuple(f"{statistic}_{row}" for statistic in STATISTICS for row in rows)


def take_middle(samples: np.ndarray, *, repeats: bool = False) -> np.ndarray:
    """(349,440,) float32: the middle of (n,) samples, or all of them and zeros at the end, or all again and again."""
    start = max(0, (len(samples) - N_SAMPLES) // 2)
    middle = np.asarray(samples[start : start + N_SAMPLES], np.float32)
    if repeats and len(middle):
        return np.resize(middle, N_SAMPLES)
    return np.pad(middle, (0, N_SAMPLES - len(middle)))


def import_librosa() -> Any:
    """librosa, which takes a second or two.

    numba compiles parts of it when they are first used and keeps them beside librosa or in the home folder. Where
    neither may be written, importing librosa fails; then it keeps them in a temporary folder until this process ends.
    """
    try:
        import librosa.feature.spectral  # by name, as librosa loads its modules only when they are first used
    except RuntimeError:
        import numba.core.config

        numba.core.config.CACHE_DIR = _make_cache().name
        import librosa.feature.spectral
    return librosa


@cache
def _make_cache() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="numba-")


def measure_rows(part: np.ndarray) -> dict[str, np.ndarray]:
    """The quantities of one part, before decibels.

    Args:
        part: (n,) float32 at 12 kHz.

    Returns:
        Name to (rows, 1 + n // 256) array, in the order and with the rows of `ROWS`.
    """
    feature = import_librosa().feature
    framed = {"y": part, "hop_length": HOP}
    rated = {**framed, "sr": SAMPLE_RATE_HZ}
    spectral = {**rated, "n_fft": N_FFT}
    mfcc = feature.mfcc(**rated, n_mfcc=N_MFCC)
    return {
        "chroma_stft": feature.chroma_stft(**spectral, tuning=_tune_spectrum(part)),
        "chroma_cens": feature.chroma_cens(**rated, tuning=_tune_signal(part)),
        "melspectrogram": feature.melspectrogram(**framed, sr=MEL_RATE_HZ, n_fft=N_FFT, n_mels=N_MELS),
        "mfcc": mfcc,
        "mfcc_delta": feature.delta(mfcc),
        "mfcc_delta2": feature.delta(mfcc, order=2),
        "rms": feature.rms(**framed, frame_length=N_FFT),
        "spectral_centroid": feature.spectral_centroid(**spectral),
        "spectral_bandwidth": feature.spectral_bandwidth(**spectral),
        "spectral_rolloff": feature.spectral_rolloff(**spectral),
        "poly_order1": feature.poly_features(**spectral, order=1),
        "poly_order2": feature.poly_features(**spectral, order=2),
        "zero_crossing_rate": feature.zero_crossing_rate(part, frame_length=N_FFT, hop_length=HOP),
    }


def _tune_spectrum(part: np.ndarray) -> float:
    """What `chroma_stft` finds by itself, but 0 without a warning where no pitch is found."""
    librosa = import_librosa()
    power = np.abs(librosa.stft(part, n_fft=N_FFT, hop_length=HOP)) ** 2
    return _tune(*librosa.piptrack(S=power, sr=SAMPLE_RATE_HZ), bins_per_octave=12)


def _tune_signal(part: np.ndarray) -> float:
    """The same of `chroma_cens`."""
    return _tune(*import_librosa().piptrack(y=part, sr=SAMPLE_RATE_HZ), bins_per_octave=36)


def _tune(pitch_hz: np.ndarray, magnitude: np.ndarray, *, bins_per_octave: int) -> float:
    """As `librosa.estimate_tuning`."""
    is_pitch = pitch_hz > 0
    if not is_pitch.any():
        return 0.0
    is_strong = magnitude >= np.median(magnitude[is_pitch])
    tuning = import_librosa().pitch_tuning(pitch_hz[is_strong & is_pitch], bins_per_octave=bins_per_octave)
    return float(tuning)


def describe_sound(samples: np.ndarray) -> np.ndarray:
    """The 1,140 numbers of (349,440,) float32 samples at 12 kHz, finite for any that are at most 1.

    Returns:
        (1140,) float32; NaN where samples are so large that librosa fails on their squares.
    """
    librosa = import_librosa()
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            parts = librosa.effects.hpss(samples)
            table = np.concatenate([_to_db(rows) for part in parts for rows in measure_rows(part).values()])
    except librosa.ParameterError:
        return np.full(N_NUMBERS, np.nan, np.float32)
    return np.concatenate([table.mean(axis=1), table.var(axis=1), table.max(axis=1)]).astype(np.float32)


def _to_db(rows: np.ndarray) -> np.ndarray:
    return np.asarray(import_librosa().power_to_db(rows, ref=np.max), np.float64)
