"""Embeddings to search indexes, one for music and one for video, in the namespace of the variant.

manifest, extra_columns, musicnn features ──describe_collection──► items ──┐
music_embeddings, stored_music_index ──index_music──► music_index      ◄───┤
video_embeddings, stored_video_index ──index_video──► video_index      ◄───┤
checkpoint (what its scores mean) ─────────────────────────────────────────┘
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.index.nodes import (
    describe_collection,
    describe_library,
    describe_pairs,
    index_music,
    index_video,
)

_NODES = {"music": index_music, "video": index_video}


def create_indexing(variant: str) -> Pipeline:
    """Build both indexes from embeddings and the item table."""
    nodes = []
    for side, function in _NODES.items():
        inputs = [f"{side}_embeddings", "items", f"stored_{side}_index", "checkpoint", "params:index"]
        nodes.append(node(function, inputs, f"{side}_index", name=f"index_{side}"))
    return Pipeline(nodes, namespace=variant, parameters={"params:index"})


def create_pipeline(variant: str) -> Pipeline:
    """The `index` pipeline of a variant."""
    outside, params = ["manifest", "extra_columns", "musicnn.features"], ["params:musicnn", "params:index"]
    describing = node(describe_collection, [*outside, *params], "items", name="describe_collection")
    return Pipeline([describing], namespace=variant, inputs={*outside}, parameters={*params}) + create_indexing(variant)


def create_library_pipeline(variant: str) -> Pipeline:
    """The `index` pipeline of a library, which has no features but those of its network."""
    outside = ["manifest", "extra_columns"]
    describing = node(describe_library, outside, "items", name="describe_library")
    return Pipeline([describing], namespace=variant, inputs={*outside}) + create_indexing(variant)


def create_reference_pipeline(variant: str) -> Pipeline:
    """The `index` pipeline on the user's own feature files."""
    describing = Pipeline([node(describe_pairs, "pairs", "items", name="describe_pairs")], namespace=variant)
    return describing + create_indexing(variant)
