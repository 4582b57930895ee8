"""Packed pairs: pooled features of both sides in two memory-mapped arrays, ordered train, val, test.

A folder with `music.npy`, (n, D) or (n, T, D) float32; `video.npy`, (n, D) float32; and `pairs.json`: ids, groups,
sizes of the sides, fingerprints of both features.
"""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.files import TEMPORARY_PREFIX
from vmnet_pipeline.records import Fingerprint, PairArrays
from vmnet_pipeline.splitting import SIDES, Split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np

    from vmnet_pipeline.feature_store import FeatureStore
    from vmnet_pipeline.records import Modality

CONTENT_FILE = "pairs.json"


@dataclass(frozen=True, slots=True)
class FeatureSide:
    """One side of the pairs before packing.

    Attributes:
        backend: Name of the backend.
        store: Where its features are.
        pool: One item's feature to the form used in training.
    """

    backend: str
    store: FeatureStore
    pool: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class UnpackedPairs:
    """What is to be packed: ids in order with their side, and where the features come from."""

    music: FeatureSide
    video: FeatureSide
    split: Split
    groups: Mapping[str, str]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PairSet:
    """Packed pairs, memory-mapped.

    Attributes:
        ids: Item ids, ordered train, val, test.
        groups: Group of each item.
        music: (n, D) or (n, T, D) float32.
        video: (n, D) float32.
        sizes: Number of items per side.
        fingerprints: Identity of the features of each modality; empty for features of unknown origin.
        split_checksum: Checksum of the split that was packed.
        left_out: Ids of the split that have no features.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    music: np.ndarray
    video: np.ndarray
    sizes: Mapping[str, int]
    fingerprints: dict[Modality, Fingerprint] = field(default_factory=dict)
    split_checksum: str = ""
    left_out: tuple[str, ...] = ()

    def side(self, name: str) -> PairArrays:
        """The pairs of one side (`train`, `val` or `test`) as views; nothing is copied."""
        start = sum(self.sizes[side] for side in SIDES[: SIDES.index(name)])
        part = slice(start, start + self.sizes[name])
        return PairArrays(self.ids[part], self.groups[part], self.music[part], self.video[part])

    def __len__(self) -> int:
        return len(self.ids)


def plan_pairs(music: FeatureSide, video: FeatureSide, split: Split, groups: Mapping[str, str]) -> UnpackedPairs:
    """Keep the ids of the split that have both features.

    Raises:
        PairsError: Nothing is left for training or for testing.
    """
    usable = {*music.store.done_ids()} & {*video.store.done_ids()}
    kept = {side: tuple(item_id for item_id in getattr(split, side) if item_id in usable) for side in SIDES}
    left_out = tuple(item_id for side in SIDES for item_id in getattr(split, side) if item_id not in usable)
    for side in ("train", "test"):
        if getattr(split, side) and not kept[side]:
            raise PairsError(
                f"None of the {len(getattr(split, side))} ids of {side}.csv has features in both {music.store.folder} "
                f"and {video.store.folder}. Run `kedro run --pipeline extract_{music.backend}` and "
                f"`kedro run --pipeline extract_{video.backend}` on this collection first."
            )
    return UnpackedPairs(music, video, Split(**kept), groups, left_out)


def write_pairs(folder: Path, pairs: UnpackedPairs) -> None:
    """Pool and pack features one item at a time; the folder appears whole or not at all.

    Raises:
        PairsError: Features of one side differ in shape; the message names the first such item.
    """
    ids = [item_id for side in SIDES for item_id in getattr(pairs.split, side)]
    temporary = folder.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        for name, side in (("music", pairs.music), ("video", pairs.video)):
            _pack_side(temporary / f"{name}.npy", side, ids)
        (temporary / CONTENT_FILE).write_text(json.dumps(_describe_pairs(pairs, ids)), encoding="utf-8")
        old = folder.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        if folder.exists():
            folder.replace(old)
        temporary.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _pack_side(path: Path, side: FeatureSide, ids: list[str]) -> None:
    import numpy as np

    packed: np.memmap | None = None
    for index, item_id in enumerate(ids):
        pooled = side.pool(side.store.load(item_id)).astype(np.float32, copy=False)
        if packed is None:
            packed = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(len(ids), *pooled.shape))
        if pooled.shape != packed.shape[1:]:
            raise PairsError(
                f"Item {item_id!r} in {side.store.folder} pools to shape {pooled.shape}, the items before it to "
                f"{packed.shape[1:]}. All features of one side must have one width: extract it again or remove it."
            )
        if not np.isfinite(pooled).all():
            raise PairsError(
                f"Item {item_id!r} in {side.store.folder} has NaN or infinity. Remove the file and extract again."
            )
        packed[index] = pooled
    if packed is None:
        raise PairsError(f"There is nothing to pack from {side.store.folder}.")
    packed.flush()


def _describe_pairs(pairs: UnpackedPairs, ids: list[str]) -> dict[str, Any]:
    stores = {"audio": pairs.music.store, "video": pairs.video.store}
    fingerprints = {modality: store.fingerprint() for modality, store in stores.items()}
    return {
        "ids": ids,
        "groups": [pairs.groups.get(item_id, item_id) for item_id in ids],
        "sizes": {side: len(getattr(pairs.split, side)) for side in SIDES},
        "fingerprints": {modality: json.loads(item.to_json()) for modality, item in fingerprints.items() if item},
        "split_checksum": pairs.split.checksum,
        "left_out": list(pairs.left_out),
    }


def read_pairs(folder: Path) -> PairSet:
    """Open packed pairs; the arrays stay on disk until they are used.

    Raises:
        PairsError: The folder is missing or damaged.
    """
    import numpy as np

    try:
        content = json.loads((folder / CONTENT_FILE).read_text(encoding="utf-8"))
        music = np.load(folder / "music.npy", mmap_mode="r", allow_pickle=False)
        video = np.load(folder / "video.npy", mmap_mode="r", allow_pickle=False)
        pairs = PairSet(
            tuple(content["ids"]), tuple(content["groups"]), music, video, content["sizes"],
            {modality: Fingerprint(**item) for modality, item in content["fingerprints"].items()},
            content["split_checksum"], tuple(content["left_out"]),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PairsError(
            f"{folder} has no packed pairs that can be read ({error}). Run `kedro run --pipeline train`."
        ) from error
    if not len(pairs.ids) == len(pairs.groups) == len(music) == len(video) == sum(pairs.sizes.values()):
        raise PairsError(
            f"{folder} is damaged: its parts differ in length. Remove it and run `kedro run --pipeline train`."
        )
    return pairs
