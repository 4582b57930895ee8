"""Catalog dataset for what the stages of a collection took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmnet_pipeline.datasets.base import PlaceDataset

if TYPE_CHECKING:
    from pathlib import Path


class StageLogDataset(PlaceDataset[None, list[dict[str, Any]]]):
    """Time and memory of every node that ever ran on a collection; the hooks of the project write it.

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
        """Where the records are."""
        return self._filepath

    def load(self) -> list[dict[str, Any]]:
        """One row per node, see `tracking.stages.Stage`; none before the first run."""
        from vmnet_pipeline.tracking.stages import read_stages

        return read_stages(self._filepath)

    def save(self, data: None) -> None:
        """Not possible: the hooks write it."""
        raise NotImplementedError("a StageLogDataset can only be loaded")
