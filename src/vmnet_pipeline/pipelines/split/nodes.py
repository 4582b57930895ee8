"""Nodes of the `split` pipeline."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.params import IngestParams, SplitParams

if TYPE_CHECKING:
    from pandas import DataFrame
else:  # Kedro evaluates annotations; these are slow to import
    DataFrame = Any

logger = logging.getLogger(__name__)

Ids = tuple[str, ...]


def split_items(
    manifest: DataFrame, params: SplitParams, ingest_params: IngestParams
) -> tuple[Ids, Ids, Ids, dict[str, Any]]:
    """Divide the usable items into train, val and test by group, or use the user's own csv files.

    Args:
        ingest_params: The media folder, whose train.csv and test.csv are used if present.

    Returns:
        Ids of train, val and test, and a summary with sizes and checksum.

    Raises:
        SplitError: Too few groups, or the user's files contradict themselves.
    """
    from vmnet_pipeline.ingestion.splits import (
        check_split,
        doubt_groups,
        find_user_split,
        resolve_split,
        split_by_group,
        summarise_split,
    )

    usable = manifest[manifest["status"] == "ok"]
    groups = dict(zip(usable["id"], usable["group"], strict=True))
    split = find_user_split(params.split_dir, ingest_params.media_dir)
    doubts: list[str] = []
    if split is not None:
        split, doubts = resolve_split(split, manifest)
        doubts += check_split(split, groups)
    else:
        shares = {"train": params.train_share, "val": params.val_share, "test": params.test_share}
        split = split_by_group(list(groups), list(groups.values()), shares, params.seed)
        doubts = doubt_groups(groups)
    for doubt in doubts:
        logger.warning("Split: %s", doubt)
    return split.train, split.val, split.test, summarise_split(split, groups) | {"doubts": doubts}
