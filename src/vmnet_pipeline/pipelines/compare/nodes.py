"""Nodes of the `compare` pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.pairs.packing import PairFiles
from vmnet_pipeline.params import CompareParams, TrainParams

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:  # Kedro evaluates annotations; these are slow to import
    Figure = Any


def measure_variants(
    pairs: PairFiles,
    comparison_state: Path,
    train_params: TrainParams,
    params: CompareParams,
    backend_defaults: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train every variant with every seed, and measure them and the baselines on the test subset.

    The network of the backends without training is a baseline, where they share a space.

    Args:
        comparison_state: Folder that an interrupted comparison continues from.
        backend_defaults: Where the weights of backends are.

    Raises:
        ParameterError: The settings of a variant cannot be used.
        TrainingError: A subset has too few pairs, or a training fails.
    """
    from vmnet_pipeline.backends.weights import DEFAULT_WEIGHTS_DIR
    from vmnet_pipeline.experiments.comparison import compare_variants
    from vmnet_pipeline.inference.zero_shot import find_zero_shot
    from vmnet_pipeline.ingestion.splits import SUBSETS
    from vmnet_pipeline.models.checkpoints import build_from_checkpoint
    from vmnet_pipeline.tracking.runs import child_run

    subsets = {subset: pairs.subset(subset) for subset in SUBSETS}
    weights_dir = (backend_defaults or {}).get("weights_dir", DEFAULT_WEIGHTS_DIR)
    untrained = find_zero_shot(pairs.fingerprints, weights_dir)
    comparison = compare_variants(
        subsets,
        train_params,
        params,
        state_dir=comparison_state,
        open_log=child_run,
        zero_shot=None if untrained is None else build_from_checkpoint(untrained),
    )
    return comparison | {"split_checksum": pairs.split_checksum}


def plot_comparison(comparison: dict[str, Any]) -> Figure:
    """Plot all rows with their intervals."""
    from vmnet_pipeline.reporting.comparison import plot_comparison as plot

    return plot(comparison)
