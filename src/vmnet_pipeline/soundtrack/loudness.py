"""Loudness and true peak of a signal that comes in blocks (ITU-R BS.1770-5).

Only sums over tenths of a second are kept, so a signal of hours costs no memory.
"""

from __future__ import annotations

import math
from array import array

import numpy as np

from vmnet_pipeline.soundtrack.signals import RATE_HZ

SILENCE_LUFS = -70.0
"""The absolute gate: what is quieter counts as silence."""

_STEP = RATE_HZ // 10
_STEPS_PER_BLOCK = 4
_OFFSET_LU = -0.691
_RELATIVE_GATE_LU = -10.0
OVERSAMPLING = 4
_REACH = 12  # samples on each side that an oversampled one is made of
_FLOOR_DB = -120.0


class LoudnessMeter:
    """Integrated loudness of two channels, gated twice; the filters are those of pyloudnorm."""

    def __init__(self) -> None:
        from pyloudnorm.iirfilter import IIRfilter

        stages = (
            IIRfilter(3.99984385397, 0.7071752369554193, 1681.9744509555319, RATE_HZ, "high_shelf_DeMan"),
            IIRfilter(0.0, 0.5003270373253953, 38.13547087613982, RATE_HZ, "high_pass_DeMan"),
        )
        self._sections = np.array([[*stage.b, *stage.a] for stage in stages])
        self._state = np.zeros((len(stages), 2, 2))
        self._powers = array("d")  # of each tenth of a second, both channels summed
        self._rest = np.empty((0, 2))

    def add(self, block: np.ndarray) -> None:
        """Measure further samples: (n, 2) float."""
        from scipy.signal import sosfilt

        weighted, self._state = sosfilt(self._sections, block, axis=0, zi=self._state)
        weighted = np.concatenate([self._rest, weighted])
        n_steps = len(weighted) // _STEP
        whole = weighted[: n_steps * _STEP].reshape(n_steps, 2 * _STEP)
        self._powers.extend(np.einsum("ij,ij->i", whole, whole) / _STEP)
        self._rest = weighted[n_steps * _STEP :]

    def measure(self) -> float:
        """Loudness so far in LUFS; `SILENCE_LUFS` or less for silence. What is shorter than 0.4 s is not gated."""
        steps = np.array(self._powers)
        if len(steps) < _STEPS_PER_BLOCK:
            total = steps.sum() * _STEP + np.square(self._rest).sum()
            return _to_lufs(total / max(1, len(steps) * _STEP + len(self._rest)))
        blocks = np.convolve(steps, np.full(_STEPS_PER_BLOCK, 1 / _STEPS_PER_BLOCK), "valid")
        loud = blocks[blocks > _to_power(SILENCE_LUFS)]
        if not len(loud):
            return _to_lufs(float(blocks.max()))
        gate = 10 ** (_RELATIVE_GATE_LU / 10) * loud.mean()
        return _to_lufs(float(loud[loud > gate].mean()))


def _to_lufs(power: float) -> float:
    return max(_FLOOR_DB, _OFFSET_LU + 10 * math.log10(power)) if power > 0 else _FLOOR_DB


def _to_power(lufs: float) -> float:
    return float(10 ** ((lufs - _OFFSET_LU) / 10))


def to_gain(decibels: float) -> float:
    """The factor of an amplitude."""
    return float(10 ** (decibels / 20))


def to_decibels(peak: float) -> float:
    """Level of an amplitude in dB of full scale, at least -120."""
    return max(_FLOOR_DB, 20 * math.log10(peak)) if peak > 0 else _FLOOR_DB


class Oversampler:
    """Highest magnitude of four times as many samples, for each sample; they come `delay` samples late."""

    delay = _REACH

    def __init__(self) -> None:
        from scipy.signal import firwin

        taps = OVERSAMPLING * firwin(2 * _REACH * OVERSAMPLING + 1, 0.97 / OVERSAMPLING, window=("kaiser", 7.0))
        self._taps = taps.astype(np.float32)
        # no oversampled value exceeds the largest sample by more than this factor
        self._most = max(float(np.abs(taps[phase::OVERSAMPLING]).sum()) for phase in range(OVERSAMPLING))
        self._before = np.zeros((2 * _REACH, 2), np.float32)

    def add(self, block: np.ndarray, floor: float) -> np.ndarray:
        """Peaks of both channels together: (n,) float32; the first `delay` are of silence before the signal.

        Where none can exceed `floor`, those of the samples themselves are given.
        """
        from scipy.signal import upfirdn

        signal = np.concatenate([self._before, block.astype(np.float32, copy=False)])
        self._before = signal[len(signal) - 2 * _REACH :]
        levels = np.maximum(np.abs(signal[:, 0]), np.abs(signal[:, 1]))
        own: np.ndarray = levels[_REACH : _REACH + len(block)]
        if levels.max() * self._most <= floor:
            return own
        start = len(self._taps) - 1
        for channel in (0, 1):
            fine = np.abs(upfirdn(self._taps, signal[:, channel], up=OVERSAMPLING)[start:])
            for phase in range(OVERSAMPLING):
                own = np.maximum(own, fine[phase::OVERSAMPLING][: len(block)])
        return own


class PeakMeter:
    """True peak of two channels."""

    def __init__(self) -> None:
        self._oversampler, self._peak = Oversampler(), 0.0

    def add(self, block: np.ndarray) -> None:
        """Measure further samples: (n, 2) float."""
        if len(block):
            self._peak = max(self._peak, float(self._oversampler.add(block, self._peak).max()))

    def measure(self) -> float:
        """True peak in dBTP, at least -120."""
        self.add(np.zeros((Oversampler.delay, 2)))
        return to_decibels(self._peak)
