"""What datasets of kedro_datasets lack here: files that appear whole.

A kill while one is written would leave half a file, which exists, and which `--only-missing-outputs` takes for done.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from vmnet_pipeline.storage.files import replace_atomically


class WholeFile:
    """To be put before a dataset class of one file: saving writes beside the file, then takes its place.

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
