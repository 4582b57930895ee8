"""Catalog dataset for the embeddings of a collection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmnet_pipeline.datasets.place import PlaceDataset
from vmnet_pipeline.storage.mirror import Mirror
from vmnet_pipeline.storage.paths import DEFAULT_CACHE_DIR

if TYPE_CHECKING:
    from vmnet_pipeline.search.embeddings import EmbeddingSet, PlannedEmbeddings


class EmbeddingsDataset(PlaceDataset["PlannedEmbeddings", "EmbeddingSet | None"]):
    """Embeddings of one side in memory-mapped files; saving makes them, chunk by chunk.

    Example for the catalog:

        "{variant}.music_embeddings":
          type: vmnet_pipeline.datasets.EmbeddingsDataset
          filepath: data/07_model_output/demo/{variant}/music_embeddings
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
            optional: Whether loading gives None, and no error, where there are none or damaged ones.
            credentials: Options of the object store of `filepath`.
            cache_dir: Local folder for copies of remote files.
            metadata: Free data for plugins.
        """
        super().__init__(filepath=filepath, credentials=credentials, cache_dir=cache_dir, metadata=metadata)
        self._optional = optional

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

    def _mirror(self) -> Mirror:
        from vmnet_pipeline.search.embeddings import CONTENTS

        return Mirror(self._filepath, self._cache_dir, CONTENTS)
