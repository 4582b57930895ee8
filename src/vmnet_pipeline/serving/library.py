"""The items of a gallery as a list: search in their texts, filters, and what can be filtered by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import SearchIndexError
from vmnet_pipeline.search.filters import LIST_SEPARATOR, select_items
from vmnet_pipeline.search.recommendation import HIDDEN_COLUMNS, list_metadata
from vmnet_pipeline.serving.errors import RefusedError
from vmnet_pipeline.storage.names import fold_case

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd

    from vmnet_pipeline.search.vector_index import VectorIndex
    from vmnet_pipeline.serving.gallery import Gallery
    from vmnet_pipeline.types import Side

MAX_VALUES = 50
"""Values of a column that are listed: the most frequent ones."""


def list_items(
    gallery: Gallery, side: Side, text: str, filters: Sequence[str], offset: int, limit: int
) -> dict[str, Any]:
    """Items of a side that have every word of a text in their id or metadata, and meet all filters.

    Returns:
        `total` and, from `offset`, at most `limit` of them as `items`, in the order of the index.

    Raises:
        RefusedError: 422 for a filter that cannot be used.
    """
    index = gallery.sides[side].index
    try:
        chosen = index.alive & select_items(index.items, filters) & _contain_words(index.items, text)
    except SearchIndexError as error:
        raise RefusedError(422, "bad_filter", str(error)) from error
    positions = chosen.nonzero()[0]
    shown = positions[offset : offset + limit].tolist()
    ids = [str(item_id) for item_id in index.items["id"].iloc[shown]]
    items = [
        {"id": item_id, "metadata": metadata, "media": gallery.link_media(item_id, side, n_up=1)}
        for item_id, metadata in zip(ids, list_metadata(index, shown), strict=True)
    ]
    return {"side": side, "total": len(positions), "items": items}


def _contain_words(items: pd.DataFrame, text: str) -> np.ndarray:
    import numpy as np
    import pandas as pd

    words = fold_case(text).split()
    chosen = np.ones(len(items), dtype=bool)
    if not words:
        return chosen
    texts = pd.Series("", index=items.index)
    for name in items.columns.drop(HIDDEN_COLUMNS[1:], errors="ignore"):
        if not pd.api.types.is_numeric_dtype(items[name]):
            texts = texts + "\n" + items[name].fillna("").astype("str")
    texts = texts.map(fold_case)
    for word in words:
        chosen &= texts.str.contains(word, regex=False).to_numpy(dtype=bool)
    return chosen


def list_columns(index: VectorIndex) -> list[dict[str, Any]]:
    """Columns of the metadata that some item fills: name, kind, and what values there are.

    A column of numbers has `least` and `most`; one of texts has its most frequent `values`, and `n_values`, their
    number. Values of `tags` are the single tags.
    """
    import pandas as pd

    alive = index.items[index.alive].drop(columns=list(HIDDEN_COLUMNS), errors="ignore")
    columns: list[dict[str, Any]] = []
    for name in alive:
        cells = alive[name].dropna()
        if pd.api.types.is_numeric_dtype(cells):
            if len(cells):
                columns.append(
                    {"name": str(name), "kind": "number", "least": float(cells.min()), "most": float(cells.max())}
                )
            continue
        texts = cells.astype("str")
        texts = texts.str.split(LIST_SEPARATOR).explode() if name == "tags" else texts
        counts = texts[texts != ""].value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable")
        if len(counts):
            values = [str(value) for value in counts.index[:MAX_VALUES]]
            columns.append({"name": str(name), "kind": "text", "values": values, "n_values": len(counts)})
    return columns
