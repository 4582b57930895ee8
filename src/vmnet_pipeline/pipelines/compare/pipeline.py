"""Packed pairs to a table of variants, in the namespace of the pair of backends.

pairs ──measure_variants──► comparison ──plot_comparison──► comparison_plot
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.compare.nodes import measure_variants, plot_comparison
from vmnet_pipeline.pipelines.train.pipeline import create_packing, create_reference_packing


def create_comparison(variant: str) -> Pipeline:
    """Packed pairs to the comparison."""
    nodes = [
        node(
            measure_variants,
            ["pairs", "comparison_state", "params:train", "params:compare"],
            "comparison",
            name="measure_variants",
        ),
        node(plot_comparison, "comparison", "comparison_plot", name="plot_comparison"),
    ]
    return Pipeline(nodes, namespace=variant, parameters={"params:train", "params:compare"})


def create_pipeline(variant: str, music_backend: str, video_backend: str) -> Pipeline:
    """The `compare` pipeline of a variant.

    Args:
        variant: Name of the variant, the namespace of its datasets.
        music_backend: Backend of the music features.
        video_backend: Backend of the video features.
    """
    return create_packing(variant, music_backend, video_backend) + create_comparison(variant)


def create_reference_pipeline(variant: str) -> Pipeline:
    """The `compare` pipeline on your own feature files."""
    return create_reference_packing(variant) + create_comparison(variant)
