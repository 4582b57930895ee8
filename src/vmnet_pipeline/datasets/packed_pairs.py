"""Catalog dataset for packed pairs."""

from __future__ import annotations

from vmnet_pipeline.datasets.place import PlaceDataset
from vmnet_pipeline.features.pairs import CONTENT_FILE, PairSet, UnpackedPairs, read_pairs, write_pairs
from vmnet_pipeline.storage.mirror import Mirror


class PackedPairsDataset(PlaceDataset[UnpackedPairs, PairSet]):
    """Features of both sides, pooled or as sequences, memory-mapped; saving streams, loading reads no array.

    Example for the catalog:

        pairs:
          type: vmnet_pipeline.datasets.PackedPairsDataset
          filepath: data/05_model_input/demo/pairs
    """

    def load(self) -> PairSet:
        """Packed pairs with memory-mapped arrays.

        Raises:
            PairsError: The folder is missing or damaged.
        """
        return read_pairs(self._mirror().pull())

    def save(self, data: UnpackedPairs) -> None:
        """Pack, item by item; an old folder is replaced as a whole.

        Raises:
            PairsError: Features of one side differ in shape, or are not finite.
        """
        mirror = self._mirror()
        write_pairs(mirror.pull(), data)
        mirror.push()

    def _exists(self) -> bool:
        return self._mirror().exists()

    def _mirror(self) -> Mirror:
        return Mirror(self._filepath, self._cache_dir, CONTENT_FILE)
