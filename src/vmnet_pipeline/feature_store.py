"""The feature store: one folder of `ID.npy` files and an index that says where each came from.

    FOLDER/ID.npy                     one feature, float32 (the contract with users)
    FOLDER/_index/fingerprint.json    the identity of all features in this store
    FOLDER/_index/rows-*.jsonl        one line per finished or failed item, one file per writer
    FOLDER/_index/complete.json       written when every item of a manifest has been dealt with

A feature file is written under a temporary name, moved into place, and only then gets its row: a
reader never sees half a file, and what has a row is whole. Item ids never start with `_` or `.`.
"""

from __future__ import annotations

import io
import json
import os
import uuid
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vmnet_pipeline.errors import FeatureStoreError
from vmnet_pipeline.files import replace_atomically, write_text_atomically
from vmnet_pipeline.records import Fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np

INDEX_FOLDER = "_index"


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """What the index says of one item.

    Attributes:
        id: Item id; the feature is `ID.npy` when `status` is `done`.
        status: `done` or `failed`.
        source_checksum: Content checksum of the media file the feature was made from.
        shape: Shape of the array, empty for a failed item.
        dtype: NumPy name of the dtype, empty for a failed item.
        n_valid: How many leading entries stem from real signal.
        size_bytes: Size of `ID.npy`.
        checksum: sha256 of the bytes of `ID.npy`.
        reason: Slug of the failure, e.g. `undecodable_audio`.
        error: The failure in words.
        seconds: Time spent in decoding and front end.
    """

    id: str
    status: Literal["done", "failed"]
    source_checksum: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    n_valid: int = 0
    size_bytes: int = 0
    checksum: str = ""
    reason: str = ""
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FeatureResult:
    """One item that extraction has dealt with: its row, and its array unless it failed."""

    row: FeatureRow
    array: np.ndarray | None


@dataclass(frozen=True, slots=True)
class FeatureChunk:
    """Some results under one fingerprint, as extraction hands them to the store."""

    fingerprint: Fingerprint
    results: tuple[FeatureResult, ...]


class FeatureStore:
    """A folder of features. Cheap to make; an absent folder reads as an empty store."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._index_folder = self.folder / INDEX_FOLDER
        self._rows_path = self._index_folder / f"rows-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.folder)!r})"

    # --- identity

    def fingerprint(self) -> Fingerprint | None:
        """The identity of the features in this store, None while it is empty.

        Raises:
            FeatureStoreError: The fingerprint file is damaged.
        """
        path = self._index_folder / "fingerprint.json"
        try:
            return Fingerprint.from_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise FeatureStoreError(
                f"{path} is damaged ({error}). Remove the folder {self.folder} and extract again."
            ) from error

    def check_fingerprint(self, wanted: Fingerprint) -> None:
        """Refuse to mix features of two kinds.

        Raises:
            FeatureStoreError: The store holds features of another fingerprint; the message lists the differences.
        """
        stored = self.fingerprint()
        if stored is None or stored.digest == wanted.digest:
            return
        raise FeatureStoreError(
            f"The feature store {self.folder} holds features of other settings: {stored.describe_difference(wanted)}. "
            "Features of different kinds are never mixed: go back to the old settings, pass another folder with "
            "--params save_dir=FOLDER or another collection=NAME, or remove the store."
        )

    # --- reading

    @cached_property
    def rows(self) -> dict[str, FeatureRow]:
        """The index by item id; the latest row of an item counts. Read once per handle.

        A failure does not take back what is done from the same media file: another writer may have been luckier.
        """
        rows: dict[str, FeatureRow] = {}
        for row in self._read_rows():
            known = rows.get(row.id)
            same_source = known is not None and known.source_checksum == row.source_checksum
            if known is None or not (same_source and known.status == "done" and row.status == "failed"):
                rows[row.id] = row
        return rows

    def _read_rows(self) -> Iterator[FeatureRow]:
        paths = sorted(self._index_folder.glob("rows-*.jsonl"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        for path in paths:
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    row = _parse_row(line)
                    if row is not None:
                        yield row

    def _path(self, item_id: str) -> Path:
        return self.folder / f"{item_id}.npy"

    def path_of(self, item_id: str) -> Path:
        """Path of an item's feature file.

        Raises:
            FeatureStoreError: The store has no finished feature for this id.
        """
        row = self.rows.get(item_id)
        if row is None or row.status != "done":
            raise FeatureStoreError(f"{self.folder} has no feature for item {item_id!r}: run its extraction first.")
        return self._path(item_id)

    def load(self, item_id: str) -> np.ndarray:
        """Feature of one item as float32.

        Raises:
            FeatureStoreError: There is none, or the file is damaged.
        """
        import numpy as np

        path = self.path_of(item_id)
        try:
            array: np.ndarray = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise FeatureStoreError(
                f"{path} cannot be read ({error}). Remove the file and extract again: only missing items are done."
            ) from error
        return array.astype(np.float32, copy=False)

    def done_ids(self) -> list[str]:
        """Sorted ids of all finished items."""
        return sorted(row.id for row in self.rows.values() if row.status == "done")

    def is_finished(self, item_id: str, source_checksum: str) -> bool:
        """Whether this item needs no work: it was done, or failed for good, from this very media file."""
        row = self.rows.get(item_id)
        if row is None or row.source_checksum != source_checksum:
            return False
        if row.status == "failed":
            return row.reason != "internal_error"
        try:
            return self._path(item_id).stat().st_size == row.size_bytes
        except OSError:
            return False

    # --- writing

    def write(self, chunk: FeatureChunk) -> None:
        """Store a chunk: first each array in its own file, then the rows.

        Raises:
            FeatureStoreError: The store has another fingerprint, or the folder cannot be written.
        """
        try:
            self._write_fingerprint(chunk.fingerprint)
            rows = [self._write_result(result) for result in chunk.results]
            self._append_rows(rows)
        except OSError as error:
            raise FeatureStoreError(
                f"Cannot write to the feature store {self.folder}: {error}. Free some space or correct the rights of "
                "the folder and run again: everything finished so far is kept."
            ) from error

    def _write_fingerprint(self, fingerprint: Fingerprint) -> None:
        self.check_fingerprint(fingerprint)
        path = self._index_folder / "fingerprint.json"
        if not path.exists():
            write_text_atomically(path, fingerprint.to_json())

    def _write_result(self, result: FeatureResult) -> FeatureRow:
        if result.array is None:
            return result.row
        import hashlib
        from dataclasses import replace

        import numpy as np

        buffer = io.BytesIO()
        np.save(buffer, result.array, allow_pickle=False)
        content = buffer.getbuffer()
        with replace_atomically(self._path(result.row.id)) as temporary:
            temporary.write_bytes(content)
        return replace(
            result.row,
            shape=tuple(result.array.shape),
            dtype=result.array.dtype.name,
            size_bytes=len(content),
            checksum=hashlib.sha256(content).hexdigest(),
        )

    def _append_rows(self, rows: Iterable[FeatureRow]) -> None:
        text = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
        with self._rows_path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def compact(self) -> None:
        """Merge the row files of all past writers into one, keeping the latest row per item."""
        old = list(self._index_folder.glob("rows-*.jsonl"))
        if len(old) <= 1:
            return
        text = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in self.rows.values())
        write_text_atomically(self._index_folder / f"rows-0-{uuid.uuid4().hex[:8]}.jsonl", text)
        for path in old:
            path.unlink(missing_ok=True)

    # --- completion

    def mark_complete(self) -> None:
        """Write the marker that says: everything that was planned has been dealt with."""
        self._index_folder.mkdir(parents=True, exist_ok=True)
        content = {"n_done": len(self.done_ids()), "n_items": len(self.rows)}
        write_text_atomically(self._index_folder / "complete.json", json.dumps(content))

    def clear_complete(self) -> None:
        """Take the completion marker away, because there is work to do."""
        (self._index_folder / "complete.json").unlink(missing_ok=True)

    def is_complete(self) -> bool:
        """Whether the marker is there."""
        return (self._index_folder / "complete.json").exists()


def _parse_row(line: str) -> FeatureRow | None:
    """One index line; None for a line that a killed writer left unfinished."""
    try:
        content = json.loads(line)
        content["shape"] = tuple(content["shape"])
        return FeatureRow(**content)
    except (ValueError, KeyError, TypeError):
        return None
