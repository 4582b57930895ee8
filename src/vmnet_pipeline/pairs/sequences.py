"""Sequences of steps on disk and in memory: features over time, for towers that read every step.

Two files: NAME.npy, (total, D) float32, the steps of all items one after the other, and NAME_offsets.npy, (n + 1,)
int64, where each item begins. Nothing but one item at a time is in memory while they are written.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.storage.arrays import ArrayWriter, map_array, read_array
from vmnet_pipeline.types import Sequences

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np


def take_steps(feature: np.ndarray, max_steps: int) -> np.ndarray:
    """Turn a stored feature into steps: (T, D) as it is, (T, C, time, mel) averaged over the last two axes.

    A longer sequence is thinned to `max_steps` at even distances.

    Returns:
        (T, D) float32, 1 <= T <= max_steps.

    Raises:
        PairsError: The feature has no time, e.g. because it was stored pooled.
    """
    import numpy as np

    from vmnet_pipeline.backends.vggish import average_patches

    if feature.ndim not in (2, 4) or 0 in feature.shape:
        raise PairsError(
            f"feature of shape {feature.shape} is neither (T, D) nor (T, C, time, mel), as a tower over sequences "
            "needs. Take features that are not pooled, or another tower (train.model.music_tower, video_tower)."
        )
    n_steps = len(feature)
    if n_steps > max_steps:
        # The middle of each of max_steps equal parts: rounding never picks a step twice.
        feature = feature[((np.arange(max_steps) + 0.5) * n_steps / max_steps).astype(np.int64)]
    steps = feature if feature.ndim == 2 else average_patches(feature)
    return np.asarray(steps, np.float32)


def stack_sequences(features: Sequence[np.ndarray], max_steps: int) -> Sequences:
    """Make sequences in memory from one feature per item, at least one, all of one width D.

    Raises:
        PairsError: A feature has no time.
    """
    import numpy as np

    items = [take_steps(feature, max_steps) for feature in features]
    return Sequences(np.concatenate(items), _sum_lengths([len(item) for item in items]), max_steps)


class SequenceWriter:
    """Write NAME.npy item by item, and NAME_offsets.npy at the end, when the number of steps is known."""

    def __init__(self, path: Path, width: int) -> None:
        self._path = path
        self._lengths: list[int] = []
        self._writer = ArrayWriter(path, (width,))

    def add(self, steps: np.ndarray) -> None:
        """Append the (T, D) float32 steps of the next item."""
        self._writer.add(steps)
        self._lengths.append(len(steps))

    def close(self) -> None:
        """Complete both files."""
        import numpy as np

        self._writer.close()
        content = io.BytesIO()  # np.save into a file hides why it cannot be written
        np.save(content, _sum_lengths(self._lengths))
        offsets_path(self._path).write_bytes(content.getvalue())


def read_sequences(path: Path, max_steps: int) -> Sequences:
    """Open what `SequenceWriter` wrote; the values stay on disk until they are used.

    Raises:
        OSError: A file is missing.
        ValueError: A file is damaged, or they do not belong together.
    """
    import numpy as np

    values, offsets = map_array(path), read_array(offsets_path(path))
    if offsets.dtype != np.int64 or offsets.ndim != 1:
        raise ValueError(f"{offsets_path(path).name} holds no offsets")
    lengths = np.diff(offsets)
    if (
        values.ndim != 2
        or offsets[:1].tolist() != [0]
        or offsets[-1] != len(values)
        or lengths.min(initial=max_steps) < 1
        or lengths.max(initial=0) > max_steps
    ):
        raise ValueError(f"{path.name} and {offsets_path(path).name} do not belong together")
    return Sequences(values, offsets, max_steps)


def offsets_path(path: Path) -> Path:
    """File of the offsets that belong to a file of values."""
    return path.with_name(f"{path.stem}_offsets.npy")


def _sum_lengths(lengths: Sequence[int]) -> np.ndarray:
    import numpy as np

    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(lengths, np.int64))])
