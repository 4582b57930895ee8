"""Dynamic time warping: align two sequences of embeddings, keeping the order of both.

Source: H. Sakoe, S. Chiba, Dynamic programming algorithm optimization for spoken word recognition, IEEE TASSP 26
(1978); the symmetric form, in which a diagonal step counts twice, so that all paths have one total weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmnet_pipeline.types import Array


def align_sequences(query: Array, candidates: Sequence[Array]) -> Array:
    """Compute the mean cosine along the best monotone path through all pieces of both, per candidate.

    Args:
        query: (n, E) floating point, rows of unit length, n >= 1.
        candidates: (m, E) each, m >= 1; they may differ in m.

    Returns:
        (k,) float64, -1 to 1; 1 for equal sequences. It is symmetric, and for n = m = 1 it is the cosine.
    """
    lengths = np.array([len(candidate) for candidate in candidates], dtype=np.int64)
    # One table for all candidates: the recursion over cells runs in Python, and each step updates all of them at once.
    # Shorter candidates are padded at the end; no path to their own last cell crosses the padding.
    products = np.full((len(query), int(lengths.max(initial=1)), len(candidates)), -1.0)  # (n, most m, k)
    for place, candidate in enumerate(candidates):
        products[:, : len(candidate), place] = query @ candidate.T
    best = np.full((len(query) + 1, products.shape[1] + 1, len(candidates)), -np.inf)
    best[0, 0] = 0.0
    for i, row in enumerate(products):
        for j, product in enumerate(row):
            # A diagonal step counts twice, so every path weighs n + m: long paths gain nothing by their length.
            straight = best[i, j] + 2.0 * product
            best[i + 1, j + 1] = np.maximum(straight, np.maximum(best[i, j + 1], best[i + 1, j]) + product)
    return np.asarray(best[-1, lengths, np.arange(len(candidates))] / (len(query) + lengths))


def mix_scores(scores: Array, agreements: Array, weight: float) -> Array:
    """(1 - weight) scores + weight agreements: both are cosines in one space."""
    return np.asarray((1.0 - weight) * scores + weight * agreements)
