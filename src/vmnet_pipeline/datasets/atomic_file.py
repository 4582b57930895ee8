"""What datasets of kedro_datasets lack here: files that appear whole.

A kill while one is written would leave half a file, which exists, and which `--only-missing-outputs` takes for done.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from kedro_datasets.json import JSONDataset as _JSONDataset
from kedro_datasets.matplotlib import MatplotlibDataset as _MatplotlibDataset
from kedro_datasets.pandas import CSVDataset as _CSVDataset
from kedro_datasets.pandas import ParquetDataset as _ParquetDataset
from kedro_datasets.text import TextDataset as _TextDataset

from vmnet_pipeline.storage.atomic import replace_atomically


class WholeFile:
    """To be put before a dataset class of one file: saving writes beside the file, then takes its place.

    In an object store files appear whole anyway.
    """

    _filepath: PurePosixPath
    _protocol: str

    def save(self, data: Any) -> None:
        """Write the file; readers see the old one or the new one."""
        if self._protocol != "file":
            super().save(data)  # type: ignore[misc]
            return
        place = self._filepath
        with replace_atomically(Path(place)) as temporary:
            self._filepath = PurePosixPath(temporary)
            try:
                super().save(data)  # type: ignore[misc]
            finally:
                self._filepath = place


class CSVDataset(WholeFile, _CSVDataset):  # type: ignore[misc]  # kedro_datasets has no types
    """A csv file that appears whole; all else is as in kedro_datasets."""


class JSONDataset(WholeFile, _JSONDataset):  # type: ignore[misc]  # kedro_datasets has no types
    """A JSON file that appears whole; all else is as in kedro_datasets."""


class ParquetDataset(WholeFile, _ParquetDataset):  # type: ignore[misc]  # kedro_datasets has no types
    """A Parquet file that appears whole; all else is as in kedro_datasets."""


class MatplotlibDataset(WholeFile, _MatplotlibDataset):  # type: ignore[misc]  # kedro_datasets has no types
    """A picture of a figure that appears whole; all else is as in kedro_datasets."""


class TextDataset(WholeFile, _TextDataset):  # type: ignore[misc]  # kedro_datasets has no types
    """A text file that appears whole; all else is as in kedro_datasets."""
