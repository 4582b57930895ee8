"""Catalog dataset for packed pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmnet_pipeline.datasets.mirrored_folder import MirroredFolderDataset
from vmnet_pipeline.pairs.packing import CONTENT_FILE, PairFiles, PairPlan, read_pairs, write_pairs

if TYPE_CHECKING:
    from pathlib import Path


class PackedPairsDataset(MirroredFolderDataset[PairPlan, PairFiles]):
    """Features of both sides, pooled or as sequences, memory-mapped; saving streams, loading keeps nothing in memory.

    Example for the catalog:

        pairs:
          type: vmnet_pipeline.datasets.PackedPairsDataset
          filepath: data/05_model_input/demo/pairs
    """

    _verified: tuple[tuple[str, int, int], ...] = ()

    def load(self) -> PairFiles:
        """Packed pairs with memory-mapped arrays, which are compared with their checksums the first time.

        Raises:
            PairsError: The folder is missing or damaged.
        """
        folder = self._mirror().pull()
        state = _describe_state(folder)
        pairs = read_pairs(folder, verify=state != self._verified)
        self._verified = state
        return pairs

    def save(self, data: PairPlan) -> None:
        """Pack, item by item; an old folder is replaced as a whole.

        Raises:
            PairsError: Features of one side differ in shape, or are not finite.
        """
        mirror = self._mirror()
        write_pairs(mirror.pull(), data)
        mirror.push()

    def _last_file(self) -> str:
        return CONTENT_FILE


def _describe_state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and modification times of the files, so that only new content is verified."""
    if not folder.is_dir():
        return ()
    stats = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
