"""A checkpoint and packed pairs to figures, plots and a report, in the namespace of the variant.

pairs, checkpoint ──evaluate_checkpoint──► evaluation, query_ranks ──plot_evaluation──► three plots
                                                            └──────write_report─────► report
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.evaluate.nodes import evaluate_checkpoint, plot_evaluation, write_report
from vmnet_pipeline.pipelines.train.pipeline import create_packing, create_reference_packing


def create_evaluation(variant: str, summaries: dict[str, str]) -> Pipeline:
    """Packed pairs and a checkpoint to the report.

    Args:
        variant: Name of the variant, the namespace of its datasets.
        summaries: Arguments of `write_report` that tell where the pairs come from, to their datasets.
    """
    figures = ["evaluation", "query_ranks", "training_history", "checkpoint"]
    nodes = [
        node(
            evaluate_checkpoint,
            ["pairs", "checkpoint", "params:evaluate"],
            ["evaluation", "query_ranks"],
            name="evaluate_checkpoint",
        ),
        node(plot_evaluation, figures, ["recall_plot", "rank_plot", "training_plot"], name="plot_evaluation"),
        node(
            write_report,
            {name: name for name in (*figures, "parameters", *summaries)},
            "report",
            name="write_report",
        ),
    ]
    outside = {name: dataset for name, dataset in summaries.items() if name != "pairs"}
    return Pipeline(nodes, namespace=variant, inputs=outside, parameters={"params:evaluate", "parameters"})


def create_pipeline(variant: str, music_backend: str, video_backend: str) -> Pipeline:
    """The `evaluate` pipeline of a variant.

    Args:
        variant: Name of the variant, the namespace of its datasets.
        music_backend: Backend of the music features.
        video_backend: Backend of the video features.
    """
    summaries = {
        "ingest_summary": "ingest_summary",
        "split_summary": "split_summary",
        "music_extraction": f"{music_backend}.extraction_summary",
        "video_extraction": f"{video_backend}.extraction_summary",
    }
    return create_packing(variant, music_backend, video_backend) + create_evaluation(variant, summaries)


def create_reference_pipeline(variant: str) -> Pipeline:
    """The `evaluate` pipeline on feature files of one's own."""
    return create_reference_packing(variant) + create_evaluation(variant, {"pairs": "pairs"})
