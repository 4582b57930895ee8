"""Cut a signal that comes in blocks into overlapping windows; only one window is held."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_Item = TypeVar("_Item")

BATCH_STEPS = 32
"""Steps of a network that are passed on together."""


def cut_windows(blocks: Iterable[np.ndarray], window: int, hop: int, *, min_rest: int = 1) -> Iterator[np.ndarray]:
    """Windows of `window` samples, one every `hop`.

    Args:
        blocks: (n, ...) each.
        window: Length of a window.
        hop: Distance of their starts.
        min_rest: The last window may be shorter, if it has at least so many samples that no window before had, or is
            the first one.

    Yields:
        (window, ...), the last one shorter; none of an empty signal.
    """
    held: list[np.ndarray] = []
    n_held, n_old = 0, 0  # n_old: samples at the beginning of what is held that a window had already
    for block in blocks:
        held.append(block)
        n_held += len(block)
        if n_held < window:
            continue
        signal = np.concatenate(held)
        while len(signal) >= window:
            yield signal[:window]
            n_old = max(0, window - hop)
            signal = signal[hop:]
        held, n_held = [signal.copy()], len(signal)
    rest = np.concatenate(held) if held else np.empty(0, np.float32)
    if len(rest) - n_old >= min_rest and len(rest):
        yield rest


def fill_last(windows: Iterable[np.ndarray], window: int, hop: int) -> Iterator[np.ndarray]:
    """The same windows, the last one moved back so that it is as long as the others, unless it is the only one."""
    before: np.ndarray | None = None
    for samples in windows:
        if len(samples) < window and before is not None:
            samples = np.concatenate([before[:hop], samples])[-window:]
        yield samples
        before = samples.copy()


def count_pieces(duration_s: float, window_s: float, hop_s: float) -> int:
    """How many pieces a file of a length has: one every hop, until one reaches the end."""
    return max(1, int(np.ceil((duration_s - window_s) / hop_s - 1e-6)) + 1)


def batch_items(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Lists of `size` items, the last one shorter; `itertools.batched` came with Python 3.12."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
