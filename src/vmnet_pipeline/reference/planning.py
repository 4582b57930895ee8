"""Plan the packing of feature files in the layout of the reference: csv files, headers, pooling.

All problems are collected here; the values are read once, when the pairs are packed.

Source: the pooling is that of github.com/MorrisXu-Driving/Video-Music_Cross-Modal_Retrival.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.ingestion.splits import SUBSETS, Split, split_by_group
from vmnet_pipeline.ingestion.ties import tie_groups
from vmnet_pipeline.pairs.packing import FeatureSide, PairPlan
from vmnet_pipeline.reference.equal_files import label_equal_arrays
from vmnet_pipeline.reference.feature_files import FeatureFiles
from vmnet_pipeline.reference.layout import N_PATCHES, N_VGGISH_CHANNELS, read_shape
from vmnet_pipeline.reference.shapes import check_axes, explain_axes
from vmnet_pipeline.reference.tables import read_tables
from vmnet_pipeline.storage.arrays import read_array
from vmnet_pipeline.storage.names import hint_at_case
from vmnet_pipeline.types import MODALITY_OF

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from vmnet_pipeline.reference.layout import ReferenceLayout, SubsetFiles, Variant
    from vmnet_pipeline.reference.tables import ReferenceTables
    from vmnet_pipeline.types import Fingerprint, Modality

    Paths: TypeAlias = Mapping[Modality, Mapping[str, Path]]
    Shapes: TypeAlias = Mapping[str, tuple[int, ...] | None]

logger = logging.getLogger(__name__)

PACKING_VERSION = 1


@dataclass(frozen=True, slots=True)
class FileSource:
    """Features in files of unknown origin, see `pairs.packing.FeatureSource`."""

    folder: Path
    paths: Mapping[str, Path]

    def done_ids(self) -> list[str]:
        """Ids whose file is there."""
        return [item_id for item_id, path in self.paths.items() if path.is_file()]

    def path_of(self, item_id: str) -> Path:
        """The file of an item, whether it is there or not."""
        return self.paths[item_id]

    def fingerprint(self) -> Fingerprint | None:
        """None: nothing tells how these files were made."""
        return None

    def load(self, item_id: str) -> np.ndarray:
        """One array, as it is in the file.

        Raises:
            PairsError: The file is missing, damaged, or holds no numbers.
        """
        path = self.paths[item_id]
        try:
            array = read_array(path)
        except FileNotFoundError as error:
            near = hint_at_case(path)
            raise PairsError(f"{path} is missing{near}. Add it, or take {item_id!r} out of the csv file.") from error
        except (OSError, ValueError) as error:
            raise PairsError(f"{path} is not a readable .npy file ({error}). Replace it.") from error
        if array.size == 0:
            raise PairsError(f"{path} is empty, shape {array.shape}. Replace it.")
        return array


# --- pooling


def pool_vectors(feature: np.ndarray, what: str) -> np.ndarray:
    """(D,) as it is, (T, D) to (D,) float32 by the mean over time.

    Raises:
        PairsError: The feature has another number of axes.
    """
    import numpy as np

    if feature.ndim not in (1, 2):
        raise PairsError(explain_axes(what, feature.shape))
    return np.asarray(feature if feature.ndim == 1 else feature.mean(axis=0, dtype=np.float64), np.float32)


def pool_patches(feature: np.ndarray, n_patches: int) -> np.ndarray:
    """(T, C, time, mel) or (T, C) to (n_patches, C) float32: means over time and mel; T is cut or looped to fit.

    Raises:
        PairsError: The feature has another number of axes.
    """
    import numpy as np

    from vmnet_pipeline.backends.vggish import average_patches

    if feature.ndim not in (2, 4):
        raise PairsError(f"music feature of shape {feature.shape}: vmnet_vggish needs (T, C, time, mel) or (T, C)")
    patches = feature if feature.ndim == 2 else average_patches(feature)
    return np.asarray(patches[np.arange(n_patches) % len(patches)], np.float32)


# --- the plan


def plan_reference_pairs(
    layout: ReferenceLayout,
    *,
    val_share: float,
    seed: int,
    holds_out_val: bool = True,
    music_steps: int | None = None,
    video_steps: int | None = None,
    allows_repeats: bool = False,
) -> PairPlan:
    """Read the csv files and the headers of all features; packing the result reads and checks every value.

    Args:
        layout: The files.
        val_share: Share of the training groups held out for model selection when there is no val.csv, 0-1.
        seed: Of that division.
        holds_out_val: False uses all training items for training, as the reference does.
        music_steps: Pack music as sequences of at most so many steps; None pools it as the variant does.
        video_steps: The same of video.
        allows_repeats: See `read_tables`.

    Raises:
        PairsError: The csv files contradict themselves; the message lists every problem.
    """
    tables = read_tables(layout.subsets, allows_repeats=allows_repeats)
    paths = _list_paths(layout.subsets, tables)
    groups = _tie_equal_files(tables, paths)
    split = tables.split if allows_repeats else _leave_out_known(tables.split, tables, groups)
    if split.train and not split.val and holds_out_val:
        split = _hold_out_val(split, groups, val_share, seed)
    form = f"{layout.variant} {music_steps} {video_steps}" if music_steps or video_steps else layout.variant
    key = _digest_sources(form, split, groups, paths)
    if layout.test_only and "test" in layout.subsets and len(layout.subsets) > 1:
        test = replace(layout, subsets={"test": layout.subsets["test"]})
        plan = plan_reference_pairs(
            test,
            val_share=val_share,
            seed=seed,
            music_steps=music_steps,
            video_steps=video_steps,
            allows_repeats=allows_repeats,
        )
        return replace(plan, accepted_keys=(key,))
    sides = _plan_sides(layout, paths, _read_shapes(paths), music_steps, video_steps)
    problems = tuple(tables.problems)
    return PairPlan(*sides, split, groups, problems=problems, source_key=key, ids=tables.ids)


def peek_shapes(
    layout: ReferenceLayout, music_steps: int | None = None, video_steps: int | None = None
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Read from headers the shapes per item, music and video, that the test files pool to; None if unknown.

    Of a side that is packed as sequences it is (most steps, D).
    """
    subsets = {name: files for name, files in layout.subsets.items() if name == "test"}
    paths = _list_paths(subsets, read_tables(subsets, allows_repeats=True))
    shapes = _read_shapes(paths)
    if not any(shapes["audio"].values()) or not any(shapes["video"].values()):
        return None
    music, video = (side.shape for side in _plan_sides(layout, paths, shapes, music_steps, video_steps))
    if music is None or video is None:
        return None
    return (music_steps, *music) if music_steps else music, (video_steps, *video) if video_steps else video


def _list_paths(subsets: Mapping[str, SubsetFiles], tables: ReferenceTables) -> Paths:
    def list_modality(modality: Modality) -> dict[str, Path]:
        files = {subset: FeatureFiles(found.data_dir, modality) for subset, found in subsets.items()}
        return {key: files[subset].find(tables.id_of(key)) for subset in SUBSETS for key in tables.rows[subset]}

    return {"audio": list_modality("audio"), "video": list_modality("video")}


def _tie_equal_files(tables: ReferenceTables, paths: Paths) -> dict[str, str]:
    """The group of every key; items with equal arrays of audio or of video share one, see `ties.tie_groups`."""
    import pandas as pd

    labels = {modality: label_equal_arrays(files) for modality, files in paths.items()}
    if not any(labels.values()):
        return tables.groups
    keys = pd.Series(list(tables.groups), dtype="str")
    given = keys.map({key: "" if group == tables.id_of(key) else group for key, group in tables.groups.items()})
    tied = tie_groups(keys, given, [keys.map(found) for found in labels.values()])
    groups = dict(zip(keys, tied, strict=True))
    n_before, n_after = len(set(tables.groups.values())), len(set(groups.values()))
    logger.info(
        "%d item(s) have the audio and %d the video of another one; such items are one group: %d groups, %d before",
        len(labels["audio"]), len(labels["video"]), n_after, n_before,
    )  # fmt: skip
    return groups


def _leave_out_known(split: Split, tables: ReferenceTables, groups: Mapping[str, str]) -> Split:
    """Leave out training items in the group of a held-out item, and validation items in that of a test item.

    Equal arrays tie them; where the csv files do, packing refuses, see `read_tables`.
    """
    held_out = {groups[key] for key in split.test}
    val = tuple(key for key in split.val if groups[key] not in held_out)
    held_out |= {groups[key] for key in val}
    train = tuple(key for key in split.train if groups[key] not in held_out)
    if left_out := [key for key in (*split.train, *split.val) if key not in {*train, *val}]:
        logger.warning(
            "%d item(s) of training or validation are left out: held-out items have the same audio or video, and "
            "results would be inflated by leakage, e.g. %s",
            len(left_out), ", ".join(tables.id_of(key) for key in left_out[:5]),
        )  # fmt: skip
    return Split(train, val, split.test)


def _hold_out_val(split: Split, groups: Mapping[str, str], val_share: float, seed: int) -> Split:
    names = [groups[item_id] for item_id in split.train]
    if len(set(names)) < 4 or not 0.0 < val_share < 1.0:
        logger.warning("too few training groups to hold some out for validation: the last epoch is kept")
        return split
    parts = split_by_group(split.train, names, {"train": 1.0 - val_share, "val": val_share, "test": 0.0}, seed)
    logger.info("there is no val.csv: %d of %d training items are held out", len(parts.val), len(split.train))
    return Split(parts.train, parts.val, split.test)


def _read_shapes(paths: Paths) -> dict[Modality, Shapes]:
    return {modality: {item_id: read_shape(path) for item_id, path in paths[modality].items()} for modality in paths}


def _plan_sides(
    layout: ReferenceLayout,
    paths: Paths,
    shapes: Mapping[Modality, Shapes],
    music_steps: int | None,
    video_steps: int | None,
) -> tuple[FeatureSide, FeatureSide]:
    for what, modality in MODALITY_OF.items():
        check_axes(what, shapes[modality])
    root = _common_folder(layout.subsets)
    music, video = (FileSource(root, paths[modality]) for modality in ("audio", "video"))
    return (
        _plan_music(music, shapes["audio"], layout.variant, music_steps),
        _plan_vectors(video, shapes["video"], "video", video_steps),
    )


def _plan_music(source: FileSource, shapes: Shapes, variant: Variant, max_steps: int | None) -> FeatureSide:
    if variant == "vmnet_musicnn" or max_steps:
        return _plan_vectors(source, shapes, "music", max_steps)
    usable = {item_id: shape for item_id, shape in shapes.items() if shape and len(shape) in (2, 4)}
    n_patches = _commonest([shape[0] for shape in usable.values()])
    n_channels = _commonest([shape[1] for shape in usable.values()])
    if n_patches is None or n_channels is None:
        return FeatureSide("", source, partial(pool_patches, n_patches=N_PATCHES), (N_PATCHES, N_VGGISH_CHANNELS))
    unlike = sorted(item_id for item_id, shape in usable.items() if shape[0] != n_patches)
    if unlike:
        logger.warning(
            "%d of %d music features do not have %d patches and are cut or repeated to fit, e.g. %s",
            len(unlike), len(usable), n_patches, ", ".join(unlike[:5]),
        )  # fmt: skip
    return FeatureSide("", source, partial(pool_patches, n_patches=n_patches), (n_patches, n_channels))


def _plan_vectors(source: FileSource, shapes: Shapes, what: str, max_steps: int | None) -> FeatureSide:
    # Of (T, C, time, mel), which only sequences take, the width is that of the second axis.
    ranks = (2, 4) if max_steps else (1, 2)
    width = _commonest([shape[min(1, len(shape) - 1)] for shape in shapes.values() if shape and len(shape) in ranks])
    return FeatureSide("", source, partial(pool_vectors, what=what), None if width is None else (width,), max_steps)


def _commonest(values: Sequence[int]) -> int | None:
    """Find the most common value, the larger of equally common ones, so that the odd file out is reported."""
    counts = Counter(values)
    return max(counts, key=lambda value: (counts[value], value)) if counts else None


def _common_folder(subsets: Mapping[str, SubsetFiles]) -> Path:
    folders = {files.data_dir.parent for files in subsets.values()}
    return folders.pop() if len(folders) == 1 else next(iter(subsets.values())).data_dir


def _digest_sources(form: str, split: Split, groups: Mapping[str, str], paths: Paths) -> str:
    """Digest what decides the packed arrays; files count by path, size and modification time."""
    digest = hashlib.sha256(f"{PACKING_VERSION}\t{form}\t{split.checksum}".encode())
    for item_id, group in groups.items():
        digest.update(f"\n{item_id}\t{group}".encode())
    for path in (path for files in paths.values() for path in files.values()):
        digest.update(f"\n{path.absolute()}\t{_describe_file(path)}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _describe_file(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return "missing"
    return f"{status.st_size}\t{status.st_mtime_ns}"
