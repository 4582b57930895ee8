"""A checkpoint and packed pairs to figures, plots and a report, in the namespace of the variant.

pairs, checkpoint ──evaluate_checkpoint──► evaluation, query_ranks ──plot_evaluation──► three plots
                          reranking, measured_results, stage_log ──┴──write_report──► report
pairs, checkpoint, features of both sides ──rerank_answers──► reranking
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.evaluate.nodes import evaluate_checkpoint, plot_evaluation, rerank_answers, write_report
from vmnet_pipeline.pipelines.train.pipeline import list_features, place_in_variant, with_packing

if TYPE_CHECKING:
    from vmnet_pipeline.params import VariantParams


def create_evaluation(variant: str, sources: dict[str, str]) -> Pipeline:
    """Packed pairs and a checkpoint to the report; `sources` are datasets that only pairs made from media have."""
    figures = ["evaluation", "query_ranks", "training_history", "checkpoint"]
    inputs = ["pairs", "checkpoint", "params:evaluate"]
    reported = {name: name for name in (*figures, "pairs", "measured_results", "stage_log", "parameters", *sources)}
    measure = node(evaluate_checkpoint, inputs, figures[:2], name="evaluate_checkpoint", tags="test_side")
    nodes = [
        measure,
        node(plot_evaluation, figures, ["recall_plot", "rank_plot", "training_plot"], name="plot_evaluation"),
        node(write_report, reported, "report", name="write_report", tags="test_side"),
    ]
    outside = {"stage_log": "stage_log", **sources}
    return Pipeline(nodes, namespace=variant, inputs=outside, parameters={"params:evaluate", "parameters"})


def create_pipeline(variant: str, backends: VariantParams | None = None) -> Pipeline:
    """The `evaluate` pipeline of a variant; see `with_packing` for `backends`."""
    if backends is None:
        return with_packing(create_evaluation(variant, {}), variant, None)
    sources = {
        "reranking": f"{variant}.reranking",
        "manifest": "manifest",
        "ingest_summary": "ingest_summary",
        "split_summary": "split_summary",
        **{backend: f"{backend}.extraction_summary" for backend in backends.backends},
    }
    rest = create_evaluation(variant, sources) + create_reranking(variant, backends)
    return with_packing(rest, variant, backends)


def create_reranking(variant: str, backends: VariantParams) -> Pipeline:
    """Measure the gain of re-ranking; it needs features over time, which the user's own files do not have."""
    outside = ["params:evaluate", *list_features(backends.backends)]
    reranking = node(rerank_answers, ["pairs", "checkpoint", *outside], "reranking", name="rerank_answers")
    return place_in_variant([reranking], variant, outside)
