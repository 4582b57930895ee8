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


def collect_music_words(
    manifest: DataFrame,
    musicnn_features: FeatureStore,
    musicnn_tags_features: FeatureStore,
    descriptors_audio_features: FeatureStore,
    musicnn_params: dict[str, Any],
    params: IndexParams,
) -> DataFrame:
    """Collect what words can ask for of the audio: all tags of musicnn, and descriptors, of whichever are stored.

    Raises:
        WeightsError: Tags are wanted and the weights that name them are not available.
    """
    stores = [musicnn_features, musicnn_tags_features, descriptors_audio_features]
    return _collect(manifest, stores, musicnn_params, params)


def collect_video_words(
    manifest: DataFrame,
    efficientnet_features: FeatureStore,
    descriptors_video_features: FeatureStore,
    efficientnet_params: dict[str, Any],
    params: IndexParams,
) -> DataFrame:
    """Collect what words can ask for of the frames: classes of ImageNet, and descriptors, of whichever are stored.

    Raises:
        WeightsError: The weights of the network that made the features are not available.
    """
    return _collect(manifest, [efficientnet_features, descriptors_video_features], efficientnet_params, params)


def _collect(
    manifest: DataFrame, stores: list[FeatureStore], backend_params: dict[str, Any], params: IndexParams
) -> DataFrame:
    from vmnet_pipeline.words.collecting import collect_qualities

    needs_weights, ids = params.n_tags > 0, manifest.loc[manifest["status"] == "ok", "id"].tolist()
    return collect_qualities(stores, ids, backend_params["weights_dir"], needs_weights=needs_weights)


def describe_collection(
    manifest: DataFrame, extra_columns: DataFrame, music_words: DataFrame, params: IndexParams
) -> DataFrame:
    """Collect the metadata of each item: title, group, licence, durations, the likeliest tags, the user's columns."""
    from vmnet_pipeline.search.item_metadata import describe_items
    from vmnet_pipeline.words.collecting import name_tags

    return describe_items(manifest, extra_columns, name_tags(music_words, params.n_tags))


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
