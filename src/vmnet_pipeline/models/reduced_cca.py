"""Canonical correlation analysis (CCA) for few pairs: an average over ranks and ridges, in which nothing is chosen.

With some dozen pairs, the rank and the ridge that rank held-out pairs best are mostly luck, and the average of many is
as good as the best of them. So the score of two items is the mean cosine of their first 2, 4, 8 and 16 variates, under
ridges between CCA and partial least squares (which is CCA with an infinite ridge). Where a side joins several backends,
the mean is over every backend of one side with every one of the other: a wide backend cannot drown a narrow one.
The directions are in the span of the pairs, so the cost grows with their number, not with the width of the features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.models.cca import decompose

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vmnet_pipeline.types import Array

RIDGES = (1.0, 10.0, 100.0)  # in units of the mean variance of a side
RANKS = (2, 4, 8, 16)
MIN_SHARE = 1e-10  # of the largest variance, or correlation: what is below is rounding


def list_ranks(n_music: int, n_video: int) -> list[int]:
    """Sizes of the blocks of variates in order, where the sides join so many backends."""
    return [rank for _ in range(n_music * n_video) for _ in RIDGES for rank in RANKS]


def fit_reduced(
    music: Array, video: Array, music_widths: Sequence[int], video_widths: Sequence[int]
) -> tuple[Array, Array]:
    """Fit the projections of both sides.

    Args:
        music: (n, Dm) float64, n >= 2.
        video: (n, Dv) float64.
        music_widths: Entries of each backend; their sum is Dm.
        video_widths: The same of video.

    Returns:
        (Dm, E) and (Dv, E) float64, E the sum of `list_ranks`: centred inputs to variates. Directions that the pairs do
        not determine are 0.
    """
    sides = [
        [_decompose(side[:, columns], columns) for columns in _cut(widths)]
        for side, widths in ((music, music_widths), (video, video_widths))
    ]
    blocks = [block for x in sides[0] for y in sides[1] for block in _solve(x, y)]
    return (
        np.concatenate([_place(parts[0], x.columns, music.shape[1]) for parts, x, _ in blocks], axis=1),
        np.concatenate([_place(parts[1], y.columns, video.shape[1]) for parts, _, y in blocks], axis=1),
    )


@dataclass(frozen=True)
class _Basis:
    """Principal axes of one backend's entries: x = mean + coordinates * sqrt(variances) @ axes.T.

    Attributes:
        columns: Where these entries are.
        axes: (D, r).
        coordinates: (n, r), orthonormal columns.
        variances: (r,).
    """

    columns: slice
    axes: Array
    coordinates: Array
    variances: Array


def _cut(widths: Sequence[int]) -> Iterator[slice]:
    stops = np.cumsum(widths).tolist()
    return (slice(stop - width, stop) for stop, width in zip(stops, widths, strict=True))


def _decompose(x: Array, columns: slice) -> _Basis:
    left, values, right = decompose((x - x.mean(axis=0)) / np.sqrt(len(x)))
    kept = values**2 > MIN_SHARE * (values**2).max(initial=0.0)
    return _Basis(columns, right[kept].T, left[:, kept], values[kept] ** 2)


def _solve(x: _Basis, y: _Basis) -> Iterator[tuple[tuple[Array, Array], _Basis, _Basis]]:
    """Both sides' directions for every ridge and rank."""
    cross = x.coordinates.T @ y.coordinates
    for ridge in RIDGES:
        x_scale, y_scale = (1.0 / np.sqrt(part.variances + ridge * _mean_variance(part)) for part in (x, y))
        whitened = (x_scale * np.sqrt(x.variances))[:, None] * cross * (y_scale * np.sqrt(y.variances))
        left, values, right = decompose(whitened)
        n = int((values > MIN_SHARE * values.max(initial=0.0)).sum())
        first, second = x.axes @ (x_scale[:, None] * left[:, :n]), y.axes @ (y_scale[:, None] * right[:n].T)
        for rank in RANKS:
            yield (_take(first, rank), _take(second, rank)), x, y


def _mean_variance(part: _Basis) -> float:
    return float(part.variances.sum()) / len(part.axes)


def _take(directions: Array, rank: int) -> Array:
    """The first directions; 0 for those that there are not."""
    return np.pad(directions[:, :rank], ((0, 0), (0, max(0, rank - directions.shape[1]))))


def _place(directions: Array, columns: slice, width: int) -> Array:
    whole = np.zeros((width, directions.shape[1]))
    whole[columns] = directions
    return whole
