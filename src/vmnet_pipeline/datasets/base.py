"""Base class and preview of the datasets of this project."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from kedro.io import AbstractDataset

from vmnet_pipeline.storage.paths import DEFAULT_CACHE_DIR, as_path

if TYPE_CHECKING:
    import pandas as pd

_Saved = TypeVar("_Saved")
_Loaded = TypeVar("_Loaded")


class PathDataset(AbstractDataset[_Saved, _Loaded]):
    """A dataset at one local path or URL of an object store."""

    def __init__(
        self,
        *,
        filepath: str,
        credentials: dict[str, Any] | None = None,
        cache_dir: str = DEFAULT_CACHE_DIR,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Set the place of the dataset.

        Args:
            filepath: File or folder.
            credentials: Options of the object store for this dataset alone; Kedro takes them from credentials.yml.
            cache_dir: Local folder for copies of remote files that are memory-mapped.
            metadata: Free data for plugins: `mlflow` (what is logged) and `kedro-viz` (layer).
        """
        self._filepath = as_path(filepath, credentials)
        self._cache_dir = cache_dir
        self.metadata = metadata

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}

    def _exists(self) -> bool:
        return self._filepath.exists()


class LoadOnly:
    """Mixin for a dataset that other code writes, or the user; not a dataset, as Kedro would wrap its constructor."""

    def save(self, data: None) -> None:
        """Raise `NotImplementedError`."""
        raise NotImplementedError(f"a {type(self).__name__} can only be loaded")


PREVIEW_ROWS = 10


def preview_rows(frame: pd.DataFrame) -> dict[str, Any]:
    """A short table for Kedro-Viz: `index`, `columns` and `data`; missing values are None."""
    table: dict[str, Any] = json.loads(frame.to_json(orient="split"))
    return table
