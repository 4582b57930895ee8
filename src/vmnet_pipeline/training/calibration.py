"""Calibrate a trained network on pairs that it was not fitted on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.evaluation.calibration import MIN_PAIRS, Calibration, Fold, calibrate
from vmnet_pipeline.evaluation.domain import MAX_SAMPLE, know_items
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.training.data import encode_matches
from vmnet_pipeline.types import SIDES, Sequences

if TYPE_CHECKING:
    from vmnet_pipeline.evaluation.domain import KnownItems
    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.params import TrainParams
    from vmnet_pipeline.training.trainer import TrainingResult
    from vmnet_pipeline.types import Array, FeatureArray, PairArrays, Side

logger = logging.getLogger(__name__)

MAX_EMBEDDED = 2 * MAX_SAMPLE


def calibrate_result(
    result: TrainingResult, val: PairArrays | None, params: TrainParams, *, train: PairArrays | None = None
) -> Calibration | None:
    """Calibrate a network on pairs that were held out, in folds or as validation pairs; None without two of them.

    With `train` the calibration keeps a sample of the training items, so that queries of another kind are recognised.

    Logs what the scores cannot tell, and whether the network is better than chance.
    """
    folds = [Fold(part.music, part.video, part.codes, part.groups) for part in result.held_out]
    if not folds and val is not None and len(val) >= 2:
        folds = [_embed_fold(result, val, params)]
    calibration = calibrate(folds, params.seed) if folds else None
    n_pairs = 0 if calibration is None else calibration.n_pairs
    if n_pairs < MIN_PAIRS:
        logger.warning(
            "there are %d held-out pairs, and %d are needed to tell what a score means: scores stay cosines, without "
            "probability and percentile",
            n_pairs,
            MIN_PAIRS,
        )
    if calibration is not None and calibration.warn_of_chance():
        logger.warning("%s", calibration.warn_of_chance())
    if calibration is None or train is None:
        return calibration
    return calibration.model_copy(update={"known": know_sides(result, train, val, params.seed)})


def know_sides(result: TrainingResult, train: PairArrays, val: PairArrays | None, seed: int) -> dict[Side, KnownItems]:
    """Sample the training items of both sides, see `evaluation.domain`."""
    model = result.build()
    known: dict[Side, KnownItems] = {}
    for side in SIDES:
        rows = np.sort(np.random.default_rng(seed).permutation(len(train))[:MAX_EMBEDDED])
        sample = _embed_rows(model, side, getattr(train, side), rows)
        held_out = None
        if val is not None and not result.held_out:  # otherwise the network has learnt from them
            held_out = _embed_rows(model, side, getattr(val, side), np.arange(min(len(val), MAX_EMBEDDED)))
        found = know_items(sample, [train.groups[row] for row in rows], held_out, seed)
        if found is not None:
            known[side] = found
    return known


def _embed_rows(model: VMNet, side: Side, features: FeatureArray, rows: Array) -> Array:
    """(n, E) float32 unit rows of some items."""
    parts = [features[row : row + 1] for row in rows] if isinstance(features, Sequences) else [features[rows]]
    embedded = [
        embed_arrays(model, music=part) if side == "music" else embed_arrays(model, video=part)
        for part in parts
        if len(part)
    ]
    return np.concatenate(embedded) if embedded else np.empty((0, 1), np.float32)


def _embed_fold(result: TrainingResult, val: PairArrays, params: TrainParams) -> Fold:
    model = result.build()
    return Fold(
        embed_arrays(model, music=val.music),
        embed_arrays(model, video=val.video),
        encode_matches(val, params.positives_by),
        val.groups,
    )
