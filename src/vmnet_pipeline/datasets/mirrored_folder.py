"""Base classes of datasets that are memory-mapped folders."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from vmnet_pipeline.datasets.base import PathDataset
from vmnet_pipeline.errors import SearchIndexError
from vmnet_pipeline.storage.mirror import Mirror
from vmnet_pipeline.storage.paths import DEFAULT_CACHE_DIR

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

_Saved = TypeVar("_Saved")
_Loaded = TypeVar("_Loaded")


class MirroredFolderDataset(PathDataset[_Saved, _Loaded]):
    """A folder that is used through its local copy."""

    @abstractmethod
    def _last_file(self) -> str:
        """Name of the file without which the folder counts as absent."""

    def _mirror(self) -> Mirror:
        return Mirror(self._filepath, self._cache_dir, self._last_file())

    def _exists(self) -> bool:
        return self._mirror().exists()


class OptionalFolderDataset(MirroredFolderDataset[_Saved, _Loaded | None]):
    """A folder that is rebuilt when missing or damaged; if `optional`, loading it then returns None."""

    def __init__(
        self,
        *,
        filepath: str,
        optional: bool = False,
        credentials: dict[str, Any] | None = None,
        cache_dir: str = DEFAULT_CACHE_DIR,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath, credentials=credentials, cache_dir=cache_dir, metadata=metadata)
        self._optional = optional

    def load(self) -> _Loaded | None:
        """The content, compared with its checksums; None for an optional folder that is missing or damaged.

        Raises:
            SearchIndexError: It is missing or damaged.
        """
        try:
            return self._read(self._mirror().pull())
        except SearchIndexError as error:
            if not self._optional:
                raise
            if self._exists():
                logger.warning("%s is rebuilt: %s", self._filepath.name, error)
            return None

    @abstractmethod
    def _read(self, folder: Path) -> _Loaded:
        """The content of the local copy."""
