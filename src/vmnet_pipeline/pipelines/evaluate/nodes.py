"""Nodes of the `evaluate` pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmnet_pipeline.pairs import PairSet
from vmnet_pipeline.params import EvaluateParams

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from vmnet_pipeline.checkpoints import Checkpoint
else:  # Kedro reads the annotations to check parameters; these would be slow to import for that
    DataFrame = Checkpoint = Figure = Any


def evaluate_checkpoint(
    pairs: PairSet, checkpoint: Checkpoint, params: EvaluateParams
) -> tuple[dict[str, Any], DataFrame]:
    """Embed the test side with a checkpoint and measure retrieval in both directions.

    Returns:
        The figures, and one row per query with its rank.

    Raises:
        CheckpointError: The checkpoint was made for other features.
    """
    import pandas as pd

    from vmnet_pipeline.checkpoints import build_from_checkpoint, check_fingerprints
    from vmnet_pipeline.models.embedding import embed_arrays
    from vmnet_pipeline.retrieval.metrics import evaluate_retrieval

    check_fingerprints(checkpoint, pairs.fingerprints)
    test, model = pairs.side("test"), build_from_checkpoint(checkpoint)
    music, video = embed_arrays(model, music=test.music), embed_arrays(model, video=test.video)
    evaluation = evaluate_retrieval(music, video, test.ids, test.groups, params)
    return evaluation.to_dict(), pd.DataFrame(evaluation.query_rows)


def plot_evaluation(
    evaluation: dict[str, Any], query_ranks: DataFrame, training_history: list[dict[str, Any]], checkpoint: Checkpoint
) -> tuple[Figure, Figure, Figure]:
    """Recall curve, rank histogram, training curves."""
    from vmnet_pipeline.reporting.plots import plot_ranks, plot_recall, plot_training

    rows = query_ranks.to_dict("records")
    best_epoch = checkpoint.best_epoch
    return plot_recall(evaluation), plot_ranks(evaluation, rows), plot_training(training_history, best_epoch)


def write_report(
    evaluation: dict[str, Any],
    query_ranks: DataFrame,
    training_history: list[dict[str, Any]],
    checkpoint: Checkpoint,
    ingest_summary: dict[str, Any],
    split_summary: dict[str, Any],
    music_extraction: dict[str, Any],
    video_extraction: dict[str, Any],
    parameters: dict[str, Any],
) -> str:
    """One self-contained HTML page about this evaluation."""
    from vmnet_pipeline.reporting.report import build_report

    recall, ranks, training = plot_evaluation(evaluation, query_ranks, training_history, checkpoint)
    run_info = {
        "ingest": ingest_summary,
        "split": split_summary,
        "extraction": {"music": music_extraction, "video": video_extraction},
        "best_epoch": checkpoint.best_epoch,
        "git_revision": checkpoint.git_revision,
        "versions": checkpoint.versions,
        "parameters": parameters,
    }
    plots = {"recall": recall, "ranks": ranks, "training": training}
    return build_report(evaluation, query_ranks.to_dict("records"), training_history, plots, run_info)
