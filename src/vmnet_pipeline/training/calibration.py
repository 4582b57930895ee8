"""Calibrate a trained network on pairs that it was not fitted on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vmnet_pipeline.evaluation.calibration import MIN_PAIRS, Calibration, Fold, calibrate
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.training.data import encode_matches

if TYPE_CHECKING:
    from vmnet_pipeline.params import TrainParams
    from vmnet_pipeline.training.trainer import TrainingResult
    from vmnet_pipeline.types import PairArrays

logger = logging.getLogger(__name__)


def calibrate_result(result: TrainingResult, val: PairArrays | None, params: TrainParams) -> Calibration | None:
    """Calibrate a network on pairs that were held out, in folds or as validation pairs; None without two of them.

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
    return calibration


def _embed_fold(result: TrainingResult, val: PairArrays, params: TrainParams) -> Fold:
    model = result.build()
    return Fold(
        embed_arrays(model, music=val.music),
        embed_arrays(model, video=val.video),
        encode_matches(val, params.positives_by),
        val.groups,
    )
