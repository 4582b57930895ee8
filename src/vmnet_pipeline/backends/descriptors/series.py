"""Statistics of curves over time that are defined for every curve, also a constant one or one of a single value."""

from __future__ import annotations

import numpy as np

TINY = 1e-12


def correlate_with_time(values: np.ndarray) -> float:
    """Pearson correlation of a curve with time, -1 falling to 1 rising; 0 for a constant one."""
    x, y = np.arange(len(values)) - (len(values) - 1) / 2, values - values.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > TINY else 0.0


def measure_irregularity(intervals: np.ndarray) -> float:
    """Coefficient of variation of intervals, 0 for equal ones or fewer than two."""
    return float(intervals.std() / intervals.mean()) if len(intervals) > 1 else 0.0


def measure_entropy(counts: np.ndarray) -> float:
    """Entropy of a histogram in bit; 0 for an empty one."""
    share = counts[counts > 0] / max(float(counts.sum()), TINY)
    return float(-(share * np.log2(share)).sum()) + 0.0


def find_pulse(curve: np.ndarray, rate_hz: float) -> tuple[float, float]:
    """Find the period at which a curve repeats.

    The autocorrelation is weighted by a log-normal prior of one octave around 120 BPM; without it half and double
    tempo are a matter of chance.

    Args:
        curve: (n,) values.
        rate_hz: Values per second.

    Returns:
        The tempo in BPM, in [MIN_BPM, MAX_BPM], and the normalised autocorrelation there, in [0, 1]. A curve that is
        constant or shorter than two beats has the prior's 120 BPM with strength 0.

    Source: D. Ellis, Beat tracking by dynamic programming, Journal of New Music Research 36 (2007).
    """
    first = max(1, int(np.ceil(60 * rate_hz / MAX_BPM)))
    last = min(int(60 * rate_hz / MIN_BPM), len(curve) // 2)
    agreement = autocorrelate(curve, last + 2)
    if last <= first or not agreement[0]:
        return CENTRE_BPM, 0.0
    lags = np.arange(first, last + 1)
    prior = np.exp(-0.5 * np.log2(60 * rate_hz / lags / CENTRE_BPM) ** 2)
    best = int(lags[np.argmax(np.maximum(agreement[lags], 0.0) * prior)])
    strength = float(np.clip(agreement[best], 0.0, 1.0))
    if strength == 0.0:
        return CENTRE_BPM, 0.0
    return float(np.clip(60 * rate_hz / _refine(agreement, best), MIN_BPM, MAX_BPM)), strength


MIN_BPM, CENTRE_BPM, MAX_BPM = 30.0, 120.0, 240.0


def autocorrelate(curve: np.ndarray, n_lags: int) -> np.ndarray:
    """(n_lags,) correlation of a curve, its mean taken out, with itself, 1 at lag 0; zeros for a constant one.

    Each lag is the mean over the values that overlap.
    """
    from scipy import signal

    centred = np.asarray(curve - curve.mean(), np.float64)
    power = float(centred @ centred) / len(curve)
    found = np.zeros(max(n_lags, 1))
    if power <= TINY:
        return found
    n = min(len(found), len(curve))
    sums = signal.correlate(centred, centred, "full", "fft")[len(curve) - 1 :][:n]
    found[:n] = sums / (len(curve) - np.arange(n)) / power
    return found


def _refine(values: np.ndarray, peak: int) -> float:
    """Where the parabola through a peak and its neighbours is highest."""
    before, middle, after = values[peak - 1 : peak + 2]
    bend = before - 2 * middle + after
    return peak + (float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0)
