"""Whitening of inputs: how much the strongest directions of a side count in distances and at a network's first layer.

In features of which a few directions carry most of the variance, those alone decide which items are near each other.
With exponent a every principal direction is divided by its deviation to the power of a: 0 leaves them as they are, 1
makes all equal. What serves depends on the features, so the exponents are those under which held-out pairs rank best by
a quick kernel CCA, see `models.kernel_cca`.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.models.kernel_cca import assign_folds
from vmnet_pipeline.models.kernel_tower import fit_kernel_towers
from vmnet_pipeline.models.two_tower import Whiten
from vmnet_pipeline.params.training import WhitenParams
from vmnet_pipeline.training.data import encode_matches, measure_scale
from vmnet_pipeline.training.fusion import is_better, rank_reciprocally, spread_weights, take_vectors
from vmnet_pipeline.training.validation import require_finite
from vmnet_pipeline.types import SIDES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from vmnet_pipeline.params import TrainParams
    from vmnet_pipeline.types import Array, FeatureArray, PairArrays, Side

logger = logging.getLogger(__name__)

EXPONENTS = (0.5, 1.0)
MIN_PAIRS = 500  # with fewer the choice is noise
MAX_PAIRS = 4_500  # pairs that the choice looks at
MAX_ROWS = 20_000  # items that principal directions are measured on
N_FOLDS = 3
SMALLEST = 1e-4  # least variance of a direction, relative to the largest
# Of the kernel CCA that compares exponents; what wins here wins with finer settings.
QUICK_WIDTH, QUICK_RIDGE = 0.8, 3e-4
QUICK_LANDMARKS, QUICK_DIM = 1_000, 128


def settle_whitening(train: PairArrays, params: TrainParams) -> TrainParams:
    """The settings with exponents in place of those that are to be chosen, of members too."""
    open_members = {name for name, part in params.kinds.items() if part.whiten.is_open}
    if not open_members:
        return params
    chosen = choose_whitening(train, params)
    if not params.members:
        return params.model_copy(update={"whiten": params.whiten.fill(chosen)})
    kinds = params.kinds
    members = {
        name: {**own, "whiten": kinds[name].whiten.fill(chosen).model_dump()} if name in open_members else own
        for name, own in params.members.items()
    }
    return params.model_copy(update={"members": members})


def choose_whitening(train: PairArrays, params: TrainParams) -> WhitenParams:
    """Exponents of both sides, one side after the other; 0 unless held-out pairs rank better by more than chance."""
    best: dict[Side, float] = dict.fromkeys(SIDES, 0.0)
    if len(train) < MIN_PAIRS or not params.standardise:
        return WhitenParams(**best)
    require_finite(train)
    trial = _Trial(train, params.seed)
    reached = trial.measure(best)
    for side in SIDES:
        for exponent in EXPONENTS:
            found = trial.measure(changed := {**best, side: exponent})
            if not is_better(found, reached):
                break
            best, reached = changed, found
    logger.info("whitening of the inputs: music %g, video %g", best["music"], best["video"])
    return WhitenParams(**best)


class _Trial:
    """A quick kernel CCA under any exponents, measured by cross-validation over groups."""

    def __init__(self, train: PairArrays, seed: int) -> None:
        rng = np.random.default_rng((seed, 3))
        rows = np.sort(rng.choice(len(train), min(len(train), MAX_PAIRS), replace=False))
        self._codes, self._seed = encode_matches(train, "group")[rows], seed
        self._folds = assign_folds(self._codes, N_FOLDS, rng)
        self._scaled: dict[Side, Array] = {side: _scale_rows(train, side, rows) for side in SIDES}
        self._axes = {side: _find_axes(view) for side, view in self._scaled.items()}  # tells nothing of pairs

    def measure(self, exponents: Mapping[Side, float]) -> Array:
        """(n,) reciprocal rank of every pair among those of its fold, mean of both directions."""
        views = [self._whiten(side, exponents[side]) for side in SIDES]
        return np.concatenate([self._measure_fold(views, self._folds == fold) for fold in range(N_FOLDS)])

    def _whiten(self, side: Side, exponent: float) -> Array:
        return self._scaled[side] @ _to_matrix(*self._axes[side], exponent) if exponent else self._scaled[side]

    def _measure_fold(self, views: Sequence[Array], held_out: Array) -> Array:
        fitted, measured = ([view[chosen] for view in views] for chosen in (~held_out, held_out))
        shapes, n_landmarks = [view.shape[1:] for view in views], min(QUICK_LANDMARKS, len(fitted[0]))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model = build_model("kernel", "kernel", *shapes, embedding_dim=QUICK_DIM, n_landmarks=n_landmarks).eval()
            groups, settings = self._codes[~held_out], {"width": QUICK_WIDTH, "ridge": QUICK_RIDGE}
            fit_kernel_towers(model, fitted[0], fitted[1], groups, seed=self._seed, **settings)
            music, video = (torch.from_numpy(view) for view in measured)
            return rank_reciprocally(
                model.embed_music(music), model.embed_video(video), torch.from_numpy(self._codes[held_out])
            )


def _scale_rows(train: PairArrays, side: Side, rows: Array) -> Array:
    """(n, D) float32, some items of a side as a network's scaler gives them before it whitens."""
    features = getattr(train, side)
    mean, std = measure_scale(features)
    if parts := train.parts.get(side):
        std = std / spread_weights(parts)
    return cast("Array", ((take_vectors(features, rows) - mean) / std).astype(np.float32))


def find_whitening(scaled: Array, exponent: float) -> Array:
    """(D, D) float32 symmetric matrix that divides principal directions; the total variance stays.

    Args:
        scaled: (n, D) of mean about 0.
        exponent: 0 to 1.
    """
    return _to_matrix(*_find_axes(scaled), exponent)


def _find_axes(scaled: Array) -> tuple[Tensor, Tensor]:
    """Variances (D,) and principal directions, columns of (D, D); float64."""
    values = torch.from_numpy(scaled - scaled.mean(axis=0)).double()
    variances, axes = torch.linalg.eigh(values.T @ values / len(values))
    return variances, axes


def _to_matrix(variances: Tensor, axes: Tensor, exponent: float) -> Array:
    total = variances.sum().clamp_min(1e-12)
    variances = variances.clamp_min(SMALLEST * float(variances.max().clamp_min(1e-12)))
    factors = variances ** (-exponent / 2.0)
    factors *= math.sqrt(float(total / (variances * factors**2).sum()))
    whitened: Array = ((axes * factors) @ axes.T).float().numpy()
    return whitened


@torch.no_grad()
def set_whitening(scaler: nn.Module, features: FeatureArray, exponent: float) -> None:
    """Fit the matrix of a scaler whose mean and deviation are set; of no effect on one that does not whiten."""
    if not isinstance(scaler, Whiten):
        return
    n = len(features)
    rows = np.arange(min(n, MAX_ROWS)) * n // min(n, MAX_ROWS)
    mean, std = (part.numpy() for part in (scaler.mean, scaler.std))
    scaled: Any = (take_vectors(features, rows) - mean) / std
    scaler.matrix.copy_(torch.from_numpy(find_whitening(scaled.astype(np.float32), exponent)))
