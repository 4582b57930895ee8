"""Embeddings of whole collections and the index over them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vmnet_pipeline.params.base import Params, Share


class EmbedParams(Params):
    """How whole collections are embedded."""

    batch_size: int = Field(1024, ge=1, description="Items embedded together; changes memory, not results.")


IndexKind = Literal["flat", "hnsw", "ivfpq"]


class IndexParams(Params):
    """How the search index of a collection is built and searched."""

    kind: Literal["auto", "flat", "hnsw", "ivfpq"] = Field(
        "auto", description="`flat` is exact; `auto` takes it up to `flat_max_items`, then `hnsw`, then `ivfpq`."
    )
    flat_max_items: int = Field(100_000, ge=0, description="`auto`: largest collection that is searched exactly.")
    hnsw_max_items: int = Field(
        4_000_000, ge=0, description="`auto`: largest collection for `hnsw`, which keeps whole vectors in memory."
    )
    hnsw_links: int = Field(32, ge=4, le=128, description="HNSW: links per item and level.")
    hnsw_build_width: int = Field(80, ge=8, le=2000, description="HNSW: candidates examined when an item is added.")
    hnsw_search_width: int = Field(96, ge=1, le=10_000, description="HNSW: candidates examined in a search.")
    ivf_lists: int | None = Field(None, ge=1, description="IVF-PQ: clusters; null: 4 times the square root of items.")
    ivf_probes: int = Field(48, ge=1, description="IVF-PQ: clusters examined in a search.")
    pq_bytes: int = Field(64, ge=1, le=512, description="IVF-PQ: bytes kept per item; must divide the embedding.")
    max_removed_share: Share = Field(
        0.2, description="Removed items stay in the index, hidden; above this share of them it is rebuilt."
    )
    rebuild: bool = Field(False, description="Rebuild instead of adding and removing changed items.")
    n_tags: int = Field(3, ge=0, le=50, description="Tags per item, from stored musicnn features; 0: none.")
