"""The features of one side, as nodes take them from the catalog: the stores of its backends, and what made them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from vmnet_pipeline.types import MODALITY_OF

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmnet_pipeline.backends.base import FeatureBackend
    from vmnet_pipeline.backends.joint import JointBackend
    from vmnet_pipeline.features.joint import JointStore
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.types import Side


class SideFeatures(NamedTuple):
    """The features of one side; several backends and their stores are joined to one."""

    backend: FeatureBackend | JointBackend
    store: FeatureStore | JointStore


def take_side(side: Side, features: Sequence[Any]) -> SideFeatures:
    """Pick the features of one side.

    Args:
        features: Stores of backends of any side, each followed by the parameters of its backend.
    """
    from vmnet_pipeline.backends.joint import join_backends
    from vmnet_pipeline.backends.registry import make_backend
    from vmnet_pipeline.features.joint import join_stores

    pairs = zip(features[::2], features[1::2], strict=True)
    own = [(store, params) for store, params in pairs if make_backend(params).modality == MODALITY_OF[side]]
    stores = {cast("str", params["backend"]): store for store, params in own}
    return SideFeatures(join_backends([params for _, params in own]), join_stores(stores))
