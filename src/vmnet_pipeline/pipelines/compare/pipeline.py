"""Packed pairs to a table of variants, in the namespace of the pair of backends.

pairs ──measure_variants──► comparison ──plot_comparison──► comparison_plot
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.compare.nodes import measure_variants, plot_comparison
from vmnet_pipeline.pipelines.train.pipeline import with_packing

if TYPE_CHECKING:
    from vmnet_pipeline.params import VariantParams


def create_pipeline(variant: str, backends: VariantParams | None = None) -> Pipeline:
    """The `compare` pipeline of a variant; see `with_packing` for `backends`."""
    inputs = ["pairs", "comparison_state", "params:train", "params:compare", "params:backend_defaults"]
    nodes = [
        node(measure_variants, inputs, "comparison", name="measure_variants"),
        node(plot_comparison, "comparison", "comparison_plot", name="plot_comparison"),
    ]
    comparison = Pipeline(nodes, namespace=variant, parameters={*inputs[2:]})
    return with_packing(comparison, variant, backends)
