"""Catalog dataset for search indexes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.datasets.place import PlaceDataset
from vmnet_pipeline.storage.mirror import Mirror
from vmnet_pipeline.storage.paths import DEFAULT_CACHE_DIR

if TYPE_CHECKING:
    from vmnet_pipeline.retrieval.index import VectorIndex

logger = logging.getLogger(__name__)


class VectorIndexDataset(PlaceDataset["VectorIndex", "VectorIndex | None"]):
    """A search index; saving adds a version and makes it the current one in one step.

    Example for the catalog:

        "{variant}.music_index":
          type: vmnet_pipeline.datasets.VectorIndexDataset
          filepath: data/07_model_output/demo/{variant}/music_index
    """

    def __init__(
        self,
        *,
        filepath: str,
        optional: bool = False,
        credentials: dict[str, Any] | None = None,
        cache_dir: str = DEFAULT_CACHE_DIR,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the dataset.

        Args:
            filepath: The folder.
            optional: Whether loading gives None, and no error, where there is none or a damaged one.
            credentials: Options of the object store of `filepath`.
            cache_dir: Local folder for copies of remote files.
            metadata: Free data for plugins.
        """
        super().__init__(filepath=filepath, credentials=credentials, cache_dir=cache_dir, metadata=metadata)
        self._optional = optional

    def load(self) -> VectorIndex | None:
        """The current version, compared with its checksums.

        Raises:
            SearchIndexError: There is none, or a file is damaged.
        """
        from vmnet_pipeline.errors import SearchIndexError
        from vmnet_pipeline.retrieval.index_files import load_index

        try:
            return load_index(self._mirror().pull())
        except SearchIndexError as error:
            if not self._optional:
                raise
            if self._exists():
                logger.warning("The search index is built anew: %s", error)
            return None

    def save(self, data: VectorIndex) -> None:
        """Write a new version; readers see the old one or the new one."""
        from vmnet_pipeline.retrieval.index_files import save_index

        mirror = self._mirror()
        save_index(mirror.pull(), data)
        mirror.push()

    def _exists(self) -> bool:
        return self._mirror().exists()

    def _mirror(self) -> Mirror:
        from vmnet_pipeline.retrieval.index_files import POINTER

        return Mirror(self._filepath, self._cache_dir, POINTER)
