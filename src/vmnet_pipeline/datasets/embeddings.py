"""Catalog dataset for the embeddings of a collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmnet_pipeline.datasets.mirrored_folder import MirroredFolderDataset

if TYPE_CHECKING:
    from vmnet_pipeline.search.embeddings import EmbeddingSet, PlannedEmbeddings


class EmbeddingsDataset(MirroredFolderDataset["PlannedEmbeddings", "EmbeddingSet | None"]):
    """Embeddings of one side in memory-mapped files; saving makes them, chunk by chunk.

    Example for the catalog:

        "{variant}.music_embeddings":
          type: vmnet_pipeline.datasets.EmbeddingsDataset
          filepath: data/07_model_output/demo/{variant}/music_embeddings
    """

    def load(self) -> EmbeddingSet | None:
        """The embeddings; the vectors stay on disk until they are used.

        Raises:
            SearchIndexError: There are none, or they are damaged.
        """
        from vmnet_pipeline.errors import SearchIndexError
        from vmnet_pipeline.search.embeddings import read_embeddings

        try:
            return read_embeddings(self._mirror().pull())
        except SearchIndexError:
            if self._optional:
                return None
            raise

    def save(self, data: PlannedEmbeddings) -> None:
        """Make the embeddings; the folder appears whole or not at all."""
        from vmnet_pipeline.search.embeddings import write_embeddings

        mirror = self._mirror()
        write_embeddings(mirror.local, data)
        mirror.push()

    def _last_file(self) -> str:
        from vmnet_pipeline.search.embeddings import CONTENTS

        return CONTENTS
