"""Held-out pairs of several networks: the weights under which they rank best together, and the figures of those."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from vmnet_pipeline.evaluation.metrics import measure_retrieval
from vmnet_pipeline.training.fusion import is_better, rank_reciprocally
from vmnet_pipeline.training.trainer import HeldOut

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_SPREAD_ROWS = 2000
WEIGHT_STEPS = 4  # weights of members are multiples of a quarter


def choose_weights(folds: Sequence[Sequence[HeldOut]]) -> np.ndarray:
    """Weights of members on a grid, by the reciprocal ranks of held-out pairs.

    Args:
        folds: Per fold what each member makes of its held-out pairs; the sizes of embeddings differ between members.

    Returns:
        (members,) float64 of sum 1. Members' scores count the same, unless other shares are better by more than the
        standard error of the difference, pair by pair: few pairs tell little about weights.
    """
    n = len(folds[0])
    grid = (np.array(steps) for steps in itertools.product(range(WEIGHT_STEPS + 1), repeat=n))
    shares = [np.full(n, 1.0 / n), *(steps / WEIGHT_STEPS for steps in grid if steps.sum() == WEIGHT_STEPS)]
    weights, reached = _try_shares(folds, shares)
    best = max(range(len(weights)), key=lambda number: reached[number].mean())
    return weights[best if is_better(reached[best], reached[0]) else 0]


def choose_few_weights(folds: Sequence[Sequence[HeldOut]]) -> np.ndarray:
    """Weights of members for few pairs: the first one alone, another alone, or all alike.

    Args:
        folds: Per fold what each member makes of its held-out pairs; the first member is the most cautious one.

    Returns:
        (members,) float64 of sum 1. The first member alone, unless another choice is better by more than the standard
        error of the difference over groups: items of one group rank well or badly together.
    """
    n = len(folds[0])
    weights, reached = _try_shares(folds, [*np.eye(n), np.full(n, 1.0 / n)])
    groups = [group for fold in folds for group in fold[0].groups]
    best = max(range(len(weights)), key=lambda number: reached[number].mean())
    return weights[best if _is_better_by_group(reached[best] - reached[0], groups) else 0]


def _try_shares(
    folds: Sequence[Sequence[HeldOut]], shares: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights that give every member such a share of the spread of the scores, and the reciprocal ranks under them."""
    spreads = np.mean([[_spread(member) for member in fold] for fold in folds], axis=0)
    weights = [part / spreads / (part / spreads).sum() for part in shares]
    return weights, [np.concatenate([rank_held_out(weigh_members(fold, part)) for fold in folds]) for part in weights]


def _is_better_by_group(gain: np.ndarray, groups: Sequence[str]) -> bool:
    """Whether (n,) differences have a mean above its standard error; those of a group count as one draw."""
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(codes, weights=gain - gain.mean())
    return len(sums) > 1 and bool(gain.mean() > math.sqrt(float(sums @ sums)) / len(gain))


def rank_held_out(pairs: HeldOut) -> np.ndarray:
    """(n,) reciprocal rank of every pair, mean of both directions."""
    return rank_reciprocally(*(torch.from_numpy(part) for part in (pairs.music, pairs.video, pairs.codes)))


def _spread(pairs: HeldOut) -> float:
    """Deviation of the scores of a gallery: those of members are only then of one size when they are divided by it."""
    rows = slice(0, MAX_SPREAD_ROWS)
    return max(float((pairs.music[rows] @ pairs.video[rows].T).std()), 1e-6)


def weigh_members(members: Sequence[HeldOut], weights: np.ndarray) -> HeldOut:
    """The joint embeddings of members: roots of the weights, so that products are weighted means of products."""
    music, video = (
        np.concatenate([side * np.float32(math.sqrt(w)) for side, w in zip(sides, weights, strict=True)], axis=1)
        for sides in ([part.music for part in members], [part.video for part in members])
    )
    return HeldOut(music, video, members[0].codes, members[0].groups)


def measure_folds(folds: Sequence[HeldOut]) -> dict[str, float]:
    """Means over folds, weighted by their sizes, of what all of them have; each is a gallery of its own."""
    figures = [
        measure_retrieval(*(torch.from_numpy(part) for part in (fold.music, fold.video, fold.codes))) for fold in folds
    ]
    sizes = [len(fold.codes) for fold in folds]
    names = [name for name in figures[0] if all(name in part for part in figures)]
    return {name: float(np.average([part[name] for part in figures], weights=sizes)) for name in names}
