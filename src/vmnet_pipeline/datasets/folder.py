"""Catalog dataset that is just a place: a folder that a long step keeps its state in."""

from __future__ import annotations

from pathlib import Path

from vmnet_pipeline.datasets.base import PlaceDataset


class FolderDataset(PlaceDataset[None, Path]):
    """A folder, made on loading; its files are the business of the step that uses it.

    Example for the catalog:

        training_state:
          type: vmnet_pipeline.datasets.FolderDataset
          filepath: data/06_models/demo/training_state

    Example in Python:

        >>> import tempfile
        >>> FolderDataset(filepath=tempfile.mkdtemp() + "/state").load().is_dir()
        True
    """

    def load(self) -> Path:
        """The folder, made if need be."""
        self._filepath.mkdir(parents=True, exist_ok=True)
        return self._filepath

    def save(self, data: None) -> None:
        """Not possible: a folder is filled by the step that loads it."""
        raise NotImplementedError("a FolderDataset can only be loaded")
