"""Nodes of the `evaluate` pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmnet_pipeline.features.store import FeatureStore
from vmnet_pipeline.pairs.packing import PairFiles
from vmnet_pipeline.params import EvaluateParams, Params
from vmnet_pipeline.pipelines.side_features import take_side

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from vmnet_pipeline.models.checkpoints import Checkpoint
    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.types import Side
else:  # Kedro evaluates annotations; these are slow to import
    DataFrame = Checkpoint = Figure = Side = VMNet = Any


def evaluate_checkpoint(
    pairs: PairFiles, checkpoint: Checkpoint, params: EvaluateParams
) -> tuple[dict[str, Any], DataFrame]:
    """Embed the test subset with a checkpoint and measure retrieval in both directions.

    Returns:
        The metrics, with the reliability of calibrated scores, and one row per query with its rank.

    Raises:
        CheckpointError: The checkpoint was made for other features.
    """
    import pandas as pd

    from vmnet_pipeline.evaluation.calibration import add_calibration
    from vmnet_pipeline.evaluation.evaluate import evaluate_retrieval
    from vmnet_pipeline.models.embed import embed_arrays

    test, model = pairs.subset("test"), _build_model(checkpoint, pairs)
    music, video = embed_arrays(model, music=test.music), embed_arrays(model, video=test.video)
    evaluation = evaluate_retrieval(music, video, test.ids, test.groups, params)
    results = evaluation.to_dict()
    if checkpoint.calibration is not None and not params.shuffle_pairs:
        relevant = test.groups if params.positives == "group" else test.ids
        results = add_calibration(results, checkpoint.calibration, music, video, relevant)
    return results, pd.DataFrame([_flatten_answers(row) for row in evaluation.query_rows])


def rerank_answers(
    pairs: PairFiles,
    checkpoint: Checkpoint,
    params: EvaluateParams,
    *features: FeatureStore | dict[str, Any],
) -> dict[str, Any]:
    """Measure the gain of re-ranking by agreement over time on the test subset, unless it is off.

    Args:
        features: The store of every backend, each followed by the parameters of the backend.

    Raises:
        ParameterError: The features or the towers cannot be cut into pieces, or there are no validation pairs.
        CheckpointError: The checkpoint was made for other features.
    """
    if params.rerank.n_candidates == 0:
        return {"n_candidates": 0}
    from vmnet_pipeline.experiments.reranking import PieceSource, measure_reranking
    from vmnet_pipeline.inference.input_spec import InputSpec
    from vmnet_pipeline.inference.pieces import PieceEmbedder

    model, piece_s = _build_model(checkpoint, pairs), params.rerank.piece_s

    def open_side(side: Side) -> PieceSource:
        spec, own = InputSpec.of(checkpoint.model_config, side), take_side(side, features)
        return PieceSource(own.store, PieceEmbedder(model, spec, own.backend, piece_s))

    val, test = pairs.subset("val"), pairs.subset("test")
    return measure_reranking(model, val, test, open_side("music"), open_side("video"), params)


def _build_model(checkpoint: Checkpoint, pairs: PairFiles) -> VMNet:
    """Build the network of a checkpoint after checking that it fits the pairs."""
    from vmnet_pipeline.models.checkpoints import build_from_checkpoint, check_fingerprints, check_shapes

    check_fingerprints(checkpoint, pairs.fingerprints)
    check_shapes(checkpoint, pairs.music.shape[1:], pairs.video.shape[1:])
    return build_from_checkpoint(checkpoint)


def plot_evaluation(
    evaluation: dict[str, Any], query_ranks: DataFrame, training_history: list[dict[str, Any]], checkpoint: Checkpoint
) -> tuple[Figure, Figure, Figure]:
    """Plot the recall curve, a histogram of ranks, and the training curves."""
    from vmnet_pipeline.reporting.plots import plot_ranks, plot_recall, plot_training

    ranks = plot_ranks(evaluation, _list_rows(query_ranks))
    return plot_recall(evaluation), ranks, plot_training(training_history, checkpoint.best_epoch or None)


def write_report(
    evaluation: dict[str, Any],
    query_ranks: DataFrame,
    training_history: list[dict[str, Any]],
    checkpoint: Checkpoint,
    pairs: PairFiles,
    measured_results: dict[str, Any],
    stage_log: list[dict[str, Any]],
    parameters: dict[str, Any],
    reranking: dict[str, Any] | None = None,
    manifest: DataFrame | None = None,
    ingest_summary: dict[str, Any] | None = None,
    split_summary: dict[str, Any] | None = None,
    **extractions: dict[str, Any],
) -> str:
    """Write one self-contained HTML page about this evaluation.

    Opens the media of the best and worst queries. The user's own feature files have no manifest, re-ranking gain and
    summaries.

    Args:
        extractions: Summary of the extraction of each backend.
    """
    from vmnet_pipeline.pipelines.evaluate.report_inputs import Evidence, report_evaluation

    evidence = Evidence(
        evaluation=evaluation,
        query_rows=_list_rows(query_ranks),
        history=training_history,
        checkpoint=checkpoint,
        pairs=pairs,
        settings={
            name: value.model_dump(mode="json") if isinstance(value, Params) else value
            for name, value in sorted(parameters.items())
        },
        manifest=manifest,
        summaries={"ingest": ingest_summary, "split": split_summary},
        extractions=extractions,
        reranking=reranking,
    )
    figures = plot_evaluation(evaluation, query_ranks, training_history, checkpoint)
    plots = dict(zip(("recall", "ranks", "training"), figures, strict=True))
    if "reliability" in evaluation:
        from vmnet_pipeline.reporting.plots import plot_reliability

        plots["reliability"] = plot_reliability(evaluation["reliability"])
    others = {
        name: {"evaluation": results["evaluation"], "query_rows": _list_rows(results["query_ranks"])}
        for name, results in measured_results["variants"].items()
    }
    return report_evaluation(evidence, plots, {**measured_results, "variants": others}, stage_log)


def _flatten_answers(row: dict[str, Any]) -> dict[str, Any]:
    """One column per answer, `answer_1` the best: a flat table reads everywhere."""
    answers = {f"answer_{place}": item_id for place, item_id in enumerate(row["top_ids"], start=1)}
    return {name: value for name, value in row.items() if name != "top_ids"} | answers


def _list_rows(table: DataFrame) -> list[dict[str, Any]]:
    """Inverse of `_flatten_answers` for a whole table."""
    answers = [name for name in table.columns if str(name).startswith("answer_")]
    rows = table.drop(columns=answers).to_dict("records")
    tops = table[answers].to_numpy().tolist()
    return [
        {str(name): value for name, value in row.items()}
        | {"top_ids": [item_id for item_id in top if isinstance(item_id, str)]}
        for row, top in zip(rows, tops, strict=True)
    ]
