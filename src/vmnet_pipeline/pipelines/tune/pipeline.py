"""Packed pairs to the settings that are best on the val subset, in the namespace of the pair of backends.

pairs ──search_settings──► tuning, tuning_trials, best_settings
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kedro.pipeline import Pipeline, node

from vmnet_pipeline.pipelines.train.pipeline import with_packing
from vmnet_pipeline.pipelines.tune.nodes import search_settings

if TYPE_CHECKING:
    from vmnet_pipeline.params import VariantParams


def create_pipeline(variant: str, backends: VariantParams | None = None) -> Pipeline:
    """The `tune` pipeline of a variant; see `with_packing` for `backends`."""
    inputs = ["pairs", "tuning_state", "params:train", "params:tune"]
    search = node(search_settings, inputs, ["tuning", "tuning_trials", "best_settings"], name="search_settings")
    tuning = Pipeline([search], namespace=variant, parameters={"params:train", "params:tune"})
    return with_packing(tuning, variant, backends)
