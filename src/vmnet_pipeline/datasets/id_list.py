"""Catalog dataset for csv files with one column `id`."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from vmnet_pipeline.datasets.base import PREVIEW_ROWS, PathDataset, preview_rows
from vmnet_pipeline.ingestion.tables import read_ids
from vmnet_pipeline.storage.atomic import write_text_atomically

if TYPE_CHECKING:
    from kedro_datasets._typing import TablePreview


class IdListDataset(PathDataset[tuple[str, ...], tuple[str, ...]]):
    """Item ids in a csv file with the column `id`; ids are text, `007` stays `007`.

    Example for the catalog:

        train_ids:
          type: vmnet_pipeline.datasets.IdListDataset
          filepath: data/05_model_input/demo/train.csv

    Example in Python:

        >>> import tempfile
        >>> dataset = IdListDataset(filepath=tempfile.mkdtemp() + "/train.csv")
        >>> dataset.save(("007", "a"))
        >>> dataset.load()
        ('007', 'a')
    """

    def load(self) -> tuple[str, ...]:
        """The ids in the order of the file.

        Raises:
            IngestError: The file has no column `id`, or is not a csv file.
        """
        return read_ids(self._filepath)

    def preview(self, nrows: int = PREVIEW_ROWS) -> TablePreview:
        """The first ids, for Kedro-Viz."""
        import pandas as pd

        return preview_rows(pd.DataFrame({"id": self.load()[:nrows]})) if self.exists() else {}

    def save(self, data: tuple[str, ...]) -> None:
        """Write the ids, one per line below the header `id`."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerows([["id"], *([item_id] for item_id in data)])
        write_text_atomically(self._filepath, buffer.getvalue())
