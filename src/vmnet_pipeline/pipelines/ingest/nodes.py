"""Nodes of the `ingest` pipeline."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.params import IngestParams

if TYPE_CHECKING:
    from pandas import DataFrame
else:  # Kedro evaluates annotations; these are slow to import
    DataFrame = Any

logger = logging.getLogger(__name__)


def ingest_media(params: IngestParams, probe_cache: Path) -> tuple[DataFrame, dict[str, Any]]:
    """Find the items of the media folder and probe every file that is new or has changed.

    Args:
        probe_cache: Folder with the results of earlier runs.

    Returns:
        The manifest, one row per item, usable or not, and its counts.

    Raises:
        IngestError: The folder is wrong or empty, two items have one id, or no item can be used.
    """
    from vmnet_pipeline.ingestion.discovery import find_items
    from vmnet_pipeline.ingestion.grouping import Grouping, group_items
    from vmnet_pipeline.ingestion.library import find_library_items
    from vmnet_pipeline.ingestion.manifest import build_manifest, check_usable, describe_counts, summarise_manifest
    from vmnet_pipeline.ingestion.probing import recognise_files
    from vmnet_pipeline.media.probe import probe_in_sandbox
    from vmnet_pipeline.media.sandbox import Sandbox

    recognise = partial(recognise_files, limits=params.limits, cache_dir=probe_cache, n_workers=params.n_workers)
    with Sandbox(params.limits) as sandbox:
        probe = partial(probe_in_sandbox, sandbox)
        if params.library is None:
            found = group_items(find_items(params.media_dir, recognise), params.group, params.group_regex)
            logger.log(logging.WARNING if found.is_doubtful else logging.INFO, "Groups: %s", found.sentence)
        else:
            found = Grouping(
                find_library_items(params.library, params.library_side, recognise), "a library is not split"
            )
        manifest = build_manifest(found.items, probe, cache_dir=probe_cache, n_workers=params.n_workers)
    summary = {**summarise_manifest(manifest), "group_rule": found.sentence}
    check_usable(manifest, params.library or params.media_dir)
    logger.info("%s", describe_counts(summary))
    return manifest, summary
