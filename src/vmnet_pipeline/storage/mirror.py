"""Mirror a folder of an object store locally, for files that are memory-mapped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from vmnet_pipeline.errors import StorageError
from vmnet_pipeline.storage.atomic import lock_folder, write_text_atomically
from vmnet_pipeline.storage.checksummed import parse_json
from vmnet_pipeline.storage.paths import copy_to_local, is_remote, list_files, name_local, upload

_ATTEMPTS = 3


class Mirror:
    """A folder and its local copy, which is fetched only after changes. A local folder is its own copy.

    Attributes:
        local: The copy; as large as the folder, and may be deleted at any time.
    """

    def __init__(self, place: Path, cache_dir: str, last_file: str) -> None:
        """Choose both.

        Args:
            last_file: The file without which the folder counts as absent. It is removed first and written last, so that
                no reader mixes old and new content.
        """
        self.place = place
        self.local = Path(name_local(place, cache_dir))
        self._last_file = last_file
        self._state = self.local.with_name(f"{self.local.name}.state")
        self._push_record = self.local.with_name(f"{self.local.name}.pushing")

    def exists(self) -> bool:
        """Whether the folder is whole."""
        return (self.place / self._last_file).exists()

    def pull(self) -> Path:
        """Update and return the copy; it is missing if the folder is absent.

        Raises:
            StorageError: The folder kept changing.
        """
        if not is_remote(self.place):
            return self.local
        self.local.parent.mkdir(parents=True, exist_ok=True)
        with lock_folder(self.local.parent):  # of several processes one fetches, and the others wait
            for _ in range(_ATTEMPTS):
                wanted = self._describe()
                if self._last_file not in wanted:
                    if self._push_record.is_file() and (self.local / self._last_file).is_file():
                        self.push()  # a push from here was killed: only the copy is whole
                    else:
                        shutil.rmtree(self.local, ignore_errors=True)
                    return self.local
                if self._read_state() == wanted:
                    return self.local
                self._fetch(wanted)
                if self._describe() == wanted:
                    self._write_state(wanted)
                    return self.local
        raise StorageError(f"{self.place} changed while it was read: another run writes there. Run again later.")

    def push(self) -> None:
        """Update the folder from the copy. A killed push is completed by the next `pull` on this machine."""
        if not is_remote(self.place):
            return
        write_text_atomically(self._push_record, "")
        files = {path.relative_to(self.local).as_posix() for path in self.local.rglob("*") if path.is_file()}
        (self.place / self._last_file).unlink(missing_ok=True)
        for name in sorted(set(list_files(self.place, recursive=True)) - files):
            (self.place / name).unlink(missing_ok=True)
        for name in [*sorted(files - {self._last_file}), self._last_file]:
            upload(self.local / name, self.place / name)
        self._write_state(self._describe())
        self._push_record.unlink(missing_ok=True)

    def _describe(self) -> dict[str, str]:
        listing = list_files(self.place, recursive=True)
        return {name: f"{found.size_bytes} {found.modified_s} {found.version}" for name, found in listing.items()}

    def _fetch(self, names: dict[str, str]) -> None:
        self._push_record.unlink(missing_ok=True)  # content pushed from elsewhere is whole
        self._state.unlink(missing_ok=True)
        shutil.rmtree(self.local, ignore_errors=True)
        self.local.mkdir(parents=True)
        for name in names:
            copy_to_local(self.place / name, self.local / name)

    def _read_state(self) -> dict[str, str] | None:
        """Listing that the copy was made from; None when it is missing or not whole."""
        if not (self.local / self._last_file).is_file():
            return None
        try:
            state: dict[str, str] = parse_json(self._state.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return state

    def _write_state(self, state: dict[str, str]) -> None:
        write_text_atomically(self._state, json.dumps(state))
