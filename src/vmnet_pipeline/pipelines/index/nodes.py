"""Nodes of the `index` pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmnet_pipeline.features.store import FeatureStore
from vmnet_pipeline.pairs.packing import PairFiles
from vmnet_pipeline.params import IndexParams

if TYPE_CHECKING:
    from pandas import DataFrame

    from vmnet_pipeline.inference.embeddings import EmbeddingSet
    from vmnet_pipeline.models.checkpoints import Checkpoint
    from vmnet_pipeline.search.vector_index import VectorIndex
else:  # Kedro evaluates annotations; these are slow to import
    Checkpoint = DataFrame = EmbeddingSet = VectorIndex = Any


def describe_collection(
    manifest: DataFrame,
    extra_columns: DataFrame,
    musicnn_features: FeatureStore,
    musicnn_params: dict[str, Any],
    params: IndexParams,
) -> DataFrame:
    """Collect the metadata of each item: title, group, licence, durations, tags, and the user's own columns.

    Tags come from the stored musicnn features, if those include the tags' layer.

    Raises:
        WeightsError: Tags are wanted and the weights that name them are not available.
    """
    from vmnet_pipeline.backends.musicnn_tags import make_tagger
    from vmnet_pipeline.search.item_metadata import collect_tags, describe_items

    tagger = make_tagger(musicnn_features.fingerprint(), musicnn_params["weights_dir"]) if params.n_tags else None
    tags = collect_tags(musicnn_features, manifest["id"].tolist(), tagger, params.n_tags)
    return describe_items(manifest, extra_columns, tags)


def describe_library(manifest: DataFrame, extra_columns: DataFrame) -> DataFrame:
    """Collect the metadata of the items of a library: title, group, licence, durations, and the user's own columns."""
    from vmnet_pipeline.search.item_metadata import describe_items

    return describe_items(manifest, extra_columns, {})


def describe_pairs(pairs: PairFiles) -> DataFrame:
    """Describe packed pairs: id and group."""
    import pandas as pd

    return pd.DataFrame({"id": pairs.ids, "title": pairs.ids, "group": pairs.groups}, dtype="str")


def index_music(
    music_embeddings: EmbeddingSet,
    items: DataFrame,
    stored_index: VectorIndex | None,
    checkpoint: Checkpoint,
    params: IndexParams,
) -> VectorIndex:
    """Update the music index from its embeddings: add, remove, or rebuild."""
    return _update(music_embeddings, items, stored_index, checkpoint, params, "music")


def index_video(
    video_embeddings: EmbeddingSet,
    items: DataFrame,
    stored_index: VectorIndex | None,
    checkpoint: Checkpoint,
    params: IndexParams,
) -> VectorIndex:
    """Update the video index from its embeddings: add, remove, or rebuild."""
    return _update(video_embeddings, items, stored_index, checkpoint, params, "video")


def _update(
    embeddings: EmbeddingSet,
    items: DataFrame,
    stored_index: VectorIndex | None,
    checkpoint: Checkpoint,
    params: IndexParams,
    side: str,
) -> VectorIndex:
    from vmnet_pipeline.models.checkpoints import digest_checkpoint
    from vmnet_pipeline.search.index_update import update_index
    from vmnet_pipeline.search.item_metadata import choose_side

    # The network may have been trained again since its embeddings were made.
    is_same = digest_checkpoint(checkpoint) == embeddings.checkpoint
    calibration = checkpoint.calibration if is_same else None
    return update_index(stored_index, embeddings, choose_side(items, side), params, calibration)
