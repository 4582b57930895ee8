"""Cut a signal into windows of one length, so that none of it is lost."""

from __future__ import annotations

import numpy as np


def list_starts(n: int, window: int, hop: int) -> list[int]:
    """Starts of windows every `hop` samples or frames; the last one ends where the signal does, whatever the overlap.

    Example:
        >>> list_starts(10, 4, 4), list_starts(8, 4, 2), list_starts(3, 4, 4)
        ([0, 4, 6], [0, 2, 4], [0])
    """
    starts = list(range(0, max(n - window, 0) + 1, max(hop, 1)))
    return starts if starts[-1] + window >= n else [*starts, n - window]


def cut_audio(samples: np.ndarray, window: int, hop: int) -> list[np.ndarray]:
    """Windows of audio, each (window,) float32; audio that fills none is repeated."""
    if len(samples) < window:
        return [np.resize(samples, window)]
    return [samples[start : start + window] for start in list_starts(len(samples), window, hop)]


def cut_frames(frames: np.ndarray, window: int, hop: int) -> np.ndarray:
    """Clips of frames, (n, ...) to (m, window, ...); the last frame is repeated where there are too few."""
    if len(frames) < window:
        frames = np.concatenate([frames, np.repeat(frames[-1:], window - len(frames), axis=0)])
    return np.stack([frames[start : start + window] for start in list_starts(len(frames), window, hop)])
