"""Features of a whole collection to embeddings, in the namespace of the variant.

features (music) ──embed_music──► music_embeddings ──┐
checkpoint ──┤                                       ├──► index
features (video) ──embed_video──► video_embeddings ──┘

What was embedded before is taken over. With files of one's own (`pairs_dir`) the packed pairs are embedded.
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.embed.nodes import embed_music_pairs, embed_side, embed_video_pairs
from vmnet_pipeline.pipelines.train.pipeline import create_reference_packing

EMBED_PAIRS = {"music": embed_music_pairs, "video": embed_video_pairs}


def create_pipeline(variant: str, music_backend: str, video_backend: str) -> Pipeline:
    """The `embed` pipeline of a variant.

    Args:
        variant: Name of the variant, the namespace of its datasets.
        music_backend: Backend of the music features.
        video_backend: Backend of the video features.
    """
    nodes = [
        node(
            embed_side,
            [
                "manifest",
                f"{side}_features",
                f"stored_{side}_embeddings",
                "checkpoint",
                f"params:{side}",
                "params:embed",
            ],
            f"{side}_embeddings",
            name=f"embed_{side}",
        )
        for side in EMBED_PAIRS
    ]
    return Pipeline(
        nodes,
        namespace=variant,
        inputs={
            "manifest": "manifest",
            "music_features": f"{music_backend}.features",
            "video_features": f"{video_backend}.features",
        },
        parameters={
            "params:music": f"params:{music_backend}",
            "params:video": f"params:{video_backend}",
            "params:embed": "params:embed",
        },
    )


def create_reference_pipeline(variant: str) -> Pipeline:
    """The `embed` pipeline on feature files of one's own."""
    nodes = [
        node(function, ["pairs", "checkpoint", "params:embed"], f"{side}_embeddings", name=f"embed_{side}")
        for side, function in EMBED_PAIRS.items()
    ]
    embedding = Pipeline(nodes, namespace=variant, parameters={"params:embed"})
    return create_reference_packing(variant) + embedding
