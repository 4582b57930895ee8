"""Media files to features: one pipeline for every backend, in the namespace of its name.

manifest ──plan_missing──► missing ──extract_features──► features ──check_complete──► extraction_summary
stored_features ──┴────────────────────────┘
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.extract.nodes import check_complete, extract_features, plan_missing


def create_pipeline(backend: str) -> Pipeline:
    """The pipeline `extract_<backend>`, for a key of `backends.registry.BACKENDS`."""
    params = ["params:backend", "params:extract"]
    nodes = [
        node(plan_missing, ["manifest", "stored_features", *params], "missing", name="plan_missing", tags="map"),
        node(
            extract_features, ["missing", "stored_features", *params], "features", name="extract_features", tags="map"
        ),
        node(
            check_complete,
            ["manifest", "features", *params],
            "extraction_summary",
            name="check_complete",
            confirms="features",
            tags="reduce",
        ),
    ]
    return Pipeline(
        nodes,
        namespace=backend,
        inputs={"manifest"},
        parameters={"params:backend": f"params:{backend}", "params:extract": "params:extract"},
        prefix_datasets_with_namespace=True,
    )
