"""A checkpoint and packed pairs to figures, plots and a report, in the namespace of the variant.

pairs, checkpoint ──evaluate_checkpoint──► evaluation, query_ranks ──plot_evaluation──► three plots
                          reranking, measured_results, stage_log ──┴──write_report──► report
pairs, checkpoint, features of both sides ──rerank_answers──► reranking
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.evaluate.nodes import (
    evaluate_checkpoint,
    plot_evaluation,
    rerank_answers,
    write_report,
)
from vmnet_pipeline.pipelines.train.pipeline import Backends, with_packing


def create_evaluation(variant: str, sources: dict[str, str]) -> Pipeline:
    """Packed pairs and a checkpoint to the report.

    Args:
        sources: Arguments of `write_report` that only pairs made from media have, to their datasets.
    """
    figures = ["evaluation", "query_ranks", "training_history", "checkpoint"]
    nodes = [
        node(
            evaluate_checkpoint,
            ["pairs", "checkpoint", "params:evaluate"],
            ["evaluation", "query_ranks"],
            name="evaluate_checkpoint",
            tags="test_side",
        ),
        node(plot_evaluation, figures, ["recall_plot", "rank_plot", "training_plot"], name="plot_evaluation"),
        node(
            write_report,
            {name: name for name in (*figures, "pairs", "measured_results", "stage_log", "parameters", *sources)},
            "report",
            name="write_report",
            tags="test_side",
        ),
    ]
    outside = {"stage_log": "stage_log", **sources}
    return Pipeline(nodes, namespace=variant, inputs=outside, parameters={"params:evaluate", "parameters"})


def create_pipeline(variant: str, backends: Backends | None = None) -> Pipeline:
    """The `evaluate` pipeline of a variant; see `with_packing` for `backends`."""
    if backends is None:
        return with_packing(create_evaluation(variant, {}), variant, None)
    sources = {
        "reranking": f"{variant}.reranking",
        "manifest": "manifest",
        "ingest_summary": "ingest_summary",
        "split_summary": "split_summary",
        "music_extraction": f"{backends[0]}.extraction_summary",
        "video_extraction": f"{backends[1]}.extraction_summary",
    }
    rest = create_evaluation(variant, sources) + create_reranking(variant, *backends)
    return with_packing(rest, variant, backends)


def create_reranking(variant: str, music_backend: str, video_backend: str) -> Pipeline:
    """Measure the gain of re-ranking; it needs features over time, which the user's own files do not have."""
    inputs = ["pairs", "checkpoint", "music_features", "video_features", "params:music", "params:video"]
    reranking = node(rerank_answers, [*inputs, "params:evaluate"], "reranking", name="rerank_answers")
    return Pipeline(
        [reranking],
        namespace=variant,
        inputs={"music_features": f"{music_backend}.features", "video_features": f"{video_backend}.features"},
        parameters={
            "params:music": f"params:{music_backend}",
            "params:video": f"params:{video_backend}",
            "params:evaluate": "params:evaluate",
        },
    )
