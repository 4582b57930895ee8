"""Catalog dataset for item metadata in the user's own csv file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmnet_pipeline.datasets.base import LoadOnly, PathDataset

if TYPE_CHECKING:
    import pandas as pd


class ExtraColumnsDataset(LoadOnly, PathDataset[None, "pd.DataFrame"]):
    r"""Columns of a csv file with a column `id`, e.g. `title` and `licence`; those of paths are skipped.

    Given a media folder it is the media.csv in it; without one the table is empty.

    Example for the catalog:

        extra_columns:
          type: vmnet_pipeline.datasets.ExtraColumnsDataset
          filepath: data/01_raw/demo

    Example in Python:

        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "media.csv").write_text("id,video,title\n007,a.mp4,Dawn\n")
        >>> ExtraColumnsDataset(filepath=str(folder)).load().to_dict("records")
        [{'id': '007', 'title': 'Dawn'}]
    """

    def load(self) -> pd.DataFrame:
        """One row per id, all text.

        Raises:
            IngestError: The file is not a csv file, or has no column `id`.
        """
        from vmnet_pipeline.search.item_metadata import read_extra_columns

        return read_extra_columns(self._filepath.expanduser())
