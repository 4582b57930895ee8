"""Catalog dataset for search indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmnet_pipeline.datasets.mirrored_folder import OptionalFolderDataset

if TYPE_CHECKING:
    from pathlib import Path

    from vmnet_pipeline.search.vector_index import VectorIndex


class VectorIndexDataset(OptionalFolderDataset["VectorIndex", "VectorIndex"]):
    """A search index; saving adds a version and makes it the current one in one step.

    Example for the catalog:

        "{variant}.music_index":
          type: vmnet_pipeline.datasets.VectorIndexDataset
          filepath: data/07_model_output/demo/{variant}/music_index
    """

    def _read(self, folder: Path) -> VectorIndex:
        from vmnet_pipeline.search.index_files import load_index

        return load_index(folder)

    def save(self, data: VectorIndex) -> None:
        """Write a new version; readers see the old one or the new one."""
        from vmnet_pipeline.search.index_files import save_index

        mirror = self._mirror()
        save_index(mirror.pull(), data)
        mirror.push()

    def _last_file(self) -> str:
        from vmnet_pipeline.search.index_files import POINTER

        return POINTER
