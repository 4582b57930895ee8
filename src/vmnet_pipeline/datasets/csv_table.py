"""Catalog dataset for tables in csv files."""

from __future__ import annotations

from kedro_datasets.pandas import CSVDataset as _CSVDataset

from vmnet_pipeline.datasets.whole_file import WholeFile


class CSVDataset(WholeFile, _CSVDataset):  # type: ignore[misc]  # kedro_datasets has no types
    """A csv file that appears whole; all else is as in kedro_datasets."""
