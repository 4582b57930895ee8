"""A manifest to three lists of ids.

manifest ──split_items──► train_ids, val_ids, test_ids, split_summary
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.split.nodes import split_items


def create_pipeline() -> Pipeline:
    """The `split` pipeline."""
    outputs = ["train_ids", "val_ids", "test_ids", "split_summary"]
    return Pipeline([node(split_items, ["manifest", "params:split", "params:ingest"], outputs, name="split_items")])
