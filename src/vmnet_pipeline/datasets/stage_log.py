"""Catalog dataset for time and memory of the nodes of a collection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmnet_pipeline.datasets.base import LoadOnly, PathDataset

if TYPE_CHECKING:
    from pathlib import Path


class StageLogDataset(LoadOnly, PathDataset[None, list[dict[str, Any]]]):
    """Time and memory of every node that ran on a collection; hooks write it.

    Example for the catalog:

        stage_log:
          type: vmnet_pipeline.datasets.StageLogDataset
          filepath: data/08_reporting/demo/stages

    Example in Python:

        >>> import tempfile
        >>> StageLogDataset(filepath=tempfile.mkdtemp()).load()
        []
    """

    @property
    def folder(self) -> Path:
        """Folder of the records."""
        return self._filepath

    def load(self) -> list[dict[str, Any]]:
        """One row per node, see `tracking.stages.Stage`; none before the first run."""
        from vmnet_pipeline.tracking.stages import read_stages

        return read_stages(self._filepath)
