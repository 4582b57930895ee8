"""Catalog dataset for the embeddings of a collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmnet_pipeline.datasets.mirrored_folder import OptionalFolderDataset

if TYPE_CHECKING:
    from pathlib import Path

    from vmnet_pipeline.inference.embeddings import EmbeddingPlan, EmbeddingSet


class EmbeddingsDataset(OptionalFolderDataset["EmbeddingPlan", "EmbeddingSet"]):
    """Embeddings of one side; loading leaves the vectors on disk, saving makes them, chunk by chunk.

    Example for the catalog:

        "{variant}.music_embeddings":
          type: vmnet_pipeline.datasets.EmbeddingsDataset
          filepath: data/07_model_output/demo/{variant}/music_embeddings
    """

    def _read(self, folder: Path) -> EmbeddingSet:
        from vmnet_pipeline.inference.embeddings import read_embeddings

        return read_embeddings(folder)

    def save(self, data: EmbeddingPlan) -> None:
        """Make the embeddings; the folder appears whole or not at all."""
        from vmnet_pipeline.inference.embeddings import write_embeddings

        mirror = self._mirror()
        write_embeddings(mirror.local, data)
        mirror.push()

    def _last_file(self) -> str:
        from vmnet_pipeline.inference.embeddings import CONTENTS

        return CONTENTS
