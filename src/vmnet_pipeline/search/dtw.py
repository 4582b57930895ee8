"""Agreement over time: two sequences of embeddings, aligned so that the order of both is kept.

Source: H. Sakoe, S. Chiba, Dynamic programming algorithm optimization for spoken word recognition, IEEE TASSP 26
(1978); the symmetric form, in which a diagonal step counts twice, so that all paths have one total weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Array: TypeAlias = npt.NDArray[Any]


def align_sequences(query: Array, candidates: Sequence[Array]) -> Array:
    """Mean cosine along the best monotone path through all pieces of both, for every candidate.

    Args:
        query: (n, E) floating point, rows of unit length, n >= 1.
        candidates: (m, E) each, m >= 1; they may differ in m.

    Returns:
        (k,) float64, -1 to 1; 1 for equal sequences. It is symmetric, and for n = m = 1 it is the cosine.
    """
    lengths = np.array([len(candidate) for candidate in candidates], dtype=np.int64)
    products = np.full((len(query), int(lengths.max(initial=1)), len(candidates)), -1.0)  # (n, most m, k)
    for place, candidate in enumerate(candidates):
        products[:, : len(candidate), place] = query @ candidate.T
    best = np.full((len(query) + 1, products.shape[1] + 1, len(candidates)), -np.inf)
    best[0, 0] = 0.0
    for i, row in enumerate(products):
        for j, product in enumerate(row):
            straight = best[i, j] + 2.0 * product
            best[i + 1, j + 1] = np.maximum(straight, np.maximum(best[i, j + 1], best[i + 1, j]) + product)
    return np.asarray(best[-1, lengths, np.arange(len(candidates))] / (len(query) + lengths))


def mix_scores(scores: Array, agreements: Array, weight: float) -> Array:
    """(1 - weight) scores + weight agreements: both are cosines in one space."""
    return np.asarray((1.0 - weight) * scores + weight * agreements)
