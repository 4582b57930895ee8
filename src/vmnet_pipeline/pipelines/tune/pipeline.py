"""Packed pairs to the settings that are best on the val side, in the namespace of the pair of backends.

pairs ──search_settings──► tuning, tuning_trials, best_settings
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.train.pipeline import create_packing, create_reference_packing
from vmnet_pipeline.pipelines.tune.nodes import search_settings


def create_search(variant: str) -> Pipeline:
    """Packed pairs to the search."""
    search = node(
        search_settings,
        ["pairs", "tuning_state", "params:train", "params:tune"],
        ["tuning", "tuning_trials", "best_settings"],
        name="search_settings",
    )
    return Pipeline([search], namespace=variant, parameters={"params:train", "params:tune"})


def create_pipeline(variant: str, music_backend: str, video_backend: str) -> Pipeline:
    """The `tune` pipeline of a variant.

    Args:
        variant: Name of the variant, the namespace of its datasets.
        music_backend: Backend of the music features.
        video_backend: Backend of the video features.
    """
    return create_packing(variant, music_backend, video_backend) + create_search(variant)


def create_reference_pipeline(variant: str) -> Pipeline:
    """The `tune` pipeline on your own feature files."""
    return create_reference_packing(variant) + create_search(variant)
