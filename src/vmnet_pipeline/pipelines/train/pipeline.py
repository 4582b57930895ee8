"""Features of both sides to a checkpoint, in the namespace of the variant.

features (music, video) ──┐
train_ids, val_ids, test_ids ──pack_pairs──► pairs ──train_network──► checkpoint, training_history

The user's own feature files (`pairs_dir`) are packed instead: reference_files ──pack_reference_pairs──► pairs
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.train.nodes import pack_pairs, pack_reference_pairs, train_network

Backends = tuple[str, str]  # names of the music and the video backend


def with_packing(rest: Pipeline, variant: str, backends: Backends | None) -> Pipeline:
    """A pipeline that takes packed pairs, preceded by the packing.

    Args:
        backends: Backends of the features to pack; None for the user's own feature files.
    """
    return (_pack_files(variant) if backends is None else _pack_features(variant, *backends)) + rest


def _pack_features(variant: str, music_backend: str, video_backend: str) -> Pipeline:
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


def _pack_files(variant: str) -> Pipeline:
    packing = node(
        pack_reference_pairs,
        ["reference_files", "params:split", "params:train"],
        "pairs",
        name="pack_reference_pairs",
    )
    return Pipeline([packing], namespace=variant, parameters={"params:split", "params:train"})


def create_pipeline(variant: str, backends: Backends | None = None) -> Pipeline:
    """The `train` pipeline of a variant; see `with_packing` for `backends`."""
    training = node(
        train_network,
        ["pairs", "training_state", "params:train"],
        ["checkpoint", "training_history"],
        name="train_network",
    )
    return with_packing(Pipeline([training], namespace=variant, parameters={"params:train"}), variant, backends)
