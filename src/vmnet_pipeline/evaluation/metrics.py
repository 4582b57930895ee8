"""Metrics of ranks: recall at K, median rank, mean reciprocal rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.evaluation.ranks import rank_on_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from vmnet_pipeline.types import Array


def recall_at_k(ranks: Array, ks: Sequence[int]) -> dict[int, float]:
    """Share of queries whose best positive has a rank of at most K.

    A mid-rank counts as it is: a query tied across K is a miss when its mid-rank is above K. A collapsed
    model (all scores equal) so has a recall of 0 at every K below half the gallery, not one of chance.

    Args:
        ranks: (n,) >= 1, n >= 1.
        ks: Cut-offs, each >= 1.

    Raises:
        PairsError: No ranks, or ranks below 1 or NaN, or a K below 1.

    Example:
        >>> recall_at_k(np.array([1, 2, 7, 30]), [1, 10])
        {1: 0.25, 10: 0.75}
    """
    ranks = check_ranks(ranks)
    if any(k < 1 for k in ks):
        raise PairsError(f"Recall at K needs K >= 1, got {list(ks)}.")
    return {int(k): float((ranks <= k).mean()) for k in ks}


def median_rank(ranks: Array) -> float:
    """Median of the ranks, >= 1; the mean of the two middle ones for an even number of queries."""
    return float(np.median(check_ranks(ranks)))


def mean_reciprocal_rank(ranks: Array) -> float:
    """Mean of 1 / rank, in (0, 1]."""
    return float((1.0 / check_ranks(ranks)).mean())


def check_ranks(ranks: Array) -> Array:
    """Check (n,) ranks, each >= 1, and give them as float64.

    Raises:
        PairsError: No ranks, or ranks below 1 or NaN.
    """
    array = np.asarray(ranks, dtype=np.float64)
    if array.ndim != 1 or not array.size or not (array >= 1).all():
        raise PairsError(f"Ranks must be a non-empty list of numbers >= 1, got shape {array.shape}.")
    return array


RECALL_KS = (1, 5, 10)


def summarise_ranks(ranks: Array, direction: str) -> dict[str, float]:
    """MRR, median rank and Recall@K (shares, 0-1; K below the gallery size) of (n,) ranks of one direction."""
    recall = recall_at_k(ranks, [k for k in RECALL_KS if k < len(ranks)])
    return {
        f"mrr_{direction}": mean_reciprocal_rank(ranks),
        f"median_rank_{direction}": median_rank(ranks),
        **{f"recall_at_{k}_{direction}": share for k, share in recall.items()},
    }


def measure_retrieval(music: Tensor, video: Tensor, codes: Tensor) -> dict[str, float]:
    """Metrics of both directions over (n, E) unit vectors and (n,) codes, equal for rows that match.

    Returns:
        `mrr` (mean of both directions), and `summarise_ranks` of `xy` (music -> video) and `yx`.
    """
    there, back = rank_on_device(music, video, codes)
    metrics = {**summarise_ranks(there, "xy"), **summarise_ranks(back, "yx")}
    return {"mrr": (metrics["mrr_xy"] + metrics["mrr_yx"]) / 2.0, **metrics}
