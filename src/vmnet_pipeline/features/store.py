"""The feature store: one folder of `ID.npy` files and an index that says where each came from.

    FOLDER/ID.npy                     one feature, float32 (the contract with users)
    FOLDER/_index/fingerprint.json    the identity of all features in this store
    FOLDER/_index/rows-*.jsonl        one line per finished or failed item, one file per writer
    FOLDER/_index/rows.parquet        the rows of past writers, put together
    FOLDER/_index/complete.json       written when every item of a manifest has been dealt with
    FOLDER/_index/lock*, writers*     who works here, see `locks`

A feature file is written under a temporary name, moved into place, and only then gets its row: a
reader never sees half a file, and what has a row is whole. Item ids never start with `.`; `_index` has no suffix, so
`_index.npy` may be an item.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import FeatureStoreError
from vmnet_pipeline.features.index import ROW_COLUMNS, FeatureIndex, FeatureRow
from vmnet_pipeline.prefetch import run_ahead
from vmnet_pipeline.storage.arrays import read_array
from vmnet_pipeline.storage.atomic import flush_file_system, replace_atomically, write_text_atomically
from vmnet_pipeline.storage.checksummed import hash_file, parse_sealed, seal_json
from vmnet_pipeline.storage.locks import lock_run, share_writing
from vmnet_pipeline.storage.paths import N_AHEAD, as_path, explain_access, is_remote, list_files, storage_errors
from vmnet_pipeline.storage.row_log import RowLog
from vmnet_pipeline.types import Fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import numpy as np

    from vmnet_pipeline.storage.locks import Shard

INDEX_FOLDER = "_index"


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

    def __init__(self, folder: str | Path, *, writer: str | None = None) -> None:
        """Name the folder.

        Args:
            folder: The store.
            writer: Name of the rows that this handle writes, for one who wants to read just those; unique by default.
        """
        self.folder = as_path(folder)
        self._index_folder = self.folder / INDEX_FOLDER
        self._log = RowLog(self._index_folder, ROW_COLUMNS, writer=writer)

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.folder)!r})"

    # --- identity

    def fingerprint(self) -> Fingerprint | None:
        """The identity of the features in this store, None while it is empty.

        Raises:
            FeatureStoreError: The fingerprint file is damaged.
            StorageError: The object store does not answer.
        """
        path = self._index_folder / "fingerprint.json"
        try:
            with explain_access(path):
                return Fingerprint(**parse_sealed(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise FeatureStoreError(
                f"{path} is damaged ({error}). The features beside it may be whole: remove this one file and extract "
                "with the settings that they were made with."
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
    def rows(self) -> FeatureIndex:
        """The index by item id; the latest row of an item counts. Read once per handle."""
        return FeatureIndex.latest(self._log.read())

    def file_of(self, item_id: str) -> Path:
        """Where the feature of an item is, or would be."""
        return self.folder / f"{item_id}.npy"

    def path_of(self, item_id: str) -> Path:
        """Path of an item's feature file.

        Raises:
            FeatureStoreError: The store has no finished feature for this id.
        """
        self._row_of(item_id)
        return self.file_of(item_id)

    def _row_of(self, item_id: str) -> FeatureRow:
        row = self.rows.get(item_id)
        if row is None or row.status != "done":
            raise FeatureStoreError(f"{self.folder} has no feature for item {item_id!r}: run its extraction first.")
        return row

    def load(self, item_id: str) -> np.ndarray:
        """Feature of one item as float32; its bytes are compared with the checksum in its row.

        Raises:
            FeatureStoreError: There is none, or the file is damaged.
            StorageError: The object store does not answer.
        """
        import numpy as np

        path, checksum = self.file_of(item_id), self._row_of(item_id).checksum
        try:
            with explain_access(path):
                content = path.read_bytes()
            if checksum and hashlib.sha256(content).hexdigest() != checksum:
                raise ValueError("its bytes do not fit the checksum of its row")
            array = read_array(content)
        except (OSError, ValueError) as error:
            raise FeatureStoreError(
                f"{path} cannot be read ({error}). Remove the file and extract again: only missing items are done."
            ) from error
        return array.astype(np.float32, copy=False)

    def reload(self) -> None:
        """Read the index anew when it is asked for next."""
        self.__dict__.pop("rows", None)

    def is_whole(self, item_id: str, checksum: str) -> bool:
        """Whether the file of an item has this sha256, that of its row; one that no disk gives any more has not.

        Raises:
            StorageError: The object store does not answer, which says nothing of the file.
        """
        try:
            with explain_access(self.folder):
                return hash_file(self.file_of(item_id)) == checksum
        except OSError:
            return False

    def measure_files(self, item_ids: Sequence[str]) -> list[int]:
        """Sizes in bytes of the feature files of items; -1 for one that is not there."""
        if is_remote(self.folder):
            listing = list_files(self.folder)
            sizes = {name: found.size_bytes for name, found in listing.items()}
            return [sizes.get(f"{item_id}.npy", -1) for item_id in item_ids]
        folder = str(self.folder)
        return [_size_of(f"{folder}/{item_id}.npy") for item_id in item_ids]

    def done_ids(self) -> list[str]:
        """Sorted ids of all finished items."""
        rows = self.rows.to_frame("id", "status")
        return sorted(rows.loc[rows["status"] == "done", "id"])

    # --- writing

    def write(self, chunk: FeatureChunk) -> None:
        """Store a chunk: first each array in its own file, then the rows.

        Raises:
            FeatureStoreError: The store has another fingerprint, or the folder cannot be written.
        """
        self.claim(chunk.fingerprint)
        with self.explain_failure():
            self.add_rows([self._write_result(result) for result in chunk.results])

    def claim(self, fingerprint: Fingerprint) -> None:
        """Make this the store of one kind of features, before any is written.

        Raises:
            FeatureStoreError: It is that of another kind, or the folder cannot be written.
        """
        path = self._index_folder / "fingerprint.json"
        with self.explain_failure():
            self.check_fingerprint(fingerprint)
            if not path.exists():
                content = {"backend": fingerprint.backend, "settings": fingerprint.settings}
                write_text_atomically(path, seal_json(content))

    def add_all(self, results: Iterable[FeatureResult]) -> Iterator[FeatureRow]:
        """Store items one by one; in an object store the next ones come while files are on their way.

        Yields:
            The row of each, in their order; array and row stay from then on even if this process is killed.

        Raises:
            FeatureStoreError: The folder cannot be written.
        """
        for write in run_ahead(self._write_result, results, N_AHEAD if is_remote(self.folder) else 0):
            with self.explain_failure():
                row = write()
                self._log.append([asdict(row)], sync=False)
            yield row

    def sync(self) -> None:
        """See that the rows added so far outlast a loss of power too.

        Raises:
            FeatureStoreError: The folder cannot be written.
        """
        with self.explain_failure():
            self._log.sync()

    def read_own_rows(self) -> FeatureIndex:
        """What this handle's `writer` has added so far, read anew."""
        return FeatureIndex.latest(self._log.read_own())

    def hold(self, shard: Shard | None = None) -> AbstractContextManager[None]:
        """Keep other runs away from this store until the block ends, see `locks.lock_run`.

        Raises:
            FeatureStoreError: Another run works on it, or the folder cannot be written.
        """
        return self._enter(lock_run(self._index_folder, shard))

    def share_writing(self, shard: Shard | None = None) -> AbstractContextManager[None]:
        """Say that this process writes here, so that no later run starts beside it.

        Raises:
            FeatureStoreError: The folder cannot be written.
        """
        return self._enter(share_writing(self._index_folder, shard))

    @contextmanager
    def _enter(self, context: AbstractContextManager[None]) -> Iterator[None]:
        """Of what is raised, only errors of entering are of this folder."""
        with ExitStack() as held:
            with self.explain_failure():
                held.enter_context(context)
            yield

    @contextmanager
    def explain_failure(self) -> Iterator[None]:
        """Turn an error of writing into one that says what to do.

        Raises:
            FeatureStoreError: The folder cannot be written.
        """
        try:
            yield
        except storage_errors() as error:
            raise FeatureStoreError(
                f"Cannot write to the feature store {self.folder}: {error}. Free some space or correct the rights of "
                "the folder and run again: everything finished so far is kept."
            ) from error

    def _write_result(self, result: FeatureResult) -> FeatureRow:
        if result.array is None:
            return result.row
        import numpy as np

        buffer = io.BytesIO()
        np.save(buffer, result.array, allow_pickle=False)
        content = buffer.getvalue()  # no copy; a view of it, held by an exception, makes Python 3.12.1 crash at its end
        with replace_atomically(self.file_of(result.row.id)) as temporary:
            temporary.write_bytes(content)
        return replace(
            result.row,
            shape=tuple(result.array.shape),
            dtype=result.array.dtype.name,
            size_bytes=len(content),
            checksum=hashlib.sha256(content).hexdigest(),
        )

    def add_rows(self, rows: Iterable[FeatureRow]) -> None:
        """Add rows to the index, whose files are in place; they are on the disk when this returns.

        Raises:
            FeatureStoreError: The folder cannot be written.
        """
        with self.explain_failure():
            self._log.append(asdict(row) for row in rows)
        self.reload()

    def compact(self) -> None:
        """Put the rows of all past writers into one file, the latest row per item; not while another one writes."""
        if not self._log.is_compact():
            self.replace_index(FeatureIndex.latest(self._log.read()))

    def replace_index(self, index: FeatureIndex) -> None:
        """Let `index` be all that this store lists; not while another one writes.

        Raises:
            FeatureStoreError: The folder cannot be written.
        """
        with self.explain_failure():
            self._log.compact(index.table)
        self.reload()

    # --- completion

    def mark_complete(self) -> None:
        """Write the marker that says: everything that was planned has been dealt with.

        No one looks at the features of a store that has it, so they are on the disk first.
        """
        content = {"n_done": len(self.done_ids()), "n_items": len(self.rows)}
        with self.explain_failure():
            if not is_remote(self.folder):
                flush_file_system(self._index_folder)
            write_text_atomically(self._index_folder / "complete.json", json.dumps(content))

    def clear_complete(self) -> None:
        """Take the completion marker away, because there is work to do."""
        with self.explain_failure():
            (self._index_folder / "complete.json").unlink(missing_ok=True)

    def is_complete(self) -> bool:
        """Whether the marker is there."""
        return (self._index_folder / "complete.json").exists()


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a million of them: a Path object takes longer than the call
    except OSError:
        return -1
