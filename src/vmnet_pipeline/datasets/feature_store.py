"""Catalog dataset over a feature store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmnet_pipeline.datasets.base import PREVIEW_ROWS, PathDataset, preview_rows
from vmnet_pipeline.features.store import FeatureChunk, FeatureStore

if TYPE_CHECKING:
    from kedro_datasets._typing import TablePreview


class FeatureStoreDataset(PathDataset[FeatureChunk, FeatureStore]):
    """A folder of `ID.npy` files with an index. Saving adds a chunk; loading gives a lazy handle.

    It exists only with its completion marker, which confirming writes: a half-filled store never counts as finished.

    Example for the catalog:

        "{backend}.features":
          type: vmnet_pipeline.datasets.FeatureStoreDataset
          filepath: data/04_feature/demo/{backend}

    Example in Python:

        >>> import tempfile
        >>> import numpy as np
        >>> from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow
        >>> from vmnet_pipeline.types import Fingerprint
        >>> dataset = FeatureStoreDataset(filepath=tempfile.mkdtemp())
        >>> result = FeatureResult(FeatureRow("007", "done", "sha256:00"), np.zeros((2, 3), np.float32))
        >>> dataset.save(FeatureChunk(Fingerprint("toy"), (result,)))
        >>> dataset.load().load("007").shape, dataset.exists()
        ((2, 3), False)
        >>> dataset.confirm()
        >>> dataset.exists()
        True
    """

    def load(self) -> FeatureStore:
        """A handle; empty for a missing folder."""
        return FeatureStore(self._filepath)

    def preview(self, nrows: int = PREVIEW_ROWS) -> TablePreview:
        """The first rows of the index, for Kedro-Viz."""
        names = ("id", "status", "shape", "dtype", "reason", "seconds")
        return preview_rows(self.load().rows.to_frame(*names).head(nrows))

    def save(self, data: FeatureChunk) -> None:
        """Add a chunk of features.

        Raises:
            FeatureStoreError: The store has another fingerprint, or cannot be written.
        """
        FeatureStore(self._filepath).write(data)

    def confirm(self) -> None:
        """Mark the store as complete: every planned item is done or failed.

        Raises:
            FeatureStoreError: Another run is writing here.
        """
        store = FeatureStore(self._filepath)
        with store.hold():
            store.compact()
            store.mark_complete()

    def _exists(self) -> bool:
        return FeatureStore(self._filepath).is_complete()
