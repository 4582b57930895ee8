"""Pack pairs: pooled features of both sides in two memory-mapped arrays, ordered train, val, test.

Every feature is read once: checked, pooled and packed in one pass. All problems come in one report at the end, so that
a collection need not be repaired file by file.

A folder holds `music.npy`, (n, D) or (n, T, D) float32; `video.npy`, (n, D) float32; and `pairs.json`: ids, groups,
sizes of the subsets, fingerprints of both features, checksums of the other files and of itself. A side packed as
sequences has its steps in these files, see `sequences`, and its limit of steps in `pairs.json`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from vmnet_pipeline.errors import FeatureStoreError, PairsError
from vmnet_pipeline.ingestion.splits import SUBSETS, Split
from vmnet_pipeline.pairs.sequences import SequenceWriter, read_sequences, take_steps
from vmnet_pipeline.prefetch import run_ahead
from vmnet_pipeline.progress import track_each
from vmnet_pipeline.storage.arrays import ArrayWriter, map_array
from vmnet_pipeline.storage.atomic import replace_folder, write_text_atomically
from vmnet_pipeline.storage.checksummed import add_checksum, check_files, describe_files, parse_checksummed, parse_json
from vmnet_pipeline.storage.paths import N_AHEAD, is_remote
from vmnet_pipeline.types import FeaturePart, Fingerprint, PairArrays

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from vmnet_pipeline.types import FeatureArray, ItemFeature, Modality, Side

CONTENT_FILE = "pairs.json"
MAX_LISTED = 100

logger = logging.getLogger(__name__)


class FeatureSource(Protocol):
    """Source of the features of one side: a feature store, or the user's own files."""

    @property
    def folder(self) -> Path:
        """The folder to name in messages."""
        ...

    def done_ids(self) -> list[str]:
        """Ids that have a feature."""
        ...

    def path_of(self, item_id: str) -> Path:
        """Where the feature of an item is."""
        ...

    def load(self, item_id: str) -> ItemFeature:
        """The feature of one item.

        Raises:
            PairsError: It cannot be read.
            FeatureStoreError: It cannot be read.
        """
        ...

    def fingerprint(self) -> Fingerprint | None:
        """Identity of the features, None when it is not known."""
        ...


@dataclass(frozen=True, slots=True)
class FeatureSide:
    """One side of the pairs before packing.

    Attributes:
        backend: Name of the backend; empty for features of unknown origin.
        store: Where its features are.
        pool: One item's feature to the form used in training.
        shape: Shape that every item must pool to, (D,) for sequences; None takes that of the first item.
        max_steps: None packs pooled features; a number packs sequences, thinned to so many steps, and `pool` is unused.
        measure: The parts of one item's joint vector, where there are several backends.
    """

    backend: str
    store: FeatureSource
    pool: Callable[[Any], np.ndarray]
    shape: tuple[int, ...] | None = None
    max_steps: int | None = None
    measure: Callable[[Any], tuple[FeaturePart, ...]] | None = None


@dataclass(frozen=True, slots=True)
class PairPlan:
    """Pairs to pack: ids in order with their subset, and the sources of their features.

    Attributes:
        music: Source of the music features.
        video: The same of video.
        split: Ids of the three subsets.
        groups: Group of each item; an item that is not named is its own group.
        left_out: Ids of the split that are not packed, with the backends that have no feature of each.
        problems: Problems found before any feature was read; packing adds to them and then refuses.
        source_key: Digest of everything that decides the packed content; packing is skipped when the folder was
            packed under the same key. Empty: pack always.
        accepted_keys: Keys of other packings that contain this one.
        ids: Id of each item that has another name in the split, because its id is repeated there.
    """

    music: FeatureSide
    video: FeatureSide
    split: Split
    groups: Mapping[str, str]
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    source_key: str = ""
    accepted_keys: tuple[str, ...] = ()
    ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PairFiles:
    """Packed pairs, memory-mapped.

    Attributes:
        ids: Item ids, ordered train, val, test.
        groups: Group of each item.
        music: (n, D) or (n, T, D) float32, or sequences of such steps.
        video: (n, D) float32, or sequences.
        sizes: Number of items per subset.
        fingerprints: Identity of the features of each modality; empty for features of unknown origin.
        split_checksum: Checksum of the split that was packed.
        left_out: Ids of the split that were not packed, with the backends that had no feature of each.
        parts: Parts of the joint vectors, of the sides that have several backends.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    music: FeatureArray
    video: FeatureArray
    sizes: Mapping[str, int]
    fingerprints: dict[Modality, Fingerprint] = field(default_factory=dict)
    split_checksum: str = ""
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parts: Mapping[Side, tuple[FeaturePart, ...]] = field(default_factory=dict)

    def subset(self, name: str) -> PairArrays:
        """The pairs of `train`, `val` or `test` as views; nothing is copied."""
        start = sum(self.sizes[subset] for subset in SUBSETS[: SUBSETS.index(name)])
        part = slice(start, start + self.sizes[name])
        return PairArrays(self.ids[part], self.groups[part], self.music[part], self.video[part], self.parts)

    def __len__(self) -> int:
        return len(self.ids)


def plan_pairs(music: FeatureSide, video: FeatureSide, split: Split, groups: Mapping[str, str]) -> PairPlan:
    """Keep the ids of the split that every backend of both sides has a feature of.

    Raises:
        PairsError: Nothing is left for training or for testing.
    """
    stores = {**_stores_of(music), **_stores_of(video)}
    done = {backend: {*store.done_ids()} for backend, store in stores.items()}
    usable = set.intersection(*done.values())
    kept = {subset: tuple(item_id for item_id in getattr(split, subset) if item_id in usable) for subset in SUBSETS}
    left_out = {
        item_id: tuple(backend for backend, ids in done.items() if item_id not in ids)
        for subset in SUBSETS
        for item_id in getattr(split, subset)
        if item_id not in usable
    }
    for subset in ("train", "test"):
        if getattr(split, subset) and not kept[subset]:
            raise PairsError(
                f"None of the {len(getattr(split, subset))} ids of {subset}.csv has features in all of "
                f"{', '.join(str(store.folder) for store in stores.values())}. Run "
                f"{' and '.join(f'`kedro run --pipeline extract_{backend}`' for backend in stores)} on this "
                "collection first."
            )
    return PairPlan(music, video, Split(**kept), groups, left_out)


def check_testable(ids: Sequence[str]) -> None:
    """Refuse a single test pair before anything is trained, as its evaluation would.

    Raises:
        PairsError: There is one.
    """
    if len(ids) == 1:
        raise PairsError(
            f"{ids[0]!r} is the only test pair that can be used, and one pair always has rank 1: give test.csv, or the "
            "test share, two or more pairs whose features are there."
        )


def _stores_of(side: FeatureSide) -> Mapping[str, FeatureSource]:
    """Backend to its store."""
    return getattr(side.store, "stores", None) or {side.backend: side.store}


def write_pairs(folder: Path, pairs: PairPlan) -> None:
    """Check, pool and pack features one item at a time; the folder appears whole or not at all.

    Raises:
        PairsError: Something is wrong; the message lists every problem of every item, not only the first.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        packed = parse_json((folder / CONTENT_FILE).read_text(encoding="utf-8")).get("source_key")
        if packed and packed in (pairs.source_key, *pairs.accepted_keys):
            logger.info("%s is packed already: no file has changed", folder)
            return
    ids = [item_id for subset in SUBSETS for item_id in getattr(pairs.split, subset)]
    with replace_folder(folder) as temporary:
        problems = list(pairs.problems)
        for name, side in _sides_of(pairs):
            problems += _pack_side(temporary / f"{name}.npy", side, ids)
        _refuse_problems(problems, folder.with_name(f"{folder.name}_problems.txt"))
        files = describe_files(temporary, sorted(path.name for path in temporary.iterdir()))
        content = {**_describe_pairs(pairs, ids), "files": files}
        (temporary / CONTENT_FILE).write_text(add_checksum(content), encoding="utf-8")


def _refuse_problems(problems: list[str], listing: Path) -> None:
    """Raise one error with all problems; a long list is cut in the message and whole in the file `listing`."""
    listing.unlink(missing_ok=True)
    if not problems:
        return
    if len(problems) == 1:
        raise PairsError(problems[0])
    lines = [f"{len(problems)} problems with the features:", *(f"  {problem}" for problem in problems[:MAX_LISTED])]
    if len(problems) > MAX_LISTED:
        write_text_atomically(listing, "\n".join(problems) + "\n")
        lines.append(f"  ... and {len(problems) - MAX_LISTED} more; all of them are listed in {listing}")
    raise PairsError("\n".join(lines))


def _pack_side(path: Path, side: FeatureSide, ids: list[str]) -> list[str]:
    """Pack one side and return its problems; with any, the file is unusable."""
    writer: SequenceWriter | ArrayWriter | None = None
    shape, problems = side.shape, []
    loads = run_ahead(side.store.load, ids, N_AHEAD if is_remote(side.store.folder) else 0)
    with contextlib.ExitStack() as opened:
        for item_id, load in track_each(f"packing {path.stem}", zip(ids, loads, strict=True), len(ids)):
            try:
                rows = _make_rows(side, item_id, load(), shape)
            except (PairsError, FeatureStoreError) as error:
                problems.append(str(error))
                continue
            shape = rows.shape[1:]
            if writer is None:
                writer = SequenceWriter(path, shape[0]) if side.max_steps else ArrayWriter(path, shape)
                opened.enter_context(contextlib.closing(writer))
            writer.add(rows)
    if writer is None and not problems:
        problems.append(f"Nothing to pack from {side.store.folder}.")
    return problems


def _make_rows(side: FeatureSide, item_id: str, feature: Any, shape: tuple[int, ...] | None) -> np.ndarray:
    """Make the rows of one item: its steps, (T, D) float32, or one row, (1, *shape) float32.

    Raises:
        PairsError: It does not pool to `shape`, or is not finite.
    """
    import numpy as np

    path = side.store.path_of(item_id)
    try:
        rows = take_steps(feature, side.max_steps) if side.max_steps else side.pool(feature)[None]
    except PairsError as error:
        raise PairsError(f"{path}: {error}") from error
    rows = rows.astype(np.float32, copy=False)
    if shape is not None and rows.shape[1:] != shape:
        raise PairsError(
            f"Item {item_id!r} ({path}) pools to shape {rows.shape[1:]}, the other items to {shape}. "
            "All features of one side must have the same width: extract it again or remove it."
        )
    if not np.isfinite(rows).all():
        raise PairsError(f"Item {item_id!r} ({path}) has NaN or infinity. Extract it again or remove it.")
    return rows


def _describe_pairs(pairs: PairPlan, ids: list[str]) -> dict[str, Any]:
    stores: dict[Modality, FeatureSource] = {"audio": pairs.music.store, "video": pairs.video.store}
    fingerprints = {modality: store.fingerprint() for modality, store in stores.items()}
    return {
        "ids": [pairs.ids.get(key, key) for key in ids],
        "groups": [pairs.groups.get(item_id, item_id) for item_id in ids],
        "sizes": {subset: len(getattr(pairs.split, subset)) for subset in SUBSETS},
        "fingerprints": {modality: json.loads(item.to_json()) for modality, item in fingerprints.items() if item},
        "split_checksum": pairs.split.checksum,
        "left_out": {item_id: list(backends) for item_id, backends in pairs.left_out.items()},
        "parts": _measure_parts(pairs, ids),
        "source_key": pairs.source_key,
        "max_steps": {name: side.max_steps for name, side in _sides_of(pairs) if side.max_steps},
    }


def _measure_parts(pairs: PairPlan, ids: list[str]) -> dict[str, list[tuple[str, int]]]:
    """Backend and width of every part of the sides that have several; all items have those of the first."""
    joint = {name: side.measure(side.store.load(ids[0])) for name, side in _sides_of(pairs) if side.measure}
    return {name: [(part.backend, part.width) for part in parts] for name, parts in joint.items()}


def _sides_of(pairs: PairPlan) -> tuple[tuple[str, FeatureSide], tuple[str, FeatureSide]]:
    return ("music", pairs.music), ("video", pairs.video)


def read_pairs(folder: Path, *, verify: bool = False) -> PairFiles:
    """Open packed pairs; the arrays stay on disk until they are used. `verify` compares them with their checksums.

    Raises:
        PairsError: The folder is missing or damaged.
    """
    try:
        content = parse_checksummed((folder / CONTENT_FILE).read_text(encoding="utf-8"))
        if verify:
            check_files(folder, content.get("files", {}))
        max_steps = {name: min(int(n), sys.maxsize) for name, n in content.get("max_steps", {}).items()}
        music = _open_side(folder / "music.npy", max_steps.get("music"))
        video = _open_side(folder / "video.npy", max_steps.get("video"))
        sizes = {subset: int(content["sizes"][subset]) for subset in SUBSETS}
        pairs = PairFiles(
            tuple(content["ids"]), tuple(content["groups"]), music, video, sizes,
            {modality: Fingerprint(**item) for modality, item in content["fingerprints"].items()},
            content["split_checksum"], _read_left_out(content["left_out"]),
            {side: tuple(FeaturePart(str(backend), int(width)) for backend, width in parts)
             for side, parts in content.get("parts", {}).items()},
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PairsError(
            f"{folder} has no packed pairs that can be read ({error}). Run `kedro run --pipeline train`."
        ) from error
    lengths = {len(pairs.ids), len(pairs.groups), len(music), len(video), sum(sizes.values())}
    if min(sizes.values()) < 0 or len(lengths) > 1:
        raise PairsError(
            f"{folder} is damaged: its parts differ in length. Remove it and run `kedro run --pipeline train`."
        )
    return pairs


def _read_left_out(content: Any) -> dict[str, tuple[str, ...]]:
    """Also of pairs that were packed before backends were named."""
    return {item_id: tuple(content[item_id]) if isinstance(content, dict) else () for item_id in content}


def _open_side(path: Path, max_steps: int | None) -> FeatureArray:
    return read_sequences(path, max_steps) if max_steps else map_array(path)
