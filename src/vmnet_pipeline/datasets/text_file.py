"""Catalog dataset for text files."""

from __future__ import annotations

from kedro_datasets.text import TextDataset as _TextDataset

from vmnet_pipeline.datasets.whole_file import WholeFile


class TextDataset(WholeFile, _TextDataset):  # type: ignore[misc]  # kedro_datasets has no types
    """A text file that appears whole; all else is as in kedro_datasets."""
