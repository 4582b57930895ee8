"""What the datasets of memory-mapped folders share."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar

from vmnet_pipeline.datasets.place import PlaceDataset
from vmnet_pipeline.storage.mirror import Mirror
from vmnet_pipeline.storage.paths import DEFAULT_CACHE_DIR

_Saved = TypeVar("_Saved")
_Loaded = TypeVar("_Loaded")


class MirroredFolderDataset(PlaceDataset[_Saved, _Loaded]):
    """A folder that is used in its local copy, and that there need not be."""

    def __init__(
        self,
        *,
        filepath: str,
        optional: bool = False,
        credentials: dict[str, Any] | None = None,
        cache_dir: str = DEFAULT_CACHE_DIR,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the dataset.

        Args:
            filepath: The folder.
            optional: Whether loading gives None, and no error, where there is nothing or something damaged.
            credentials: Options of the object store of `filepath`.
            cache_dir: Local folder for copies of remote files.
            metadata: Free data for plugins.
        """
        super().__init__(filepath=filepath, credentials=credentials, cache_dir=cache_dir, metadata=metadata)
        self._optional = optional

    @abstractmethod
    def _last_file(self) -> str:
        """Name of the file without which the folder counts as absent."""

    def _mirror(self) -> Mirror:
        return Mirror(self._filepath, self._cache_dir, self._last_file())
