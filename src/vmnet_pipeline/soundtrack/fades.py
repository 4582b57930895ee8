"""Fades that are equal in power: two that meet sum to constant power."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def rise(n: int, start: int = 0, end: int | None = None) -> np.ndarray:
    """Samples `start` to `end` of a fade-in of length n: (end - start,) float32 in (0, 1)."""
    place = np.arange(start, n if end is None else end)
    rising: np.ndarray = np.sin((place + 0.5) * (math.pi / 2 / max(n, 1))).astype(np.float32)
    return rising


def fade(blocks: Iterable[np.ndarray], n_samples: int, n_in: int, n_out: int) -> Iterator[np.ndarray]:
    """Fade a signal of known length in and out; each fade is cut to half of it."""
    n_in, n_out = min(n_in, n_samples // 2), min(n_out, n_samples // 2)
    place = 0
    for block in blocks:
        end = place + len(block)
        if place < n_in:
            block = block.copy()
            n = min(n_in, end) - place
            block[:n] *= rise(n_in, place, place + n)[:, None]
        if end > n_samples - n_out:
            block = block.copy()
            first = max(place, n_samples - n_out)
            falling = rise(n_out, n_samples - end, n_samples - first)[::-1]
            block[first - place :] *= falling[:, None]
        yield block
        place = end
