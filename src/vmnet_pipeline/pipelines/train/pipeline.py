"""Features of both sides to a checkpoint, in the namespace of the variant.

features (music, video) ──┐
train_ids, val_ids, test_ids ──pack_pairs──► pairs ──train_network──► checkpoint, training_history

With files of one's own (`pairs_dir`) the packing is another one: reference_files ──pack_reference_pairs──► pairs
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.train.nodes import pack_pairs, pack_reference_pairs, train_network


def create_packing(variant: str, music_backend: str, video_backend: str) -> Pipeline:
    """The step that training and evaluation share."""
    shared = ["manifest", "train_ids", "val_ids", "test_ids"]
    settings = ["params:music", "params:video", "params:train"]
    return Pipeline(
        [
            node(
                pack_pairs,
                ["manifest", "music_features", "video_features", *shared[1:], *settings],
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
        parameters={
            "params:music": f"params:{music_backend}",
            "params:video": f"params:{video_backend}",
            "params:train": "params:train",
        },
    )


def create_reference_packing(variant: str) -> Pipeline:
    """The same step for feature files of one's own."""
    packing = node(
        pack_reference_pairs,
        ["reference_files", "params:split", "params:train"],
        "pairs",
        name="pack_reference_pairs",
    )
    return Pipeline([packing], namespace=variant, parameters={"params:split", "params:train"})


def create_training(variant: str) -> Pipeline:
    """Packed pairs to a checkpoint."""
    training = node(
        train_network,
        ["pairs", "training_state", "params:train"],
        ["checkpoint", "training_history"],
        name="train_network",
    )
    return Pipeline([training], namespace=variant, parameters={"params:train"})


def create_pipeline(variant: str, music_backend: str, video_backend: str) -> Pipeline:
    """The `train` pipeline of a variant.

    Args:
        variant: Name of the variant, the namespace of its datasets.
        music_backend: Backend of the music features.
        video_backend: Backend of the video features.
    """
    return create_packing(variant, music_backend, video_backend) + create_training(variant)


def create_reference_pipeline(variant: str) -> Pipeline:
    """The `train` pipeline on feature files of one's own."""
    return create_reference_packing(variant) + create_training(variant)
