"""Music for a video, and videos for a piece of music: a media file, a checkpoint and a search index to a ranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import SearchIndexError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vmnet_pipeline.features.forms import Side
    from vmnet_pipeline.retrieval.index import Hit, VectorIndex
    from vmnet_pipeline.search.embedder import Embedder

HIDDEN = ("id", "source")


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One answer.

    Attributes:
        rank: 1 is the best.
        id: Item id.
        score: Cosine similarity to the query, -1 to 1.
        metadata: What the index knows of the item: title, duration_s, group, licence, tags, ...; None where it does
            not.
    """

    rank: int
    id: str
    score: float
    metadata: dict[str, Any]


def recommend(
    embedder: Embedder,
    index: VectorIndex,
    path: str | Path,
    query: Side,
    *,
    top_k: int = 10,
    filters: Sequence[str] = (),
) -> list[Recommendation]:
    """The items of an index that fit a media file best.

    Args:
        embedder: The network that the index was made with.
        index: Of the music of a collection for a video, of its videos for music.
        path: The media file.
        query: Which side of the file counts: its pictures (`video`) or its sound (`music`).
        top_k: How many answers.
        filters: Conditions on the answers, e.g. `["group=jazz", "duration<60"]`.

    Raises:
        SearchIndexError: The index was made with another network, or a filter cannot be used.
        MediaError: The file cannot be used.
    """
    if index.about.get("checkpoint") != embedder.digest:
        raise SearchIndexError(
            "the index was made with another checkpoint than this one; make it again with "
            "`kedro run --pipelines=embed,index`, or pass the checkpoint that it was made with"
        )
    embedding = embedder.embed_video(path) if query == "video" else embedder.embed_music(path)
    hits = index.search(embedding, top_k, filters)[0]
    return [Recommendation(rank, hit.id, hit.score, _describe(index, hit)) for rank, hit in enumerate(hits, start=1)]


def _describe(index: VectorIndex, hit: Hit) -> dict[str, Any]:
    import pandas as pd

    row = index.items.iloc[hit.position]
    cells = {str(name): row[name] for name in index.items.columns if name not in HIDDEN}
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in cells.items()}
    return {name: None if pd.isna(value) else value for name, value in plain.items()}
