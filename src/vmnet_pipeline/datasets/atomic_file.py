"""Datasets of kedro_datasets whose files appear whole.

A kill during saving would leave half a file, which exists, and which `--only-missing-outputs` takes for finished.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from vmnet_pipeline.storage.atomic import replace_atomically

PACKAGES = {
    "CSVDataset": "pandas",
    "JSONDataset": "json",
    "MatplotlibDataset": "matplotlib",
    "ParquetDataset": "pandas",
    "TextDataset": "text",
}
"""Dataset to its package in kedro_datasets."""


class AtomicFile:
    """Mixin for a dataset of one file: save to a temporary file, then replace.

    In an object store files appear whole anyway.
    """

    _filepath: PurePosixPath
    _protocol: str

    def save(self, data: Any) -> None:
        """Write the file; readers see the old one or the new one."""
        if self._protocol != "file":
            super().save(data)  # type: ignore[misc]
            return
        place = self._filepath
        with replace_atomically(Path(place)) as temporary:
            self._filepath = PurePosixPath(temporary)
            try:
                super().save(data)  # type: ignore[misc]
            finally:
                self._filepath = place


@cache
def __getattr__(name: str) -> Any:
    """Make a dataset on first use: importing all five packages takes a second, and a run needs few of them."""
    if name not in PACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    base = getattr(import_module(f"kedro_datasets.{PACKAGES[name]}"), name)
    text = f"`kedro_datasets.{PACKAGES[name]}.{name}` whose file appears whole."
    return type(name, (AtomicFile, base), {"__doc__": text, "__module__": __name__})
