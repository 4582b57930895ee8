"""Catalog dataset over feature files in the layout of the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from vmnet_pipeline.datasets.base import LoadOnly

if TYPE_CHECKING:
    from vmnet_pipeline.reference.layout import ReferenceLayout


class ReferenceFilesDataset(LoadOnly, AbstractDataset[None, "ReferenceLayout"]):
    """The user's own features and csv files; loading locates them and reads none.

    `pairs_dir` holds train.csv, test.csv, train/ and test/; the other places replace single parts of it. The variant
    (`vmnet_musicnn` or `vmnet_vggish`) decides how music features are pooled.

    Example for the catalog:

        "{variant}.reference_files":
          type: vmnet_pipeline.datasets.ReferenceFilesDataset
          variant: "{variant}"
          pairs_dir: ${runtime_params:pairs_dir, null}

    Example in Python:

        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "test.csv").write_text("id")
        >>> list(ReferenceFilesDataset(variant="vmnet_musicnn", pairs_dir=str(folder)).load().subsets)
        ['test']
    """

    def __init__(
        self,
        *,
        variant: str,
        pairs_dir: str | None = None,
        train_data_dir: str | None = None,
        train_csv_path: str | None = None,
        test_data_dir: str | None = None,
        test_csv_path: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._variant = variant
        self._places = {
            "pairs_dir": pairs_dir,
            "train_data_dir": train_data_dir,
            "train_csv_path": train_csv_path,
            "test_data_dir": test_data_dir,
            "test_csv_path": test_csv_path,
        }
        self.metadata = metadata
        self.test_only = False
        """Set for a run that evaluates and does not train: then only the test subset is packed."""

    def _describe(self) -> dict[str, Any]:
        return {name: str(place) for name, place in self._places.items() if place is not None}

    def load(self) -> ReferenceLayout:
        """Locate the files.

        Raises:
            ParameterError: A folder is given without its csv file, or the variant is unknown.
            PairsError: The folder is missing or empty.
        """
        from vmnet_pipeline.reference.layout import locate_subsets, make_layout

        return replace(make_layout(locate_subsets(**self._places), self._variant), test_only=self.test_only)

    def _exists(self) -> bool:
        from vmnet_pipeline.errors import VmnetError
        from vmnet_pipeline.reference.layout import locate_subsets

        try:
            return bool(locate_subsets(**self._places))
        except VmnetError:
            return False
