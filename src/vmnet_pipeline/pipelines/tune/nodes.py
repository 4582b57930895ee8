"""Nodes of the `tune` pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.pairs.packing import PairFiles
from vmnet_pipeline.params import TrainParams, TuneParams

if TYPE_CHECKING:
    from pandas import DataFrame
else:  # Kedro evaluates annotations; these are slow to import
    DataFrame = Any


def search_settings(
    pairs: PairFiles, tuning_state: Path, train_params: TrainParams, params: TuneParams
) -> tuple[dict[str, Any], DataFrame, str]:
    """Search for the training settings that are best on the val subset; the test subset is not used.

    Args:
        tuning_state: Folder of the study; a rerun does the trials that are missing.

    Returns:
        The search, its trials as a table, and the best settings as YAML.

    Raises:
        ParameterError: The space cannot be used.
        TuningError: The study belongs to another search, or too many trials fail.
    """
    from vmnet_pipeline.experiments.tuning import search_settings as search
    from vmnet_pipeline.reporting.tuning import tabulate_trials, write_settings
    from vmnet_pipeline.tracking.runs import child_run

    train, val = pairs.subset("train"), pairs.subset("val")
    tuning = search(train, val, train_params, params, folder=tuning_state, open_log=child_run)
    return tuning, tabulate_trials(tuning), write_settings(tuning)
