"""Catalog dataset for the results of a collection other than one evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmnet_pipeline.datasets.base import LoadOnly, PathDataset
from vmnet_pipeline.storage.checksummed import parse_json

if TYPE_CHECKING:
    from pathlib import Path


class MeasuredResultsDataset(LoadOnly, PathDataset[None, dict[str, Any]]):
    """Evaluations of other variants and the comparison of this one, if the folder has them, one folder per variant.

    Example for the catalog:

        "{variant}.measured_results":
          type: vmnet_pipeline.datasets.MeasuredResultsDataset
          filepath: data/08_reporting/demo
          variant: "{variant}"

    Example in Python:

        >>> import tempfile
        >>> MeasuredResultsDataset(filepath=tempfile.mkdtemp(), variant="vmnet_musicnn").load()
        {'variant': 'vmnet_musicnn', 'comparison': None, 'variants': {}}
    """

    def __init__(
        self,
        *,
        filepath: str,
        variant: str = "",
        credentials: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath, credentials=credentials, metadata=metadata)
        self._variant = variant

    def load(self) -> dict[str, Any]:
        """The name of the `variant`; its `comparison`, or None; of other `variants` `evaluation` and `query_ranks`."""
        folders = sorted(self._filepath.iterdir()) if self._filepath.is_dir() else []
        others = {folder.name: folder for folder in folders if folder.name != self._variant}
        found = {name: _read_variant(folder) for name, folder in others.items()}
        variants = {name: results for name, results in found.items() if results is not None}
        comparison = _read_json(self._filepath / self._variant / "comparison.json")
        return {"variant": self._variant, "comparison": comparison, "variants": variants}


def _read_variant(folder: Path) -> dict[str, Any] | None:
    import pandas as pd

    evaluation, ranks = _read_json(folder / "evaluation.json"), folder / "query_ranks.parquet"
    if evaluation is None or not ranks.is_file():
        return None
    with ranks.open("rb") as file:
        return {"evaluation": evaluation, "query_ranks": pd.read_parquet(file)}


def _read_json(path: Path) -> dict[str, Any] | None:
    """The content of a file; None when it is missing or damaged."""
    try:
        content: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content
