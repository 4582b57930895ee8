"""Onsets, tempo, beats, and how much of a sound is percussive."""

from __future__ import annotations

import numpy as np

from vmnet_pipeline.backends.descriptors import series

MIN_ONSET_DB = 0.5  # a peak of the onset strength that rises less above its surroundings is none,
MIN_ONSET_DEVIATIONS = 0.5  # nor one below this many standard deviations of the curve
MIN_INTERVAL_S = 0.06  # onsets closer together are one
TIGHTNESS = 100.0  # how much a beat's place counts against its strength, as in librosa
MEDIAN_FRAMES, MEDIAN_BANDS = 17, 17


def measure_onsets(mel_db: np.ndarray) -> np.ndarray:
    """(n,) mean increase of (n, n_mels) bands in dB since the frame before, falls not counted; 0 for the first frame.

    Source: S. Boeck, G. Widmer, Maximum filter vibrato suppression for onset detection (2013), without the filter;
    the default of `librosa.onset.onset_strength`.
    """
    rise = np.maximum(np.diff(mel_db, axis=0, prepend=mel_db[:1]), 0.0)
    return np.asarray(rise.mean(axis=1))


def measure_percussiveness(mel: np.ndarray) -> np.ndarray:
    """(n,) share, 0 to 1, of the power of (n, n_mels) bands that belongs to brief and wide sounds; 0 for silence.

    A tone stays through a median over time, a drum through one over bands. On bands, as whole spectra take ten times
    as long.

    Source: D. Fitzgerald, Harmonic/percussive separation using median filtering (DAFx 2010).
    """
    from scipy import ndimage

    magnitude = np.sqrt(mel).astype(np.float32)
    tonal, brief = (
        np.square(ndimage.median_filter(magnitude, size), dtype=np.float64)
        for size in ((MEDIAN_FRAMES, 1), (1, MEDIAN_BANDS))
    )
    share = brief / np.maximum(tonal + brief, series.TINY)
    return np.asarray((share * mel).sum(axis=1) / np.maximum(mel.sum(axis=1), series.TINY))


def find_onsets(onset_db: np.ndarray, rate_hz: float) -> np.ndarray:
    """(k,) frames of the peaks of the onset strength, rising."""
    from scipy import signal

    rise, distance = max(MIN_ONSET_DB, MIN_ONSET_DEVIATIONS * onset_db.std()), max(1, round(MIN_INTERVAL_S * rate_hz))
    return np.asarray(signal.find_peaks(onset_db, prominence=rise, distance=distance)[0])


def track_beats(onset_db: np.ndarray, period: float) -> np.ndarray:
    """Frames of the beats: the sequence whose onsets are strong and whose intervals are close to a period.

    Args:
        onset_db: (n,) onset strength.
        period: Frames from beat to beat.

    Returns:
        (k,) int, rising; empty where nothing varies or n is shorter than a period.

    Source: D. Ellis, Beat tracking by dynamic programming, Journal of New Music Research 36 (2007).
    """
    from scipy import ndimage

    deviation = float(onset_db.std())
    if deviation <= series.TINY or len(onset_db) <= period:
        return np.empty(0, np.int64)
    local = ndimage.gaussian_filter1d(onset_db.astype(np.float64) / deviation, period / 32, mode="constant")
    gaps = np.arange(max(1, round(period / 2)), round(2 * period) + 1)
    cost = TIGHTNESS * np.log(gaps / period) ** 2
    score, before = local.copy(), np.full(len(local), -1)
    for frame in range(int(gaps[0]), len(local)):
        n = int(np.searchsorted(gaps, frame, side="right"))
        candidates = score[frame - gaps[:n]] - cost[:n]
        best = int(candidates.argmax())
        if candidates[best] > 0:
            score[frame] += candidates[best]
            before[frame] = frame - gaps[best]
    tail = max(0, len(score) - int(gaps[-1]))  # the last beat lies in the last two periods
    beats = [tail + int(score[tail:].argmax())]
    while before[beats[-1]] >= 0:
        beats.append(int(before[beats[-1]]))
    return np.array(beats[::-1])


def describe_rhythm(onset_db: np.ndarray, rate_hz: float) -> dict[str, float]:
    """Onsets, tempo and beats of (n,) onset strength, n >= 1."""
    onset_db = onset_db.astype(np.float64)
    onsets = find_onsets(onset_db, rate_hz)
    tempo_bpm, strength = series.find_pulse(onset_db, rate_hz)
    beats = track_beats(onset_db, 60 * rate_hz / tempo_bpm) if strength else np.empty(0, np.int64)
    mean = float(onset_db.mean())
    return {
        "onset_strength": mean,
        "onset_strength_deviation": float(onset_db.std()),
        "onset_peak": float(np.percentile(onset_db, 95)),
        "onset_rate": len(onsets) * rate_hz / len(onset_db),
        "onset_irregularity": series.measure_irregularity(np.diff(onsets)),
        "tempo": tempo_bpm,
        "tempo_strength": strength,
        "beat_strength": float(onset_db[beats].mean()) / mean if len(beats) and mean > series.TINY else 1.0,
        "beat_irregularity": series.measure_irregularity(np.diff(beats)),
    }
