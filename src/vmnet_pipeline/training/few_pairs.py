"""What to know of a small collection before a network is fitted to it, and what can be used of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.errors import TrainingError
from vmnet_pipeline.training.data import encode_matches
from vmnet_pipeline.training.fusion import take_vectors
from vmnet_pipeline.types import SIDES

if TYPE_CHECKING:
    from vmnet_pipeline.types import Array, FeatureArray, PairArrays

MIN_GROUPS = 8
"""With fewer, a fold of cross-validation holds out one group or two, and figures say little about others."""


def find_finite(pairs: PairArrays) -> Array:
    """(n,) bool, pairs of which both sides are finite.

    Raises:
        TrainingError: Fewer than two are.
    """
    finite: Array = np.all([np.isfinite(_pool(getattr(pairs, side))).all(axis=1) for side in SIDES], axis=0)
    if finite.sum() < 2:
        bad = [pairs.ids[row] for row in np.flatnonzero(~finite)]
        what = f"features of {', '.join(bad[:5])} hold NaN or infinity" if bad else f"there are {len(pairs)} pairs"
        raise TrainingError(f"{what}, and at least 2 usable pairs are needed; extract these items again or add some")
    return finite


def list_faults(pairs: PairArrays, finite: Array) -> list[str]:
    """What keeps a network from learning from these pairs, or its figures from telling how it does on others.

    Args:
        pairs: All pairs.
        finite: (n,) bool, those that are used.
    """
    faults = []
    if bad := [pairs.ids[row] for row in np.flatnonzero(~finite)]:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        faults.append(
            f"features of {', '.join(bad[:5])}{more} hold NaN or infinity: these pairs are left out; extract them again"
        )
    for side in SIDES:
        if not np.ptp(_pool(getattr(pairs, side))[finite], axis=0).any():
            faults.append(
                f"all items have the same {side} features, as silence or black frames have: nothing can be learnt from "
                "them; check the files, or use other features"
            )
    n_groups = len(np.unique(encode_matches(pairs, "group")[finite]))
    if n_groups == 1:
        faults.append(
            "all pairs are of one group, so figures are of items that the network knows similar ones of; give groups, "
            "or add other works"
        )
    elif n_groups < MIN_GROUPS:
        faults.append(f"figures rest on {n_groups} groups, and fewer than {MIN_GROUPS} say little; add other works")
    return faults


def _pool(features: FeatureArray) -> Array:
    return take_vectors(features, np.arange(len(features)))
