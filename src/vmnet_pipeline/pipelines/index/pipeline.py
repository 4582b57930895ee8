"""Embeddings to search indexes, one for music and one for video, in the namespace of the variant.

features of the audio ──collect_music_words──► music_words
features of the frames ──collect_video_words──► video_words
manifest, extra_columns, music_words ──describe_collection──► items ───────┐
music_embeddings, stored_music_index ──index_music──► music_index      ◄───┤
video_embeddings, stored_video_index ──index_video──► video_index      ◄───┤
checkpoint (what its scores mean) ─────────────────────────────────────────┘
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.index.nodes import (
    collect_music_words,
    collect_video_words,
    describe_collection,
    describe_pairs,
    index_music,
    index_video,
)

WORD_BACKENDS = {
    "music": ("musicnn", "musicnn_tags", "descriptors_audio"),
    "video": ("efficientnet", "descriptors_video"),
}
"""Backends whose features say what words can ask for, whatever backends the variant has."""

_NODES = {"music": index_music, "video": index_video}


def create_indexing(variant: str) -> Pipeline:
    """Build both indexes from embeddings and the item table."""
    nodes = []
    for side, function in _NODES.items():
        inputs = [f"{side}_embeddings", "items", f"stored_{side}_index", "checkpoint", "params:index"]
        nodes.append(node(function, inputs, f"{side}_index", name=f"index_{side}"))
    return Pipeline(nodes, namespace=variant, parameters={"params:index"})


def create_pipeline(variant: str) -> Pipeline:
    """The `index` pipeline of a variant, also on a library."""
    features = {side: [f"{backend}.features" for backend in own] for side, own in WORD_BACKENDS.items()}
    music = ["manifest", *features["music"], "params:musicnn", "params:index"]
    video = ["manifest", *features["video"], "params:efficientnet", "params:index"]
    describing = [
        node(collect_music_words, music, "music_words", name="collect_music_words"),
        node(collect_video_words, video, "video_words", name="collect_video_words"),
        node(
            describe_collection,
            ["manifest", "extra_columns", "music_words", "params:index"],
            "items",
            name="describe_collection",
        ),
    ]
    outside = {"manifest", "extra_columns", *features["music"], *features["video"]}
    params = {"params:musicnn", "params:efficientnet", "params:index"}
    return Pipeline(describing, namespace=variant, inputs=outside, parameters=params) + create_indexing(variant)


def create_reference_pipeline(variant: str) -> Pipeline:
    """The `index` pipeline on the user's own feature files."""
    describing = Pipeline([node(describe_pairs, "pairs", "items", name="describe_pairs")], namespace=variant)
    return describing + create_indexing(variant)
