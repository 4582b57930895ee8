"""Features of both sides to a checkpoint, in the namespace of the variant.

features (music, video) ──┐
train_ids, val_ids, test_ids ──pack_pairs──► pairs ──train_network──► checkpoint, training_history

A variant `zero_shot` is not trained: parameters of the backends ──make_untrained──► checkpoint, training_history

The user's own feature files (`pairs_dir`) are packed instead: reference_files ──pack_reference_pairs──► pairs
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.train.nodes import make_untrained, pack_pairs, pack_reference_pairs, train_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kedro.pipeline.node import Node

    from vmnet_pipeline.params import VariantParams


ZERO_SHOT = "zero_shot"
"""How the name of a variant begins that is not trained."""


def list_features(backends: Sequence[str]) -> list[str]:
    """Inputs of a node that takes the features of backends: the store of each, and its parameters."""
    return [name for backend in backends for name in (f"{backend}.features", f"params:{backend}")]


def with_packing(rest: Pipeline, variant: str, backends: VariantParams | None) -> Pipeline:
    """Put the packing of the backends' features, or with None of the user's own feature files, before `rest`."""
    return (_pack_files(variant) if backends is None else _pack_features(variant, backends)) + rest


def _pack_features(variant: str, backends: VariantParams) -> Pipeline:
    shared = ["manifest", "train_ids", "val_ids", "test_ids", "params:train"]
    inputs = [*shared, *list_features(backends.backends)]
    packing = node(pack_pairs, inputs, "pairs", name="pack_pairs")
    return place_in_variant([packing], variant, inputs)


def place_in_variant(nodes: list[Node], variant: str, outside: Sequence[str]) -> Pipeline:
    """Put nodes into the namespace of a variant, except their inputs `outside`, datasets and parameters."""
    parameters = {name for name in outside if name.startswith("param")}
    return Pipeline(nodes, namespace=variant, inputs={*outside} - parameters, parameters=parameters)


def _pack_files(variant: str) -> Pipeline:
    inputs = ["reference_files", "params:split", "params:train"]
    packing = node(pack_reference_pairs, inputs, "pairs", name="pack_reference_pairs")
    return Pipeline([packing], namespace=variant, parameters={"params:split", "params:train"})


def create_pipeline(variant: str, backends: VariantParams | None = None) -> Pipeline:
    """The `train` pipeline of a variant; see `with_packing` for `backends`."""
    inputs, outputs = ["pairs", "training_state", "params:train"], ["checkpoint", "training_history"]
    if backends is not None and variant.startswith(ZERO_SHOT):
        params = [f"params:{backend}" for backend in backends.backends]
        return place_in_variant([node(make_untrained, params, outputs, name="make_untrained")], variant, params)
    training = node(train_network, inputs, outputs, name="train_network")
    return with_packing(Pipeline([training], namespace=variant, parameters={"params:train"}), variant, backends)
