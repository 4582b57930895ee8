"""The preset `compact` of `descriptors_audio`: what is heard in each frame, and numbers over a span of it.

With scipy and not with librosa, to which each curve is compared (`tests/backends/test_descriptors_audio.py`): the
processes that decode may write no file, so numba can neither compile librosa there nor use its cache, and importing
it takes 1.8 s of each.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.backends import spectra
from vmnet_pipeline.backends.descriptors import harmony, rhythm, series
from vmnet_pipeline.backends.descriptors.names import AUDIO_DESCRIPTORS, N_MFCC

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE_RATE_HZ = 22_050
N_FFT = 2048
HOP = 512
N_MELS = 128
FRAME_RATE_HZ = SAMPLE_RATE_HZ / HOP
BLOCK_FRAMES = 256

MIN_POWER = 1e-10  # -100 dB
MIN_SHARE = 1e-8  # of a frame's power, -80 dB
MEL_RANGE_DB = 80.0  # below the loudest band of the file, as librosa cuts it
AUDIBLE_DB = 60.0  # a frame further below the loudest one of the file counts as silence,
SILENT_DB = -80.0  # and one below this in any file
ROLLOFF_SHARE = 0.85
BASS_HZ, TREBLE_HZ = 150.0, 4000.0


@dataclass(frozen=True, slots=True)
class AudioCurves:
    """Curves of n frames, `FRAME_RATE_HZ` of them a second, frame k centred at k / `FRAME_RATE_HZ`; float32.

    Attributes:
        loudness_db: (n,) power in dB of full scale, >= -100.
        is_audible: (n,) bool.
        peak: (n,) highest magnitude of a sample.
        mel_db: (n, 128) mel spectrogram in dB.
        onset_db: (n,) mean increase of the bands since the frame before, >= 0.
        chroma: (n, 12) magnitude of each pitch class from C.
        percussive: (n,) share of the power that is percussive.
        centroid_hz: (n,) centre of the magnitude spectrum.
        bandwidth_hz: (n,) its deviation.
        rolloff_hz: (n,) below which 85 % of it lie.
        flatness_db: (n,) geometric by arithmetic mean of the power spectrum.
        crossings_hz: (n,) zero crossings per second.
        bass_db: (n,) power below 150 Hz, relative to the frame's.
        treble_db: (n,) power above 4 kHz, relative to the frame's.
    """

    loudness_db: np.ndarray
    is_audible: np.ndarray
    peak: np.ndarray
    mel_db: np.ndarray
    onset_db: np.ndarray
    chroma: np.ndarray
    percussive: np.ndarray
    centroid_hz: np.ndarray
    bandwidth_hz: np.ndarray
    rolloff_hz: np.ndarray
    flatness_db: np.ndarray
    crossings_hz: np.ndarray
    bass_db: np.ndarray
    treble_db: np.ndarray

    def cut(self, start_s: float = 0.0, end_s: float | None = None) -> AudioCurves:
        """The frames whose centres lie in a span, at least one."""
        n = len(self.loudness_db)
        first = min(round(start_s * FRAME_RATE_HZ), n - 1)
        last = n if end_s is None else max(first + 1, round(end_s * FRAME_RATE_HZ))
        return self._take(np.arange(n)[first:last])

    def take_audible(self) -> AudioCurves:
        """The frames that are not silent; all of them where none is heard."""
        return self._take(np.flatnonzero(self.is_audible)) if self.is_audible.any() else self

    def _take(self, frames: np.ndarray) -> AudioCurves:
        return AudioCurves(*(getattr(self, field.name)[frames] for field in fields(self)))


def measure_curves(samples: np.ndarray) -> AudioCurves:
    """Follow a sound frame by frame.

    Args:
        samples: (n,) float32 mono at 22,050 Hz, n >= 1.
    """
    parts = [_measure_block(frames) for frames in _cut_frames(samples)]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    mel = whole.pop("mel")
    mel_db = _to_db(mel)
    mel_db = np.maximum(mel_db, mel_db.max() - MEL_RANGE_DB)
    loudness_db = _to_db(whole.pop("power"))
    curves = {
        "loudness_db": loudness_db,
        "mel_db": mel_db,
        "onset_db": rhythm.measure_onsets(mel_db),
        "percussive": rhythm.measure_percussiveness(mel),
        **whole,
    }
    is_audible = loudness_db > max(SILENT_DB, float(loudness_db.max()) - AUDIBLE_DB)
    return AudioCurves(is_audible=is_audible, **{name: curve.astype(np.float32) for name, curve in curves.items()})


def _cut_frames(samples: np.ndarray) -> Iterator[np.ndarray]:
    """(n_block, 2048) frames with zeros beyond both ends of the sound."""
    padded = np.pad(np.asarray(samples, np.float32), N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP]
    for start in range(0, len(frames), BLOCK_FRAMES):
        yield frames[start : start + BLOCK_FRAMES]


def _measure_block(frames: np.ndarray) -> dict[str, np.ndarray]:
    from scipy import fft

    window = (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)
    power = spectra.take_power(fft.rfft(frames * window)).astype(np.float64)
    is_negative = np.signbit(frames)
    return {
        "power": np.square(frames, dtype=np.float64).mean(axis=1),
        "peak": np.abs(frames).max(axis=1),
        "mel": power @ spectra.build_slaney_filters(SAMPLE_RATE_HZ, N_FFT, N_MELS),
        "chroma": np.sqrt(power) @ harmony.build_chroma_filters(SAMPLE_RATE_HZ, N_FFT),
        "crossings_hz": (is_negative[:, 1:] != is_negative[:, :-1]).mean(axis=1) * SAMPLE_RATE_HZ,
        **_measure_shape(power),
    }


def _measure_shape(power: np.ndarray) -> dict[str, np.ndarray]:
    """Where in the spectrum the power is; 0 Hz for silence."""
    frequency = np.arange(N_FFT // 2 + 1) * (SAMPLE_RATE_HZ / N_FFT)
    magnitude = np.sqrt(power)
    running = np.cumsum(magnitude, axis=1)
    share = magnitude / np.maximum(running[:, -1:], series.TINY)
    centroid = share @ frequency
    variance = share @ frequency**2 - centroid**2
    mean = np.maximum(power.mean(axis=1, keepdims=True), MIN_POWER)
    share_of_power = power / (mean * len(frequency))
    bass, treble = share_of_power[:, frequency < BASS_HZ], share_of_power[:, frequency > TREBLE_HZ]
    return {
        "centroid_hz": centroid,
        "bandwidth_hz": np.sqrt(np.maximum(variance, 0.0)),
        "rolloff_hz": frequency[np.argmax(running >= ROLLOFF_SHARE * running[:, -1:], axis=1)],
        "flatness_db": _to_db(power / mean, MIN_SHARE).mean(axis=1),
        "bass_db": _to_db(bass.sum(axis=1), MIN_SHARE),
        "treble_db": _to_db(treble.sum(axis=1), MIN_SHARE),
    }


def _to_db(power: np.ndarray, floor: float = MIN_POWER) -> np.ndarray:
    return np.asarray(10 * np.log10(np.maximum(power, floor)))


def describe_audio(curves: AudioCurves) -> np.ndarray:
    """The numbers of `AUDIO_DESCRIPTORS` over all frames of some curves; `curves.cut` gives those of a span.

    Timbre and harmony are those of the audible frames.

    Returns:
        (47,) float32, finite for any sound.
    """
    values = {
        **_describe_loudness(curves),
        **rhythm.describe_rhythm(curves.onset_db, FRAME_RATE_HZ),
        **_describe_timbre(curves.take_audible()),
    }
    return np.array([values[descriptor.name] for descriptor in AUDIO_DESCRIPTORS], np.float32)


def _describe_loudness(curves: AudioCurves) -> dict[str, float]:
    loudness = curves.loudness_db.astype(np.float64)
    low, high = np.percentile(loudness, (10, 95))
    power = float(np.mean(10 ** (loudness / 10)))
    return {
        "loudness": float(_to_db(np.array(power))),
        "loudness_deviation": float(loudness.std()),
        "loudness_range": float(high - low),
        "loudness_trend": series.correlate_with_time(loudness),
        "loudness_change": float(np.abs(np.diff(loudness)).mean()) * FRAME_RATE_HZ if len(loudness) > 1 else 0.0,
        "crest": float(_to_db(np.square(curves.peak.max(), dtype=np.float64)) - _to_db(np.array(power))),
        "silence": 1.0 - float(curves.is_audible.mean()),
    }


def _describe_timbre(curves: AudioCurves) -> dict[str, float]:
    from scipy import fft

    cepstrum = fft.dct(curves.mel_db.astype(np.float64), norm="ortho", axis=1)[:, 1 : N_MFCC + 1]
    spread = {
        "brightness": curves.centroid_hz,
        "flatness": curves.flatness_db,
        "zero_crossings": curves.crossings_hz,
        **{f"mfcc_{k}": coefficient for k, coefficient in enumerate(cepstrum.T, start=1)},
    }
    means = {
        **spread,
        "percussiveness": curves.percussive,
        "bandwidth": curves.bandwidth_hz,
        "rolloff": curves.rolloff_hz,
        "bass": curves.bass_db,
        "treble": curves.treble_db,
    }
    return {
        **{name: float(curve.mean(dtype=np.float64)) for name, curve in means.items()},
        **{f"{name}_deviation": float(curve.std(dtype=np.float64)) for name, curve in spread.items()},
        **harmony.describe_harmony(curves.chroma, FRAME_RATE_HZ),
    }
