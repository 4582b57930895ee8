"""Embeddings of one side of a collection, in memory-mapped files.

    FOLDER/vectors.npy      (n, E) float32, rows of unit length
    FOLDER/items.parquet    id of each row, and the checksum of the feature that it was made from
    FOLDER/contents.json    which network made them, and the sha256 of the other two

Embedding is incremental: a row is reused while its feature and the network are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import EmbedderError, SearchIndexError
from vmnet_pipeline.inference.input_spec import InputSpec, embed_side
from vmnet_pipeline.models.checkpoints import build_from_checkpoint, check_shapes, digest_checkpoint
from vmnet_pipeline.progress import track
from vmnet_pipeline.storage.arrays import ArrayWriter, map_array
from vmnet_pipeline.storage.atomic import replace_folder
from vmnet_pipeline.storage.checksummed import add_checksum, check_files, describe_files, parse_checksummed, read_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import pandas as pd

    from vmnet_pipeline.features.joint import JointStore
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.models.checkpoints import Checkpoint
    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.pairs.packing import PairFiles
    from vmnet_pipeline.types import Side

VECTORS = "vectors.npy"
ITEMS = "items.parquet"
CONTENTS = "contents.json"
REMEDY = "run `kedro run --pipeline embed` again"


@dataclass(frozen=True, slots=True)
class EmbeddingSet:
    """Embeddings of one side of a collection."""

    ids: tuple[str, ...]
    sources: tuple[str, ...]  # checksum of the feature that each was made from; empty when not known
    vectors: np.ndarray  # (n, E) float32, rows of unit length; memory-mapped
    checkpoint: str


@dataclass(frozen=True, slots=True)
class EmbeddingPlan:
    """Embeddings that are computed while they are written."""

    ids: tuple[str, ...]
    sources: tuple[str, ...]  # checksum of the feature of each, or empty
    dim: int
    checkpoint: str
    chunks: Iterator[np.ndarray]  # (k, E) float32 rows in order
    n_reused: int = 0


def plan_store_embeddings(
    store: FeatureStore | JointStore,
    ids: Sequence[str],
    pool: Callable[[Any], np.ndarray],
    checkpoint: Checkpoint,
    side: Side,
    known: EmbeddingSet | None = None,
    batch_size: int = 1024,
) -> EmbeddingPlan:
    """Embed the items of a feature store that are among `ids`.

    Args:
        ids: Items of the collection; those without a feature are left out.
        pool: Pools one item's feature as in training.
        known: Embeddings made before; rows of the same network and feature are reused.

    Raises:
        FeatureStoreError: While the rows are computed, a feature is missing or damaged.
        EmbedderError: While the rows are computed, features do not fit the network.
    """
    checksums = {item_id: store.checksum_of(item_id) for item_id in ids}
    wanted = [item_id for item_id, checksum in checksums.items() if checksum is not None]
    sources = tuple(str(checksums[item_id]) for item_id in wanted)
    model, spec = build_from_checkpoint(checkpoint), InputSpec.of(checkpoint.model_config, side)
    digest = digest_checkpoint(checkpoint)
    old_rows = _find_reusable(known, digest, wanted, sources)

    def make_chunk(chunk_ids: Sequence[str]) -> np.ndarray:
        import numpy as np

        new = [item_id for item_id in chunk_ids if item_id not in old_rows]
        made = _embed_items(store, new, pool, spec, model)
        return np.stack([known.vectors[old_rows[i]] if known and i in old_rows else made[i] for i in chunk_ids])

    chunks = (make_chunk(wanted[start : start + batch_size]) for start in range(0, len(wanted), batch_size))
    return EmbeddingPlan(tuple(wanted), sources, _measure_dim(model, checkpoint), digest, chunks, len(old_rows))


def plan_pair_embeddings(pairs: PairFiles, checkpoint: Checkpoint, side: Side, batch_size: int = 1024) -> EmbeddingPlan:
    """Embed all packed pairs, train, val and test; for feature files without a store.

    Raises:
        CheckpointError: The checkpoint was made for other features.
    """
    check_shapes(checkpoint, pairs.music.shape[1:], pairs.video.shape[1:])
    model, array = build_from_checkpoint(checkpoint), pairs.music if side == "music" else pairs.video
    starts = range(0, len(array), batch_size)
    chunks = (embed_side(model, side, array[start : start + batch_size]) for start in starts)
    dim, digest = _measure_dim(model, checkpoint), digest_checkpoint(checkpoint)
    return EmbeddingPlan(pairs.ids, ("",) * len(pairs.ids), dim, digest, chunks)


def _find_reusable(
    known: EmbeddingSet | None, digest: str, ids: Sequence[str], sources: Sequence[str]
) -> dict[str, int]:
    if known is None or known.checkpoint != digest:
        return {}
    rows = {key: row for row, key in enumerate(zip(known.ids, known.sources, strict=True))}
    keys = (key for key in zip(ids, sources, strict=True) if key[1] and key in rows)
    return {key[0]: rows[key] for key in keys}


def _embed_items(
    store: FeatureStore | JointStore,
    ids: Sequence[str],
    pool: Callable[[Any], np.ndarray],
    spec: InputSpec,
    model: VMNet,
) -> dict[str, np.ndarray]:
    if not ids:
        return {}
    try:
        features = spec.pack([store.load(item_id) for item_id in ids], pool)
    except EmbedderError as error:
        raise EmbedderError(f"features in {store.folder}, items from {ids[0]!r} to {ids[-1]!r}: {error}") from error
    return dict(zip(ids, embed_side(model, spec.side, features), strict=True))


def _measure_dim(model: VMNet, checkpoint: Checkpoint) -> int:
    spec = InputSpec.of(checkpoint.model_config, "video")
    return int(embed_side(model, "video", spec.blank).shape[1])


def write_embeddings(folder: Path, planned: EmbeddingPlan) -> None:
    """Compute and write embeddings; the folder appears whole or not at all."""
    with replace_folder(folder) as temporary:
        with ArrayWriter(temporary / VECTORS, (planned.dim,)) as writer, track(folder.name, len(planned.ids)) as bar:
            for chunk in planned.chunks:
                writer.add(chunk)
                bar.add(len(chunk))
        list_rows(planned).to_parquet(temporary / ITEMS, index=False)
        contents = {
            "format_version": 1,
            "checkpoint": planned.checkpoint,
            "n_items": len(planned.ids),
            "files": describe_files(temporary, (VECTORS, ITEMS)),
        }
        (temporary / CONTENTS).write_text(add_checksum(contents), encoding="utf-8")


def read_embeddings(folder: Path) -> EmbeddingSet:
    """Open embeddings after comparing all bytes with their checksums; the vectors stay on disk until they are used.

    Raises:
        SearchIndexError: They are missing or damaged.
    """
    try:
        contents = parse_checksummed((folder / CONTENTS).read_text(encoding="utf-8"))
        check_files(folder, contents.get("files", {}))
        table = read_frame(folder / ITEMS)
        vectors = map_array(folder / VECTORS)
        embeddings = EmbeddingSet(tuple(table["id"]), tuple(table["source"]), vectors, str(contents["checkpoint"]))
        is_whole = vectors.ndim == 2 and len(embeddings.ids) == len(vectors) == contents["n_items"]
    except FileNotFoundError as error:
        raise SearchIndexError(f"there are no embeddings in {folder}; {REMEDY}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SearchIndexError(f"the embeddings in {folder} are damaged ({error}); remove them and {REMEDY}") from error
    if not is_whole:
        raise SearchIndexError(f"the embeddings in {folder} are damaged: parts differ in length; {REMEDY}")
    return embeddings


def list_rows(embeddings: EmbeddingSet | EmbeddingPlan) -> pd.DataFrame:
    """Columns `id` and `source`, one row per vector."""
    import pandas as pd

    return pd.DataFrame({"id": embeddings.ids, "source": embeddings.sources}, dtype="str")
