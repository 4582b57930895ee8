"""Nodes of the `ingest` pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmnet_pipeline.params import IngestParams

if TYPE_CHECKING:
    from pandas import DataFrame
else:  # Kedro reads the annotations to check parameters; pandas would be slow to import for that
    DataFrame = Any


def ingest_media(params: IngestParams) -> tuple[DataFrame, dict[str, Any]]:
    """Find the items of the media folder and probe every file.

    Args:
        params: Where the media are.

    Returns:
        The manifest, one row per item whether usable or not, and its counts.

    Raises:
        IngestError: The folder is wrong or empty, two items have one id, or no item can be used.
    """
    from vmnet_pipeline.console import track
    from vmnet_pipeline.ingestion import build_manifest, check_usable, find_items, summarise_manifest
    from vmnet_pipeline.media.probe import probe_media

    items = find_items(params.media_dir)
    with track("probing files", len({path for item in items for path in (item.video, item.audio) if path})) as bar:
        manifest = build_manifest(items, probe_media, n_workers=params.n_workers, progress=bar.advance)
    summary = summarise_manifest(manifest)
    check_usable(manifest, params.media_dir)
    return manifest, summary
