"""What the datasets of this project share: one local path, described and checked in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from kedro.io import AbstractDataset

_Saved = TypeVar("_Saved")
_Loaded = TypeVar("_Loaded")


class LocalPathDataset(AbstractDataset[_Saved, _Loaded]):
    """A dataset at one local path; `_exists` is true when something is there."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """Describe the dataset.

        Args:
            filepath: Local file or folder.
            metadata: Free data for plugins: `mlflow` (what is logged) and `kedro-viz` (layer).
        """
        self._filepath = Path(filepath)
        self.metadata = metadata

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}

    def _exists(self) -> bool:
        return self._filepath.exists()
