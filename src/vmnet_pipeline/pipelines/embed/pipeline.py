"""Features of a whole collection to embeddings, in the namespace of the variant.

features (music) ──embed_music──► music_embeddings ──┐
checkpoint ──┤                                       ├──► index
features (video) ──embed_video──► video_embeddings ──┘

Unchanged items keep their embeddings. With the user's own files (`pairs_dir`) the packed pairs are embedded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.embed.nodes import embed_music, embed_music_pairs, embed_video, embed_video_pairs
from vmnet_pipeline.pipelines.train.pipeline import list_features, place_in_variant, with_packing

if TYPE_CHECKING:
    from vmnet_pipeline.params import VariantParams

EMBED_FEATURES = {"music": embed_music, "video": embed_video}
EMBED_PAIRS = {"music": embed_music_pairs, "video": embed_video_pairs}


def create_pipeline(variant: str, backends: VariantParams | None = None) -> Pipeline:
    """The `embed` pipeline of a variant; see `with_packing` for `backends`."""
    return _embed_pairs(variant) if backends is None else _embed_features(variant, backends)


def _embed_features(variant: str, backends: VariantParams) -> Pipeline:
    nodes = []
    for side, function in EMBED_FEATURES.items():
        own = ["manifest", f"stored_{side}_embeddings", "checkpoint", "params:embed"]
        inputs = [*own, *list_features(getattr(backends, side))]
        nodes.append(node(function, inputs, f"{side}_embeddings", name=f"embed_{side}"))
    return place_in_variant(nodes, variant, ["manifest", "params:embed", *list_features(backends.backends)])


def _embed_pairs(variant: str) -> Pipeline:
    nodes = [
        node(function, ["pairs", "checkpoint", "params:embed"], f"{side}_embeddings", name=f"embed_{side}")
        for side, function in EMBED_PAIRS.items()
    ]
    return with_packing(Pipeline(nodes, namespace=variant, parameters={"params:embed"}), variant, None)
