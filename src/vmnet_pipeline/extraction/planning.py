"""Find the features of a collection that are still to be made. The content of a media file counts, not its name."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import ExtractionError
from vmnet_pipeline.media.sandbox import SANDBOX_REASONS
from vmnet_pipeline.storage.atomic import replace_atomically
from vmnet_pipeline.storage.memory import release_memory
from vmnet_pipeline.storage.paths import copy_to_local, is_remote
from vmnet_pipeline.types import MediaItem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from vmnet_pipeline.features.index import FeatureIndex, FeatureRow
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.types import Modality

RETRIED_REASONS = SANDBOX_REASONS | {
    *("internal_error", "missing_file", "not_a_file", "timeout", "unreadable", "worker_died")
}
"""Failures with causes other than the content of the file: such an item is tried again, and no copy adopts it."""

_BATCH_SIZE = 10_000
_REMOTE_BATCH_SIZE = 200  # so many features of an object store are on this disk at once while they are copied
_N_THREADS = 8


@dataclass(frozen=True, slots=True)
class ExtractionPlan:
    """The work left for a collection.

    Attributes:
        missing: Items to extract, in their order; of several with the same content only the first.
        n_items: All items of the collection.
        n_adopted: Items that got the feature of another item with the same content.
        n_copies: Items whose content is that of one in `missing`; they adopt its feature afterwards.
    """

    missing: tuple[MediaItem, ...]
    n_items: int
    n_adopted: int
    n_copies: int


def list_media_items(manifest: pd.DataFrame, modality: Modality) -> list[MediaItem]:
    """List the usable items of a manifest as one backend sees them."""
    wanted = (manifest["status"] == "ok") & (manifest[f"{modality}_path"] != "")
    columns = (manifest.loc[wanted, name].tolist() for name in ("id", f"{modality}_path", f"{modality}_checksum"))
    return [MediaItem(*values) for values in zip(*columns, strict=True)]


def plan_extraction(items: Sequence[MediaItem], store: FeatureStore) -> ExtractionPlan:
    """Find what `store` lacks, after it has adopted what it has under other names.

    Raises:
        FeatureStoreError: The folder cannot be written.
    """
    unfinished = find_unfinished(items, store)
    left = adopt_features(unfinished, store)
    first = {item.checksum or item.id: item for item in reversed(left)}
    missing = tuple(item for item in left if first[item.checksum or item.id] is item)
    return ExtractionPlan(missing, len(items), len(unfinished) - len(left), len(left) - len(missing))


def find_unfinished(items: Sequence[MediaItem], store: FeatureStore) -> list[MediaItem]:
    """Find the items without a whole feature, or a lasting failure, of the same content; in their order."""
    if not items:
        return []
    import numpy as np

    places = store.rows.find_places([item.id for item in items])
    finished, sizes = np.zeros(len(items), bool), np.full(len(items), -1, np.int64)
    for start in range(0, len(items), _BATCH_SIZE):  # the rows of all items at once would be as large as the index
        some = slice(start, start + _BATCH_SIZE)
        finished[some], sizes[some] = _judge_rows(items[some], places[some], store.rows)
    done = (sizes >= 0).nonzero()[0].tolist()
    finished[done] = sizes[done] == store.measure_files([items[place].id for place in done])
    release_memory()
    return [item for item, is_finished in zip(items, finished.tolist(), strict=True) if not is_finished]


def _judge_rows(items: Sequence[MediaItem], places: pa.Array, index: FeatureIndex) -> tuple[np.ndarray, np.ndarray]:
    """Find lasting failures, (n,) bool, and the sizes of the files of finished features, (n,) int64, else -1."""
    found = index.take(places, "source_checksum", "status", "reason", "size_bytes")
    is_same = found["source_checksum"] == [item.checksum for item in items]
    is_lasting = is_same & (found["status"] == "failed") & ~found["reason"].isin(RETRIED_REASONS)
    is_done = is_same & (found["status"] == "done")
    return is_lasting.to_numpy(), found["size_bytes"].where(is_done).fillna(-1).to_numpy("int64")


def adopt_features(items: Sequence[MediaItem], store: FeatureStore) -> list[MediaItem]:
    """Give items the features that the store has of the same content under other ids; nothing is decoded.

    A feature is adopted as a hard link if the file system has them, else as a copy, and only if its bytes match the
    index. A lasting failure is adopted as a row.

    Returns:
        The items for which there was nothing to adopt, in their order.

    Raises:
        FeatureStoreError: The folder cannot be written.
    """
    index, adopted = store.rows, set[str]()
    with store.explain_failure():
        size = _REMOTE_BATCH_SIZE if is_remote(store.folder) else _BATCH_SIZE
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            donors = _find_donors(index, {item.checksum for item in batch} - {""})
            pairs = [(item, donors[item.checksum]) for item in batch if item.checksum in donors]
            rows = _adopt_pairs(pairs, store)
            if rows:
                store.add_rows(rows)
            adopted.update(row.id for row in rows)
    return [item for item in items if item.id not in adopted]


def _find_donors(index: FeatureIndex, checksums: set[str]) -> dict[str, FeatureRow]:
    """Map each content that the index knows to a row to adopt, preferably a finished one."""
    rows = index.find_contents(checksums)
    lasting = [row for row in rows if row.status == "done" or row.reason not in RETRIED_REASONS]
    return {row.source_checksum: row for row in sorted(lasting, key=lambda row: row.status == "done")}


def _adopt_pairs(pairs: Sequence[tuple[MediaItem, FeatureRow]], store: FeatureStore) -> list[FeatureRow]:
    """Make rows for items and their files. All are linked before one is moved: names may have been swapped."""
    donors = {donor.id: donor for _, donor in pairs if donor.status == "done"}
    with ThreadPoolExecutor(_N_THREADS, thread_name_prefix="verify") as pool:
        checks = pool.map(store.is_whole, donors, [donor.checksum for donor in donors.values()])
        whole = dict(zip(donors, checks, strict=True))
    rows = []
    with contextlib.ExitStack() as moves:
        for item, donor in pairs:
            if not whole.get(donor.id, True):
                continue
            source, target = store.file_of(donor.id), store.file_of(item.id)
            if donor.status == "done" and not (target.exists() and target.samefile(source)):
                temporary = moves.enter_context(replace_atomically(target))
                try:
                    temporary.hardlink_to(source)
                except (OSError, TypeError):  # a file system without hard links, or too many; an object store
                    copy_to_local(source, temporary)
            rows.append(replace(donor, id=item.id, seconds=0.0, adopted_from=donor.id))
    return rows


def _count_not_tried(items: Sequence[MediaItem], store: FeatureStore) -> int:
    """Count items that no run has tried, neither under their id nor as a copy."""
    known = store.rows.to_frame("id", "source_checksum")
    ids, contents = set(known["id"]), set(known["source_checksum"])
    return sum(item.id not in ids and item.checksum not in contents for item in items)


def summarise_items(items: Sequence[MediaItem], store: FeatureStore) -> dict[str, Any]:
    """Count what an extraction did: done, failed by reason, adopted, seconds in decoding and front end."""
    rows = store.rows.to_frame("id", "status", "reason", "error", "seconds", "warning", "adopted_from")
    rows = rows[rows["id"].isin([item.id for item in items])]
    failed, warned = rows[rows["status"] == "failed"], rows[rows["warning"].fillna("") != ""]
    reasons = failed["reason"].value_counts().sort_index()
    return {
        "n_items": len(rows),
        "n_done": len(rows) - len(failed),
        "n_failed": len(failed),
        "n_missing": len(items) - len(rows),
        "n_not_tried": _count_not_tried(items, store),
        "n_adopted": int((rows["adopted_from"].fillna("") != "").sum()),
        "failures_by_reason": {str(reason): int(count) for reason, count in reasons.items()},
        "failed_items": failed[["id", "reason", "error"]].head(100).to_dict("records"),
        "n_warned": len(warned),
        "warned_items": warned[["id", "warning"]].head(100).to_dict("records"),
        "prepare_seconds": round(float(rows["seconds"].sum()), 3),
    }


def check_failures(
    summary: Mapping[str, Any], max_failed_share: float, folder: Path, *, needs_items: bool = True
) -> None:
    """Refuse an extraction with too many failures, or an unfinished one; or, where it needs items, one without any.

    Raises:
        ExtractionError: No item is done, the share of failed ones is above `max_failed_share`, or some were not tried.
    """
    n_items, n_failed = summary["n_items"], summary["n_failed"]
    if summary["n_not_tried"]:
        raise ExtractionError(
            f"{summary['n_not_tried']} items have not been extracted into {folder} yet. Finished features are kept: "
            "run the extraction again; of an array job, those workers that did not finish."
        )
    if not n_items and not needs_items:
        return
    if summary["n_done"] and n_failed <= max_failed_share * n_items:
        return
    reasons = ", ".join(f"{count} x {reason}" for reason, count in summary["failures_by_reason"].items()) or "no items"
    raise ExtractionError(
        f"{n_failed} of {n_items} items failed in {folder} ({reasons}); at most {max_failed_share:.0%} may. Finished "
        "features are kept. Correct the media, or raise the limit: --params extract.max_failed_share=0.9"
    )
