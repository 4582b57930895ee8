"""Keep one search hit of each group, such as one clip of a song."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from vmnet_pipeline.search.vector_index import Hit

GROUP_COLUMN = "group"


def keep_best_of_groups(hits: Sequence[Hit], items: pd.DataFrame) -> list[Hit]:
    """The first hit of each group, in the order of the hits; an item without a group is one of its own.

    Args:
        hits: Best first.
        items: The table of the index; without a column `group` all hits stay.
    """
    if GROUP_COLUMN not in items:
        return list(hits)
    rows = items[GROUP_COLUMN].iloc[[hit.position for hit in hits]]
    groups = rows.where(rows.notna(), "").astype("str")
    seen: set[str] = set()
    kept = []
    for hit, group in zip(hits, groups, strict=True):
        if group not in seen:
            kept.append(hit)
        if group:
            seen.add(group)
    return kept
