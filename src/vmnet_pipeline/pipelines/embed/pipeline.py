"""Features of a whole collection to embeddings, in the namespace of the variant.

features (music) ──embed_music──► music_embeddings ──┐
checkpoint ──┤                                       ├──► index
features (video) ──embed_video──► video_embeddings ──┘

Unchanged items keep their embeddings. With the user's own files (`pairs_dir`) the packed pairs are embedded.
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.embed.nodes import embed_music_pairs, embed_side, embed_video_pairs
from vmnet_pipeline.pipelines.train.pipeline import Backends, map_features, map_params, with_packing

EMBED_PAIRS = {"music": embed_music_pairs, "video": embed_video_pairs}


def create_pipeline(variant: str, backends: Backends | None = None) -> Pipeline:
    """The `embed` pipeline of a variant; see `with_packing` for `backends`."""
    return _embed_pairs(variant) if backends is None else _embed_features(variant, backends)


def _embed_features(variant: str, backends: Backends) -> Pipeline:
    nodes = []
    for side in EMBED_PAIRS:
        stored = [f"{side}_features", f"stored_{side}_embeddings"]
        inputs = ["manifest", *stored, "checkpoint", f"params:{side}", "params:embed"]
        nodes.append(node(embed_side, inputs, f"{side}_embeddings", name=f"embed_{side}"))
    return Pipeline(
        nodes,
        namespace=variant,
        inputs={"manifest": "manifest", **map_features(backends)},
        parameters=map_params(backends, "params:embed"),
    )


def _embed_pairs(variant: str) -> Pipeline:
    nodes = [
        node(function, ["pairs", "checkpoint", "params:embed"], f"{side}_embeddings", name=f"embed_{side}")
        for side, function in EMBED_PAIRS.items()
    ]
    return with_packing(Pipeline(nodes, namespace=variant, parameters={"params:embed"}), variant, None)
