"""Nodes of the `evaluate` pipeline."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.features.pairs import PairSet
from vmnet_pipeline.params import EvaluateParams, Params

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from vmnet_pipeline.models.checkpoints import Checkpoint
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

    from vmnet_pipeline.models.checkpoints import build_from_checkpoint, check_fingerprints, check_shapes
    from vmnet_pipeline.models.embedding import embed_arrays
    from vmnet_pipeline.retrieval.metrics import evaluate_retrieval

    check_fingerprints(checkpoint, pairs.fingerprints)
    check_shapes(checkpoint, pairs.music.shape[1:], pairs.video.shape[1:])
    test, model = pairs.side("test"), build_from_checkpoint(checkpoint)
    music, video = embed_arrays(model, music=test.music), embed_arrays(model, video=test.video)
    evaluation = evaluate_retrieval(music, video, test.ids, test.groups, params)
    return evaluation.to_dict(), pd.DataFrame([_flatten_answers(row) for row in evaluation.query_rows])


def plot_evaluation(
    evaluation: dict[str, Any], query_ranks: DataFrame, training_history: list[dict[str, Any]], checkpoint: Checkpoint
) -> tuple[Figure, Figure, Figure]:
    """Recall curve, rank histogram, training curves."""
    from vmnet_pipeline.reporting.plots import plot_ranks, plot_recall, plot_training

    ranks = plot_ranks(evaluation, _list_rows(query_ranks))
    return plot_recall(evaluation), ranks, plot_training(training_history, checkpoint.best_epoch or None)


def write_report(
    evaluation: dict[str, Any],
    query_ranks: DataFrame,
    training_history: list[dict[str, Any]],
    checkpoint: Checkpoint,
    parameters: dict[str, Any],
    ingest_summary: dict[str, Any] | None = None,
    split_summary: dict[str, Any] | None = None,
    music_extraction: dict[str, Any] | None = None,
    video_extraction: dict[str, Any] | None = None,
    pairs: PairSet | None = None,
) -> str:
    """One self-contained HTML page about this evaluation.

    The pairs come either from media (then there are summaries of each step) or from files of the user's own (then
    the packed pairs tell the split).
    """
    from vmnet_pipeline.reporting.report import build_report

    recall, ranks, training = plot_evaluation(evaluation, query_ranks, training_history, checkpoint)
    settings = {name: _to_plain(value) for name, value in sorted(parameters.items())}
    backends = " and ".join(fingerprint.backend for fingerprint in checkpoint.fingerprints.values())
    tower = checkpoint.model_config["music_tower"]
    run_info = {
        **_describe_source(settings),
        "variant": f"VM-NET on {backends}" if backends else f"VM-NET, {tower} towers",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "git_revision": checkpoint.git_revision,
        "best_epoch": checkpoint.best_epoch or None,
        "ingest": ingest_summary,
        "split": split_summary if pairs is None else {"sizes": dict(pairs.sizes), "checksum": pairs.split_checksum},
        "extraction": {"music": music_extraction or {}, "video": video_extraction or {}},
        "params": settings,
        "versions": checkpoint.versions,
    }
    plots = {"recall": recall, "ranks": ranks, "training": training}
    return build_report(evaluation, _list_rows(query_ranks), training_history, plots, run_info)


def _describe_source(settings: dict[str, Any]) -> dict[str, str]:
    """What the figures are about, and a command that gives them again."""
    reference = settings.get("reference") or {}
    places = {name: place for name, place in reference.items() if place is not None and name != "variant"}
    if not places:
        media_dir = settings["ingest"]["media_dir"]
        return {"collection": str(media_dir), "command": f"kedro run --params media_dir={media_dir}"}
    given = ",".join(f"{name}={place}" for name, place in places.items())
    return {
        "collection": ", ".join(str(place) for place in places.values()),
        "command": f"kedro run --pipelines=train,evaluate --params {given}",
    }


def _to_plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Params) else value


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
