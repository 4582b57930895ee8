"""Hubs: items that are returned for far too many queries, and a correction of scores against them.

Source: M. Radovanovic, A. Nanopoulos, M. Ivanovic, Hubs in space, JMLR 11 (2010); A. Conneau et al., Word translation
without parallel data, arXiv:1710.04087, section 2.3 (CSLS).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.evaluation.positives import check_both
from vmnet_pipeline.evaluation.ranks import score_nearest

if TYPE_CHECKING:
    from vmnet_pipeline.types import Array

HUB_K = 10


def measure_hubness(counts: Array) -> dict[str, float]:
    """Summarise how often each gallery item is among the K best of a query.

    Args:
        counts: (Ng,) integers.

    Returns:
        `skewness` (0 without hubs), `max`, and the `unreached` share, 0-1.
    """
    deviation = counts.std()
    skewness = float((((counts - counts.mean()) / deviation) ** 3).mean()) if deviation > 0 else 0.0
    return {"skewness": skewness, "max": float(counts.max()), "unreached": float((counts == 0).mean())}


def centre_both(music: Array, video: Array) -> tuple[Array, Array]:
    """Take the mean of each side out of its rows, which are then of unit length again.

    What all rows of a side have in common says nothing about their partners, and makes hubs of the items that have most
    of it. As the means are those of the set itself, every rank depends on all of it.

    Args:
        music: (Nx, D) floating point.
        video: (Ny, D).

    Returns:
        Both as float32; a row that is the mean itself stays zero.
    """
    sides = (
        np.asarray(side, np.float32) - side.mean(axis=0, keepdims=True, dtype=np.float32) for side in (music, video)
    )
    first, second = (side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12) for side in sides)
    return first, second


def correct_both(music: Array, video: Array, *, k: int = 10, chunk_size: int = 1024) -> tuple[Array, Array]:
    """Append two coordinates so that dot products are CSLS scores, in both directions.

    [2 x_i, r_i, -1] . [y_j, -1, r_j] = 2 s_ij - r_i - r_j, with r the mean of an item's K highest scores on the other
    side: one set of vectors for both directions. As the neighbourhoods are those of the set itself, every rank depends
    on all of it: a metric of the whole set, not of a single query.

    Args:
        music: (Nx, D) floating point.
        video: (Ny, D).
        k: K, cut to the size of the other side; at least 1.
        chunk_size: Items scored together.

    Returns:
        (Nx, D + 2) and (Ny, D + 2) float32; not of unit length.

    Raises:
        PairsError: Widths differ, or K is below 1.
    """
    if k < 1:
        raise PairsError(f"Hubness needs K >= 1, got {k}.")
    music, video = check_both(music, video, chunk_size)
    there, back = (scores.mean(axis=1, keepdims=True) for scores in score_nearest(music, video, k, chunk_size))
    minus_ones = np.full_like(there, -1.0), np.full_like(back, -1.0)
    return np.hstack([2.0 * music, there, minus_ones[0]]), np.hstack([video, minus_ones[1], back])
