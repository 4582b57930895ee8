"""Catalog dataset for pictures of figures."""

from __future__ import annotations

from kedro_datasets.matplotlib import MatplotlibDataset as _MatplotlibDataset

from vmnet_pipeline.datasets.whole_file import WholeFile


class MatplotlibDataset(WholeFile, _MatplotlibDataset):  # type: ignore[misc]  # kedro_datasets has no types
    """A picture of a figure that appears whole; all else is as in kedro_datasets."""
