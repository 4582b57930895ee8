"""Raw media to a manifest.

media folder ──ingest_media──► manifest
probe_cache ───┘         └───► ingest_summary
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.ingest.nodes import ingest_media


def create_pipeline() -> Pipeline:
    """The `ingest` pipeline."""
    return Pipeline(
        [node(ingest_media, ["params:ingest", "probe_cache"], ["manifest", "ingest_summary"], name="ingest_media")]
    )
