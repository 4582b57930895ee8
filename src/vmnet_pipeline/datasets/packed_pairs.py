"""Catalog dataset for packed pairs."""

from __future__ import annotations

from vmnet_pipeline.datasets.local import LocalPathDataset
from vmnet_pipeline.pairs import CONTENT_FILE, PairSet, UnpackedPairs, read_pairs, write_pairs


class PackedPairsDataset(LocalPathDataset[UnpackedPairs, PairSet]):
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
        return read_pairs(self._filepath)

    def save(self, data: UnpackedPairs) -> None:
        """Pack, item by item; an old folder is replaced as a whole.

        Raises:
            PairsError: Features of one side differ in shape, or are not finite.
        """
        write_pairs(self._filepath, data)

    def _exists(self) -> bool:
        return (self._filepath / CONTENT_FILE).exists()
