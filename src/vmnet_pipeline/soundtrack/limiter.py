"""Amplify a signal and keep its true peak under a ceiling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.soundtrack.loudness import Oversampler, to_gain
from vmnet_pipeline.soundtrack.signals import RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Half of the time over which a single peak turns the level down and up again.
_REACH = RATE_HZ // 40


def limit(blocks: Iterable[np.ndarray], gain_db: float, ceiling_dbtp: float) -> Iterator[np.ndarray]:
    """Amplify a signal; around peaks that would exceed the ceiling it is turned down smoothly, before and after them.

    The wanted reduction is spread by a sliding minimum, then smoothed over the same width, so it is reached at the
    peak itself. The result has as many samples as the signal, in blocks of other lengths.
    """
    limiter = _Limiter(to_gain(gain_db), to_gain(ceiling_dbtp))
    for block in blocks:
        yield from limiter.add(block)
    yield from limiter.add(np.zeros((2 * _REACH + Oversampler.delay, 2), np.float32))


class _Limiter:
    """Holds back what later peaks may still turn down."""

    def __init__(self, gain: float, ceiling: float) -> None:
        self._gain, self._ceiling, self._oversampler = gain, ceiling, Oversampler()
        self._samples = np.empty((0, 2), np.float32)  # not yet given out
        self._wanted = np.ones(2 * _REACH - Oversampler.delay)  # gains, from 2 * _REACH before those samples on
        window = np.hanning(2 * _REACH + 3)[1:-1]
        self._window = window / window.sum()

    def add(self, block: np.ndarray) -> Iterator[np.ndarray]:
        loud = block * np.float32(self._gain)
        peaks = self._oversampler.add(loud, self._ceiling)
        wanted = np.minimum(1.0, self._ceiling / np.maximum(peaks, self._ceiling))
        self._wanted = np.concatenate([self._wanted, wanted])
        self._samples = np.concatenate([self._samples, loud])
        n = len(self._wanted) - 4 * _REACH
        if n <= 0:
            return
        yield (self._samples[:n] * self._smooth()[:, None]).astype(np.float32)
        self._samples, self._wanted = self._samples[n:], self._wanted[n:]

    def _smooth(self) -> np.ndarray:
        from scipy.ndimage import minimum_filter1d
        from scipy.signal import oaconvolve

        if self._wanted.min() == 1.0:
            return np.ones(len(self._wanted) - 4 * _REACH)
        lowest = minimum_filter1d(self._wanted, 2 * _REACH + 1)[_REACH:-_REACH]
        smooth: np.ndarray = np.clip(oaconvolve(lowest, self._window, "valid"), 0.0, 1.0)
        return smooth
