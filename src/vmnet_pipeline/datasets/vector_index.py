"""Catalog dataset for search indexes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vmnet_pipeline.datasets.mirrored_folder import MirroredFolderDataset

if TYPE_CHECKING:
    from vmnet_pipeline.retrieval.index import VectorIndex

logger = logging.getLogger(__name__)


class VectorIndexDataset(MirroredFolderDataset["VectorIndex", "VectorIndex | None"]):
    """A search index; saving adds a version and makes it the current one in one step.

    Example for the catalog:

        "{variant}.music_index":
          type: vmnet_pipeline.datasets.VectorIndexDataset
          filepath: data/07_model_output/demo/{variant}/music_index
    """

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

    def _last_file(self) -> str:
        from vmnet_pipeline.retrieval.index_files import POINTER

        return POINTER
