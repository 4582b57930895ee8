"""Features of both sides to a checkpoint, in the namespace of the variant.

features (music, video) ──┐
train_ids, val_ids, test_ids ──pack_pairs──► pairs ──train_network──► checkpoint, training_history

The user's own feature files (`pairs_dir`) are packed instead: reference_files ──pack_reference_pairs──► pairs
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.train.nodes import pack_pairs, pack_reference_pairs, train_network
from vmnet_pipeline.types import SIDES

Backends = tuple[str, str]  # names of the music and the video backend


def map_features(backends: Backends) -> dict[str, str]:
    """Inputs `music_features` and `video_features` to the features of the backends."""
    return {f"{side}_features": f"{backend}.features" for side, backend in zip(SIDES, backends, strict=True)}


def map_params(backends: Backends, *others: str) -> dict[str, str]:
    """Parameters `params:music` and `params:video` to those of the backends, and `others` to themselves."""
    own = {f"params:{side}": f"params:{backend}" for side, backend in zip(SIDES, backends, strict=True)}
    return {**own, **{name: name for name in others}}


def with_packing(rest: Pipeline, variant: str, backends: Backends | None) -> Pipeline:
    """Put the packing of the backends' features, or with None of the user's own feature files, before `rest`."""
    return (_pack_files(variant) if backends is None else _pack_features(variant, backends)) + rest


def _pack_features(variant: str, backends: Backends) -> Pipeline:
    ids = ["train_ids", "val_ids", "test_ids"]
    inputs = ["manifest", *map_features(backends), *ids, *map_params(backends, "params:train")]
    outside = {**map_features(backends), **{name: name for name in ("manifest", *ids)}}
    packing = node(pack_pairs, inputs, "pairs", name="pack_pairs")
    return Pipeline([packing], namespace=variant, inputs=outside, parameters=map_params(backends, "params:train"))


def _pack_files(variant: str) -> Pipeline:
    inputs = ["reference_files", "params:split", "params:train"]
    packing = node(pack_reference_pairs, inputs, "pairs", name="pack_reference_pairs")
    return Pipeline([packing], namespace=variant, parameters={"params:split", "params:train"})


def create_pipeline(variant: str, backends: Backends | None = None) -> Pipeline:
    """The `train` pipeline of a variant; see `with_packing` for `backends`."""
    inputs, outputs = ["pairs", "training_state", "params:train"], ["checkpoint", "training_history"]
    training = node(train_network, inputs, outputs, name="train_network")
    return with_packing(Pipeline([training], namespace=variant, parameters={"params:train"}), variant, backends)
