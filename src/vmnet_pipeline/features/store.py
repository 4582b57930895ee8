"""Feature store: one folder of `ID.npy` files and an index with the origin of each.

    FOLDER/ID.npy                     one feature, float32 (the contract with users)
    FOLDER/_index/fingerprint.json    the identity of all features in this store
    FOLDER/_index/rows-*.jsonl        one line per finished or failed item, one file per writer
    FOLDER/_index/rows.parquet        the rows of past writers, compacted
    FOLDER/_index/complete.json       written when every item of a manifest is done or failed
    FOLDER/_index/lock*, writers*     locks, see `storage.locks`

A feature file is written under a temporary name, renamed, and only then gets its row: a reader never sees half a
file, and a file with a row is whole. Item ids never start with `.`; `_index` has no suffix, so
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
from vmnet_pipeline.storage.checksummed import add_checksum, hash_file, parse_checksummed
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
    """Result of extracting one item: its row, and its array unless it failed."""

    row: FeatureRow
    array: np.ndarray | None


@dataclass(frozen=True, slots=True)
class FeatureChunk:
    """Results with one fingerprint, as extraction passes them to the store."""

    fingerprint: Fingerprint
    results: tuple[FeatureResult, ...]


class FeatureStore:
    """A folder of features. Cheap to open; an absent folder reads as an empty store.

    Every method that writes raises `FeatureStoreError` where the folder cannot be written.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> store = FeatureStore(tempfile.mkdtemp())
        >>> row = FeatureRow("007", "done", source_checksum="sha256:00")
        >>> features = FeatureResult(row, np.zeros((2, 3), np.float32))
        >>> store.write(FeatureChunk(Fingerprint("toy", {"layer": 3}), (features,)))
        >>> store.done_ids(), store.load("007").shape, store.rows["007"].dtype
        (['007'], (2, 3), 'float32')
        >>> store.check_fingerprint(Fingerprint("toy", {"layer": 4}))
        Traceback (most recent call last):
        ...
        vmnet_pipeline.errors.FeatureStoreError: The feature store ... holds features of other settings: ...
    """

    def __init__(self, folder: str | Path, *, writer: str | None = None) -> None:
        """Open a local folder or a URL of an object store; `writer` names the rows that `read_own_rows` reads."""
        self.folder = as_path(folder)
        self._index_folder = self.folder / INDEX_FOLDER
        self._log = RowLog(self._index_folder, ROW_COLUMNS, writer=writer)

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.folder)!r})"

    # --- identity

    def fingerprint(self) -> Fingerprint | None:
        """Identity of the features in this store, None while it is empty.

        Raises:
            FeatureStoreError: The fingerprint file is damaged.
            StorageError: The object store does not answer.
        """
        path = self._index_folder / "fingerprint.json"
        try:
            with explain_access(path):
                return Fingerprint(**parse_checksummed(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise FeatureStoreError(
                f"{path} is damaged ({error}). The feature files may be whole: remove this one file and extract "
                "with their original settings."
            ) from error

    def check_fingerprint(self, wanted: Fingerprint) -> None:
        """Refuse to mix features of different settings.

        Raises:
            FeatureStoreError: The store holds features of another fingerprint; the message lists the differences.
        """
        stored = self.fingerprint()
        if stored is not None and stored.digest != wanted.digest:
            difference = stored.describe_difference(wanted)
            raise FeatureStoreError(
                f"The feature store {self.folder} holds features of other settings: {difference}. Features of "
                "different settings are never mixed: restore the old settings, pass another folder with --params "
                "save_dir=FOLDER or another collection=NAME, or remove the store."
            )

    # --- reading

    @cached_property
    def rows(self) -> FeatureIndex:
        """The index by item id; the latest row of an item counts. Read once per handle."""
        return FeatureIndex.latest(self._log.read())

    def file_of(self, item_id: str) -> Path:
        """Path of the feature of an item, whether it exists or not."""
        return self.folder / f"{item_id}.npy"

    def path_of(self, item_id: str) -> Path:
        """Path of an item's finished feature file.

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

    def checksum_of(self, item_id: str) -> str | None:
        """Checksum of the finished feature of an item; None where there is none."""
        row = self.rows.get(item_id)
        return row.checksum if row is not None and row.status == "done" else None

    def load(self, item_id: str) -> np.ndarray:
        """Load the feature of one item as float32, compared with the checksum in its row.

        Raises:
            FeatureStoreError: It has none, or the file is damaged.
            StorageError: The object store does not answer.
        """
        import numpy as np

        path, checksum = self.file_of(item_id), self._row_of(item_id).checksum
        try:
            with explain_access(path):
                content = path.read_bytes()
            if checksum and hashlib.sha256(content).hexdigest() != checksum:
                raise ValueError("its bytes do not match the checksum of its row")
            array = read_array(content)
        except (OSError, ValueError) as error:
            raise FeatureStoreError(
                f"{path} cannot be read ({error}). Remove the file and extract again: only missing items are extracted."
            ) from error
        return array.astype(np.float32, copy=False)

    def reload(self) -> None:
        """Read the index again on next use."""
        self.__dict__.pop("rows", None)

    def is_whole(self, item_id: str, checksum: str) -> bool:
        """Whether the file of an item has this sha256, that of its row; False when it cannot be read.

        Raises:
            StorageError: The object store does not answer, which says nothing about the file.
        """
        try:
            with explain_access(self.folder):
                return hash_file(self.file_of(item_id)) == checksum
        except OSError:
            return False

    def measure_files(self, item_ids: Sequence[str]) -> list[int]:
        """Return the sizes in bytes of the feature files of items; -1 for a missing one."""
        if is_remote(self.folder):
            sizes = {name: found.size_bytes for name, found in list_files(self.folder).items()}
            return [sizes.get(f"{item_id}.npy", -1) for item_id in item_ids]
        return [_size_of(f"{self.folder}/{item_id}.npy") for item_id in item_ids]

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
        self.set_fingerprint(chunk.fingerprint)
        with self.explain_failure():
            self.add_rows([self._write_result(result) for result in chunk.results])

    def set_fingerprint(self, fingerprint: Fingerprint) -> None:
        """Record the identity of the features, before any is written.

        Raises:
            FeatureStoreError: The store has another fingerprint, or the folder cannot be written.
        """
        with self.explain_failure():
            self.check_fingerprint(fingerprint)
            if not (path := self._index_folder / "fingerprint.json").exists():
                write_text_atomically(path, add_checksum(asdict(fingerprint)))

    def add_all(self, results: Iterable[FeatureResult]) -> Iterator[FeatureRow]:
        """Store items one by one; into an object store several are uploaded at the same time.

        Yields:
            The row of each, in order; array and row then survive a kill of this process.

        Raises:
            FeatureStoreError: The folder cannot be written.
        """
        for write in run_ahead(self._write_result, results, N_AHEAD if is_remote(self.folder) else 0):
            with self.explain_failure():
                row = write()
                self._log.append([asdict(row)], sync=False)
            yield row

    def sync(self) -> None:
        """Make the rows added so far survive a loss of power, too."""
        with self.explain_failure():
            self._log.sync()

    def read_own_rows(self) -> FeatureIndex:
        """Rows that this handle's `writer` has added so far, read again."""
        return FeatureIndex.latest(self._log.read_own())

    def hold(self, shard: Shard | None = None) -> AbstractContextManager[None]:
        """Keep other runs away from this store until the block ends, see `locks.lock_run`.

        Raises:
            FeatureStoreError: Another run works on it, or the folder cannot be written.
        """
        return self._enter(lock_run(self._index_folder, shard))

    def share_writing(self, shard: Shard | None = None) -> AbstractContextManager[None]:
        """Mark this process as writing here, so that no other run starts meanwhile."""
        return self._enter(share_writing(self._index_folder, shard))

    @contextmanager
    def _enter(self, context: AbstractContextManager[None]) -> Iterator[None]:
        """Explain only errors of entering the context; those of the block have other causes."""
        with ExitStack() as held:
            with self.explain_failure():
                held.enter_context(context)
            yield

    @contextmanager
    def explain_failure(self) -> Iterator[None]:
        """Turn a write error into one with its remedy.

        Raises:
            FeatureStoreError: The folder cannot be written.
        """
        try:
            yield
        except storage_errors() as error:
            raise FeatureStoreError(
                f"Cannot write to the feature store {self.folder}: {error}. Free some space or correct the permissions "
                "of the folder and run again: everything finished so far is kept."
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
        """Add rows to the index whose files are in place; they are on disk on return."""
        with self.explain_failure():
            self._log.append(asdict(row) for row in rows)
        self.reload()

    def compact(self) -> None:
        """Merge the rows of past writers into one file, the latest row per item; not while another process writes."""
        if not self._log.is_compact():
            self.replace_index(FeatureIndex.latest(self._log.read()))

    def replace_index(self, index: FeatureIndex) -> None:
        """Replace the index; not while another process writes."""
        with self.explain_failure():
            self._log.compact(index.table)
        self.reload()

    # --- completion

    def mark_complete(self) -> None:
        """Write the marker that every planned item is done or failed.

        Later runs trust it without looking at the features, so these are flushed to disk first.
        """
        content = {"n_done": len(self.done_ids()), "n_items": len(self.rows)}
        with self.explain_failure():
            if not is_remote(self.folder):
                flush_file_system(self._index_folder)
            write_text_atomically(self._index_folder / "complete.json", json.dumps(content))

    def clear_complete(self) -> None:
        """Remove the completion marker: there is work to do."""
        with self.explain_failure():
            (self._index_folder / "complete.json").unlink(missing_ok=True)

    def is_complete(self) -> bool:
        """Whether the completion marker exists."""
        return (self._index_folder / "complete.json").exists()


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a million of them: a Path object takes longer than the call
    except OSError:
        return -1
