"""The feature stores of several backends read as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmnet_pipeline.errors import FeatureStoreError
from vmnet_pipeline.types import JOINT_SIGN, Fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from vmnet_pipeline.features.store import FeatureStore


class JointStore:
    """A view of several stores: it has the items that all of them have. Nothing is written.

    Attributes:
        stores: Backend to its store, in the order of the parts.
    """

    def __init__(self, stores: Mapping[str, FeatureStore]) -> None:
        self.stores = dict(stores)

    def __repr__(self) -> str:
        return f"JointStore({self.stores!r})"

    @property
    def folder(self) -> Path:
        """The folder of the first store, to name in messages."""
        return next(iter(self.stores.values())).folder

    def done_ids(self) -> list[str]:
        """Sorted ids of the items that every store has."""
        return sorted(set.intersection(*({*store.done_ids()} for store in self.stores.values())))

    def checksum_of(self, item_id: str) -> str | None:
        """Checksums of all features of an item; None where one of them is missing."""
        found = [store.checksum_of(item_id) for store in self.stores.values()]
        return None if None in found else JOINT_SIGN.join(map(str, found))

    def path_of(self, item_id: str) -> Path:
        """Path of an item's feature in the first store.

        Raises:
            FeatureStoreError: It has none.
        """
        return next(iter(self.stores.values())).path_of(item_id)

    def load(self, item_id: str) -> tuple[np.ndarray, ...]:
        """The features of one item, one float32 array per store.

        Raises:
            FeatureStoreError: A store has none, or its file is damaged or not finite.
            StorageError: The object store does not answer.
        """
        return tuple(_load_finite(store, item_id) for store in self.stores.values())

    def fingerprint(self) -> Fingerprint | None:
        """Identity of the joint features; None while a store is empty.

        Raises:
            FeatureStoreError: The fingerprint of a store is damaged.
        """
        found = [store.fingerprint() for store in self.stores.values()]
        known = [part for part in found if part is not None]
        return Fingerprint.join(known) if len(known) == len(found) else None

    def reload(self) -> None:
        """Read the indexes again on next use."""
        for store in self.stores.values():
            store.reload()


def join_stores(stores: Mapping[str, FeatureStore]) -> FeatureStore | JointStore:
    """The stores of the backends of one side: the store itself where there is one backend."""
    return next(iter(stores.values())) if len(stores) == 1 else JointStore(stores)


def _load_finite(store: FeatureStore, item_id: str) -> np.ndarray:
    import numpy as np

    feature = store.load(item_id)
    if not np.isfinite(feature).all():
        raise FeatureStoreError(f"{store.path_of(item_id)} has NaN or infinity. Extract it again or remove it.")
    return feature
