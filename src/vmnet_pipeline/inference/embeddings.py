"""Embeddings of one side of a collection, in memory-mapped files.

    FOLDER/vectors.npy      (n, E) float32, rows of unit length
    FOLDER/items.parquet    id of each row, and the checksum of the feature that it was made from
    FOLDER/pieces.npy       of a library: (m, E) float16, the pieces of all items, one item after the other
    FOLDER/offsets.npy      of a library: (n + 1,) int64, where the pieces of each item begin
    FOLDER/contents.json    which network made them, how files were cut, and the sha256 of the others

Embedding is incremental: a row is reused while its feature and the network are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import EmbedderError, SearchIndexError
from vmnet_pipeline.inference.input_spec import InputSpec, embed_side
from vmnet_pipeline.models.checkpoints import build_from_checkpoint, check_shapes, digest_checkpoint
from vmnet_pipeline.progress import track
from vmnet_pipeline.storage.arrays import ArrayWriter, map_array, read_array
from vmnet_pipeline.storage.atomic import replace_folder
from vmnet_pipeline.storage.checksummed import add_checksum, check_files, describe_files, parse_checksummed, read_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import pandas as pd

    from vmnet_pipeline.backends.joint import JointBackend
    from vmnet_pipeline.backends.whole_file import WholeFileBackend
    from vmnet_pipeline.features.joint import JointStore
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.models.checkpoints import Checkpoint
    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.pairs.packing import PairFiles
    from vmnet_pipeline.params import PieceParams
    from vmnet_pipeline.types import Side

VECTORS = "vectors.npy"
ITEMS = "items.parquet"
PIECES = "pieces.npy"
OFFSETS = "offsets.npy"
CONTENTS = "contents.json"
REMEDY = "run `kedro run --pipeline embed` again"


@dataclass(frozen=True, slots=True)
class EmbeddingSet:
    """Embeddings of one side of a collection."""

    ids: tuple[str, ...]
    sources: tuple[str, ...]  # checksum of the feature that each was made from; empty when not known
    vectors: np.ndarray  # (n, E) float32, rows of unit length; memory-mapped
    checkpoint: str
    pieces: Pieces | None = None  # of a library


@dataclass(frozen=True, slots=True)
class Pieces:
    """Embeddings of the pieces of the items of a library.

    Attributes:
        vectors: (m, E) float16, rows of unit length; memory-mapped.
        offsets: (n + 1,) int64; item i has the rows `offsets[i]` to `offsets[i + 1]`, at least one, in order of time.
        params: Length and distance of the pieces.
    """

    vectors: np.ndarray
    offsets: np.ndarray
    params: PieceParams

    def take(self, row: int) -> np.ndarray:
        """(k, E) float32, the pieces of one item."""
        import numpy as np

        return np.asarray(self.vectors[self.offsets[row] : self.offsets[row + 1]], np.float32)


@dataclass(frozen=True, slots=True)
class EmbeddingPlan:
    """Embeddings that are computed while they are written."""

    ids: tuple[str, ...]
    sources: tuple[str, ...]  # checksum of the feature of each, or empty
    dim: int
    checkpoint: str
    chunks: Iterator[np.ndarray]  # (k, E) float32 rows in order; of a library the pieces of one item each
    n_reused: int = 0
    pieces: PieceParams | None = None  # of a library


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


def plan_library_embeddings(
    store: FeatureStore | JointStore,
    ids: Sequence[str],
    backend: WholeFileBackend | JointBackend,
    checkpoint: Checkpoint,
    side: Side,
    known: EmbeddingSet | None = None,
) -> EmbeddingPlan:
    """Embed the pieces of the items of a library that are among `ids`; otherwise as `plan_store_embeddings`."""
    from vmnet_pipeline.inference.pieces import embed_pieces, find_piece_params, split_feature

    checksums = {item_id: store.checksum_of(item_id) for item_id in ids}
    wanted = [item_id for item_id, checksum in checksums.items() if checksum is not None]
    sources = tuple(str(checksums[item_id]) for item_id in wanted)
    params, digest = find_piece_params(backend), digest_checkpoint(checkpoint)
    model, spec = build_from_checkpoint(checkpoint), InputSpec.of(checkpoint.model_config, side)
    is_alike = known is not None and known.pieces is not None and known.pieces.params == params
    old_rows = _find_reusable(known if is_alike else None, digest, wanted, sources)

    def embed_item(item_id: str) -> np.ndarray:
        if known and known.pieces and item_id in old_rows:
            return known.pieces.take(old_rows[item_id])
        return embed_pieces(model, spec, split_feature(backend, store.load(item_id)), backend)

    chunks = map(embed_item, wanted)
    dim = _measure_dim(model, checkpoint)
    return EmbeddingPlan(tuple(wanted), sources, dim, digest, chunks, len(old_rows), params)


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
            rows = planned.chunks if planned.pieces is None else _write_pieces(temporary, planned)
            for chunk in rows:
                writer.add(chunk)
                bar.add(len(chunk))
        list_rows(planned).to_parquet(temporary / ITEMS, index=False)
        names = (VECTORS, ITEMS) if planned.pieces is None else (VECTORS, ITEMS, PIECES, OFFSETS)
        contents = {
            "format_version": 1,
            "checkpoint": planned.checkpoint,
            "n_items": len(planned.ids),
            **({} if planned.pieces is None else {"pieces": planned.pieces.model_dump()}),
            "files": describe_files(temporary, names),
        }
        (temporary / CONTENTS).write_text(add_checksum(contents), encoding="utf-8")


def _write_pieces(folder: Path, planned: EmbeddingPlan) -> Iterator[np.ndarray]:
    """Write the pieces of a library; yield the vector of each whole file, the mean direction of its pieces."""
    import numpy as np

    offsets = [0]
    with ArrayWriter(folder / PIECES, (planned.dim,), "<f2") as writer:
        for pieces in planned.chunks:
            writer.add(pieces)
            offsets.append(offsets[-1] + len(pieces))
            mean = pieces.mean(axis=0, dtype=np.float64)
            yield np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)[None]
    np.save(folder / OFFSETS, np.array(offsets, np.int64), allow_pickle=False)


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
        pieces = _read_pieces(folder, contents["pieces"], len(table)) if "pieces" in contents else None
        made_by = str(contents["checkpoint"])
        embeddings = EmbeddingSet(tuple(table["id"]), tuple(table["source"]), vectors, made_by, pieces)
        is_whole = vectors.ndim == 2 and len(embeddings.ids) == len(vectors) == contents["n_items"]
    except FileNotFoundError as error:
        raise SearchIndexError(f"there are no embeddings in {folder}; {REMEDY}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SearchIndexError(f"the embeddings in {folder} are damaged ({error}); remove them and {REMEDY}") from error
    if not is_whole:
        raise SearchIndexError(f"the embeddings in {folder} are damaged: parts differ in length; {REMEDY}")
    return embeddings


def _read_pieces(folder: Path, params: Any, n_items: int) -> Pieces:
    """The pieces of a library.

    Raises:
        ValueError: The files do not belong together.
    """
    from vmnet_pipeline.params import PieceParams

    vectors, offsets = map_array(folder / PIECES), read_array(folder / OFFSETS)
    is_whole = offsets.shape == (n_items + 1,) and offsets.dtype.kind == "i" and offsets[0] == 0
    if not is_whole or offsets[-1] != len(vectors) or (offsets[1:] <= offsets[:-1]).any():
        raise ValueError("its pieces do not belong to its items")
    return Pieces(vectors, offsets, PieceParams.model_validate(params))


def list_rows(embeddings: EmbeddingSet | EmbeddingPlan) -> pd.DataFrame:
    """Columns `id` and `source`, one row per vector."""
    import pandas as pd

    return pd.DataFrame({"id": embeddings.ids, "source": embeddings.sources}, dtype="str")
