"""Catalog dataset for checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmnet_pipeline.datasets.base import PathDataset

if TYPE_CHECKING:
    from vmnet_pipeline.models.checkpoints import Checkpoint


class CheckpointDataset(PathDataset["Checkpoint", "Checkpoint"]):
    """A trained network: `model.safetensors` and `config.json` in one folder.

    Example for the catalog:

        "{variant}.checkpoint":
          type: vmnet_pipeline.datasets.CheckpointDataset
          filepath: data/06_models/demo/{variant}/checkpoint
    """

    def load(self) -> Checkpoint:
        """The checkpoint, checked.

        Raises:
            CheckpointError: It is missing or damaged.
        """
        from vmnet_pipeline.inference.starter import read_checkpoint

        return read_checkpoint(self._filepath)

    def save(self, data: Checkpoint) -> None:
        """Write both files; each appears whole."""
        from vmnet_pipeline.models.checkpoints import save_checkpoint

        save_checkpoint(self._filepath, data)

    def _exists(self) -> bool:
        return (self._filepath / "config.json").exists()
