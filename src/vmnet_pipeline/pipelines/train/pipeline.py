"""Features of both sides to a checkpoint, in the namespace of the variant.

features (music, video) ──┐
train_ids, val_ids, test_ids ──pack_pairs──► pairs ──train_network──► checkpoint, training_history
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.train.nodes import pack_pairs, train_network


def create_packing(variant: str, music_backend: str, video_backend: str) -> Pipeline:
    """The step that training and evaluation share."""
    shared = ["manifest", "train_ids", "val_ids", "test_ids"]
    return Pipeline(
        [
            node(
                pack_pairs,
                ["manifest", "music_features", "video_features", *shared[1:], "params:music", "params:video"],
                "pairs",
                name="pack_pairs",
            )
        ],
        namespace=variant,
        inputs={
            **{name: name for name in shared},
            "music_features": f"{music_backend}.features",
            "video_features": f"{video_backend}.features",
        },
        parameters={"params:music": f"params:{music_backend}", "params:video": f"params:{video_backend}"},
    )


def create_pipeline(variant: str, music_backend: str, video_backend: str) -> Pipeline:
    """The `train` pipeline of a variant.

    Args:
        variant: Name of the variant, the namespace of its datasets.
        music_backend: Backend of the music features.
        video_backend: Backend of the video features.
    """
    training = node(
        train_network,
        ["pairs", "training_state", "params:train"],
        ["checkpoint", "training_history"],
        name="train_network",
    )
    packing = create_packing(variant, music_backend, video_backend)
    return packing + Pipeline([training], namespace=variant, parameters={"params:train"})
