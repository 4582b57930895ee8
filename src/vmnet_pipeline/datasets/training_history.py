"""Catalog dataset for the history of a training; an imported checkpoint has none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.datasets.base import PREVIEW_ROWS, PathDataset, preview_rows
from vmnet_pipeline.errors import CheckpointError
from vmnet_pipeline.storage.atomic import write_text_atomically
from vmnet_pipeline.storage.checksummed import parse_json
from vmnet_pipeline.storage.paths import storage_errors

if TYPE_CHECKING:
    from kedro_datasets._typing import TablePreview


class TrainingHistoryDataset(PathDataset[list[dict[str, Any]], list[dict[str, Any]]]):
    """One row per epoch in a JSON file; a missing file is an empty history.

    Example for the catalog:

        "{variant}.training_history":
          type: vmnet_pipeline.datasets.TrainingHistoryDataset
          filepath: data/06_models/demo/{variant}/checkpoint/training_history.json

    Example in Python:

        >>> import tempfile
        >>> dataset = TrainingHistoryDataset(filepath=tempfile.mkdtemp() + "/training_history.json")
        >>> dataset.load()
        []
        >>> dataset.save([{"epoch": 1, "loss": 0.5}])
        >>> dataset.load()
        [{'epoch': 1, 'loss': 0.5}]
    """

    def load(self) -> list[dict[str, Any]]:
        """The rows; empty for a missing file.

        Raises:
            CheckpointError: The file is damaged.
        """
        try:
            rows: list[dict[str, Any]] = parse_json(self._filepath.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except storage_errors(ValueError) as error:
            raise CheckpointError(f"{self._filepath} is damaged ({error}). Remove it, or train again.") from error
        return rows

    def preview(self, nrows: int = PREVIEW_ROWS) -> TablePreview:
        """The last epochs, for Kedro-Viz."""
        import pandas as pd

        return preview_rows(pd.json_normalize(self.load()).tail(nrows))

    def save(self, data: list[dict[str, Any]]) -> None:
        """Write the rows; readers see the old file or the new one."""
        write_text_atomically(self._filepath, json.dumps(data, indent=2) + "\n")
