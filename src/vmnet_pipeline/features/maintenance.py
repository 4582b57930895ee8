"""Maintain a feature store: count its items, verify its files, remove garbage."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmnet_pipeline.cores import count_cores
from vmnet_pipeline.errors import FeatureStoreError
from vmnet_pipeline.features.index import FeatureIndex
from vmnet_pipeline.features.store import INDEX_FOLDER
from vmnet_pipeline.storage.atomic import TEMPORARY_PREFIX
from vmnet_pipeline.storage.paths import is_remote, list_files

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.types import Fingerprint

_BATCH_SIZE = 10_000


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """Content of a store.

    Attributes:
        fingerprint: Identity of its features.
        n_done: Finished items.
        failures_by_reason: Number of failed items by slug.
        size_bytes: Sum of the feature files according to the index; one shared by several items counts for each.
        is_complete: Whether every planned item is done or failed.
    """

    fingerprint: Fingerprint
    n_done: int
    failures_by_reason: dict[str, int]
    size_bytes: int
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of comparing files with the index.

    Attributes:
        n_checked: Finished items.
        missing: Ids whose file is missing.
        damaged: Ids whose file has another checksum than its row.
        unknown: Names of files without a row.
    """

    n_checked: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Garbage:
    """What can be removed from a store.

    Attributes:
        temporaries: Files that killed writers left.
        orphans: Feature files without a row.
        unlisted: Ids with a row that are no longer in the collection.
        size_bytes: Size of all these files.
    """

    temporaries: tuple[Path, ...]
    orphans: tuple[Path, ...]
    unlisted: tuple[str, ...]
    size_bytes: int


def describe_store(store: FeatureStore) -> StoreStatus:
    """Count the items of a store.

    Raises:
        FeatureStoreError: The folder is not a feature store.
    """
    fingerprint = _require_store(store)
    rows = store.rows.to_frame("status", "reason", "size_bytes")
    failures = rows.loc[rows["status"] == "failed", "reason"].value_counts().sort_index()
    by_reason = {str(reason): int(count) for reason, count in failures.items()}
    n_done = int((rows["status"] == "done").sum())
    return StoreStatus(fingerprint, n_done, by_reason, int(rows["size_bytes"].sum()), store.is_complete())


def verify_store(store: FeatureStore, *, n_workers: int | None = None) -> Verification:
    """Read every feature file and compare its checksum with the index.

    Raises:
        FeatureStoreError: The folder is not a feature store.
        StorageError: The object store does not answer.
    """
    _require_store(store)
    rows = store.rows.to_frame("id", "status", "checksum")
    done = rows[rows["status"] == "done"]
    ids, checksums = done["id"].tolist(), done["checksum"].tolist()
    broken: list[str] = []
    with ThreadPoolExecutor(n_workers or count_cores(), thread_name_prefix="verify") as pool:
        for start in range(0, len(ids), _BATCH_SIZE):
            some = slice(start, start + _BATCH_SIZE)
            whole = pool.map(store.is_whole, ids[some], checksums[some])
            broken += [item_id for item_id, good in zip(ids[some], whole, strict=True) if not good]
    there = {name for name in _list_names(store.folder) if not name.startswith(TEMPORARY_PREFIX)} - {INDEX_FOLDER}
    missing = tuple(item_id for item_id in broken if f"{item_id}.npy" not in there)
    damaged = tuple(item_id for item_id in broken if f"{item_id}.npy" in there)
    return Verification(len(ids), missing, damaged, tuple(sorted(there.difference(f"{name}.npy" for name in ids))))


def drop_broken(store: FeatureStore, ids: Collection[str]) -> int:
    """Remove the rows of ids that `verify_store` found from the index, so that the next run extracts those items.

    Rows whose files were repaired in the meantime stay.

    Returns:
        Number of removed rows.

    Raises:
        FeatureStoreError: A run works on the store, or it cannot be written.
        StorageError: The object store does not answer.
    """
    with store.hold():
        store.reload()
        broken = {i for i in ids if i in store.rows and not store.is_whole(i, store.rows[i].checksum)}
        _drop_rows(store, broken)
        store.clear_complete()
    return len(broken)


def collect_garbage(store: FeatureStore, *, keep: Collection[str] | None = None, dry_run: bool = False) -> Garbage:
    """Remove leftovers of killed writers, feature files without a row and, on request, items of no collection.

    With `keep`, the ids of a collection, rows and files of all other items are removed; `dry_run` only reports.

    Raises:
        FeatureStoreError: The folder is not a feature store, or a run works on it, or it cannot be written.
    """
    _require_store(store)
    with store.hold():
        store.reload()
        garbage = _find_garbage(store, keep)
        if not dry_run:
            if garbage.unlisted:
                _drop_rows(store, set(garbage.unlisted))  # first: a kill must not leave a row without its file
            for path in (*garbage.temporaries, *garbage.orphans, *(store.file_of(name) for name in garbage.unlisted)):
                path.unlink(missing_ok=True)
    return garbage


def _find_garbage(store: FeatureStore, keep: Collection[str] | None) -> Garbage:
    rows = store.rows.to_frame("id", "status")
    done = {f"{item_id}.npy" for item_id in rows.loc[rows["status"] == "done", "id"]}
    names = _list_names(store.folder)
    places = {store.folder: names, store.folder / INDEX_FOLDER: _list_names(store.folder / INDEX_FOLDER)}
    temporaries = [
        folder / name for folder, some in places.items() for name in some if name.startswith(TEMPORARY_PREFIX)
    ]
    orphans = [store.folder / name for name in names if name.endswith(".npy") and name[0] != "." and name not in done]
    unlisted = [] if keep is None else rows.loc[~rows["id"].isin(list(keep)), "id"].tolist()
    files = [*temporaries, *orphans, *(store.file_of(item_id) for item_id in unlisted)]
    size = sum(path.stat().st_size for path in files if path.exists())
    return Garbage(tuple(temporaries), tuple(orphans), tuple(unlisted), size)


def _require_store(store: FeatureStore) -> Fingerprint:
    """The fingerprint; a folder without one may hold the user's own files, of which nothing must be removed."""
    fingerprint = store.fingerprint()
    if fingerprint is None:
        raise FeatureStoreError(f"{store.folder} is not a feature store: it has no {INDEX_FOLDER}/fingerprint.json.")
    return fingerprint


def _drop_rows(store: FeatureStore, ids: set[str]) -> None:
    import pyarrow as pa

    gone = store.rows.to_frame("id")["id"].isin(list(ids))
    store.replace_index(FeatureIndex(store.rows.table.filter(pa.array(~gone.to_numpy()))))


def _list_names(folder: Path) -> list[str]:
    return sorted(list_files(folder)) if is_remote(folder) else sorted(entry.name for entry in os.scandir(folder))
