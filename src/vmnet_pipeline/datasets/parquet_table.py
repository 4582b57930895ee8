"""Catalog dataset for tables in Parquet files."""

from __future__ import annotations

from kedro_datasets.pandas import ParquetDataset as _ParquetDataset

from vmnet_pipeline.datasets.whole_file import WholeFile


class ParquetDataset(WholeFile, _ParquetDataset):  # type: ignore[misc]  # kedro_datasets has no types
    """A Parquet file that appears whole; all else is as in kedro_datasets."""
