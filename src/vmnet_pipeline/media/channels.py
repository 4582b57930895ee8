"""Mix the channels of decoded audio to one: their mean, unless they cancel one another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

CANCELLED_SHARE = 0.25
"""Channels cancel when their mean has less power than this share of that of uncorrelated channels.

For two channels of equal power that is a correlation below -0.75.
"""

# Integer formats: offset of silence and full scale. Float formats are taken as they are.
_INTEGER_SCALES = {"u8": (128.0, 2.0**7), "s16": (0.0, 2.0**15), "s32": (0.0, 2.0**31), "s64": (0.0, 2.0**63)}
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
# From 8 planes on, PyAV (18.1) reads beyond FFmpeg's list of planes.
_MAX_PLANES = 7


class Mixer:
    """Mixes the frames of a stream to one channel, and measures how much the mean cancels.

    Args:
        window_s: Measure only this many seconds from the beginning; None: everything.
        channel: Use this channel, or the last of a frame with fewer; None: the mean of all.
    """

    n_channels = 1

    def __init__(self, window_s: float | None = None, channel: int | None = None) -> None:
        self._window_s, self._channel = window_s, channel
        self._powers: list[float] = []
        self._mean_power = self._unrelated_power = 0.0

    def mix(self, frame: AudioFrame, start_s: float = 0.0) -> np.ndarray:
        """Mix a frame that begins at `start_s`: (n,) float32, integer formats scaled to [-1, 1)."""
        channels = _view_channels(frame)
        offset, full_scale = _INTEGER_SCALES.get(frame.format.packed.name, (0.0, 1.0))
        if self._channel is not None:
            return _average([channels[min(self._channel, len(channels) - 1)]], offset, full_scale)
        mixed = _average(channels, offset, full_scale)
        if len(channels) > 1:
            n_left = math.inf if self._window_s is None else (self._window_s - start_s) * frame.sample_rate
            n = max(0, round(min(n_left, frame.samples)))
            powers = [_measure_power(channel[:n], offset, full_scale) for channel in channels]
            self._count(powers, _measure_power(mixed[:n]))
        return mixed

    @staticmethod
    def make_silence(n: int) -> np.ndarray:
        """(n,) float32 zeros."""
        return np.zeros(n, np.float32)

    def _count(self, powers: list[float], mean_power: float) -> None:
        self._mean_power += mean_power
        self._unrelated_power += sum(powers) / len(powers) ** 2
        self._powers += [0.0] * (len(powers) - len(self._powers))
        for k, power in enumerate(powers):
            self._powers[k] += power

    @property
    def cancels(self) -> bool:
        """Whether the channels cancel each other in their mean."""
        return self._mean_power < CANCELLED_SHARE * self._unrelated_power

    @property
    def loudest(self) -> int:
        """The channel with the most power, the first of equal ones."""
        return self._powers.index(max(self._powers))

    def describe(self) -> str:
        """Describe channels that cancel."""
        share = self._mean_power / self._unrelated_power
        return (
            f"its {len(self._powers)} channels are of opposite phase: their mean would keep {share:.0%} of the power "
            f"of uncorrelated ones; channel {self.loudest + 1}, the loudest, is used instead"
        )


class Stereo:
    """Makes two channels of any layout: one is doubled, more than two are mixed down as FFmpeg does."""

    n_channels = 2

    def __init__(self) -> None:
        self._downmix: Any = None
        self._layout = ""

    def mix(self, frame: AudioFrame, start_s: float = 0.0) -> np.ndarray:
        """Mix a frame: (n, 2) float32, integer formats scaled to [-1, 1); `start_s` is ignored."""
        if frame.layout.nb_channels > 2 and (mixed := self._mix_down(frame)) is not None:
            return mixed
        channels = _view_channels(frame)
        offset, full_scale = _INTEGER_SCALES.get(frame.format.packed.name, (0.0, 1.0))
        if len(channels) > 2:  # a layout without names
            channels = [_average(channels, offset, full_scale)]
            offset, full_scale = 0.0, 1.0
        both = [_average([channel], offset, full_scale) for channel in channels]
        return np.stack([both[0], both[-1]], axis=1)

    def _mix_down(self, frame: AudioFrame) -> np.ndarray | None:
        import av

        layout = f"{frame.layout.name} {frame.format.name} {frame.sample_rate}"
        try:
            if layout != self._layout:
                self._downmix = av.AudioResampler(format="flt", layout="stereo", rate=frame.sample_rate)
                self._layout = layout
            frame.pts = None
            blocks = [mixed.to_ndarray().reshape(-1, 2) for mixed in self._downmix.resample(frame)]
        except (av.error.FFmpegError, ValueError):
            return None
        return np.concatenate([self.make_silence(0), *blocks])

    @staticmethod
    def make_silence(n: int) -> np.ndarray:
        """(n, 2) float32 zeros."""
        return np.zeros((n, 2), np.float32)


def _average(channels: list[np.ndarray], offset: float, full_scale: float) -> np.ndarray:
    mixed: np.ndarray = channels[0].astype(np.float32)
    for channel in channels[1:]:
        mixed += channel
    if offset:
        mixed -= np.float32(offset * len(channels))
    mixed *= np.float32(1.0 / (full_scale * len(channels)))
    return mixed


def _measure_power(channel: np.ndarray, offset: float = 0.0, full_scale: float = 1.0) -> float:
    samples: np.ndarray = channel.astype(np.float64 if channel.itemsize == 8 else np.float32, copy=False)
    if offset:
        samples = np.subtract(samples, offset)
    return float(np.dot(samples, samples)) / full_scale**2


def _view_channels(frame: AudioFrame) -> list[np.ndarray]:
    """One (n,) view of the decoder's memory per channel, in the native sample format."""
    dtype = np.dtype(_DTYPES[frame.format.packed.name])
    n_channels = frame.layout.nb_channels
    if frame.format.is_planar and n_channels <= _MAX_PLANES:
        planes: list[Any] = list(frame.planes)
        return [np.frombuffer(plane, dtype, count=frame.samples) for plane in planes[:n_channels]]
    packed: Any = _pack_frame(frame).planes[0] if frame.format.is_planar else frame.planes[0]
    samples = np.frombuffer(packed, dtype, count=frame.samples * n_channels)
    return [samples[k::n_channels] for k in range(n_channels)]


def _pack_frame(frame: AudioFrame) -> AudioFrame:
    """The same samples, channels interleaved in one plane."""
    import av

    repacker = av.AudioResampler(format=frame.format.packed.name, layout=frame.layout, rate=frame.sample_rate)
    packed: list[AudioFrame] = repacker.resample(frame)
    return packed[0]
