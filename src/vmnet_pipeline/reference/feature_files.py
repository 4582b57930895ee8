"""Find the feature files of one side, whatever the case and the Unicode form of their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmnet_pipeline.ingestion.discovery import SIDE_FOLDERS
from vmnet_pipeline.ingestion.formats import strip_suffix
from vmnet_pipeline.storage.names import find_entry, normalise

if TYPE_CHECKING:
    from pathlib import Path

    from vmnet_pipeline.types import Modality

SUFFIX = ".npy"


def find_side_folder(data_dir: Path, modality: Modality) -> Path:
    """Find `audio` or `video` in a folder, in any case and by the other names in `SIDE_FOLDERS`."""
    found = find_entry(data_dir, SIDE_FOLDERS[modality])
    return found[0] if found else data_dir / modality


class FeatureFiles:
    """The .npy files of one modality in a folder, which is listed once."""

    def __init__(self, data_dir: Path, modality: Modality) -> None:
        """List the folder; a missing one has no files."""
        self._folder = find_side_folder(data_dir, modality)
        names = [path.name for path in self._folder.glob(f"*{SUFFIX}")]
        self._names = set(names)
        self._found = {normalise(name): name for name in sorted(names)}

    def find(self, item_id: str) -> Path:
        """Find the file of an item: ID.npy in any Unicode form, or STEM.npy where ID is a file name."""
        exact = f"{item_id}{SUFFIX}"
        if exact in self._names:
            return self._folder / exact
        stems = (item_id, item_id.removesuffix(SUFFIX), strip_suffix(item_id))
        found = (self._found.get(f"{normalise(stem)}{SUFFIX}") for stem in stems)
        return self._folder / next((name for name in found if name is not None), exact)
