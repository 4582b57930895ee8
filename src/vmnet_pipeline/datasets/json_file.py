"""Catalog dataset for JSON files."""

from __future__ import annotations

from kedro_datasets.json import JSONDataset as _JSONDataset

from vmnet_pipeline.datasets.whole_file import WholeFile


class JSONDataset(WholeFile, _JSONDataset):  # type: ignore[misc]  # kedro_datasets has no types
    """A JSON file that appears whole; all else is as in kedro_datasets."""
