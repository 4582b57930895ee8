"""Project embeddings onto a plane for the map of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


def project_sides(sides: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Project (n_i, E) float32 arrays, n_i >= 0, onto their first two principal axes, each side about its own mean.

    Music and video form two separate clouds; about their means, items that match are close.

    Returns:
        (n_i, 2) float64 each, from -1 to 1: the mean of positions and ranks, so that outliers do not compress the rest.
    """
    import numpy as np

    centred = [rows - rows.mean(axis=0) if len(rows) else rows for rows in sides]
    both = np.concatenate(centred).astype(np.float64)
    if len(both) < 2:
        return [np.zeros((len(rows), 2)) for rows in sides]
    _, directions = np.linalg.eigh(both.T @ both)
    axes = directions[:, ::-1][:, :2]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)  # the same sign on every machine
    plane = both @ axes
    ranks = plane.argsort(axis=0).argsort(axis=0) / (len(plane) - 1)
    spread = (plane - plane.min(axis=0)) / np.maximum(np.ptp(plane, axis=0), 1e-12)
    return np.split(spread + ranks - 1.0, np.cumsum([len(rows) for rows in sides])[:-1])
