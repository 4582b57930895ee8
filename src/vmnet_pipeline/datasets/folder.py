"""Catalog dataset for a folder in which a long step keeps its state."""

from __future__ import annotations

from pathlib import Path

from vmnet_pipeline.datasets.base import LoadOnly, PathDataset


class FolderDataset(LoadOnly, PathDataset[None, Path]):
    """A folder, created on loading; the step that uses it manages its files.

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
        """The folder, created if needed."""
        self._filepath.mkdir(parents=True, exist_ok=True)
        return self._filepath
