"""Pairs for `real.py`: from files of paired arrays, and from a folder of clips with the project's own features."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.backends.weights import DEFAULT_WEIGHTS_DIR
from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.storage.arrays import read_array
from vmnet_pipeline.types import PairArrays

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

SIDE_NAMES = {"music": ("music", "audio"), "video": ("video",)}
SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".pt")
GROUP_COLUMNS = ("group", "source")
ROOT = Path(__file__).resolve().parents[1]
MIN_GROUPS = 2  # of every subset


@dataclass(frozen=True)
class FeatureSet:
    """The backends of each side: name to the parameters that differ from the defaults."""

    music: Mapping[str, Mapping[str, Any]]
    video: Mapping[str, Mapping[str, Any]]


NETWORKS = FeatureSet({"musicnn": {}}, {"efficientnet": {}})
COMPACT = FeatureSet({"descriptors_audio": {}}, {"descriptors_video": {}})
VMNET2017 = FeatureSet({"vmnet2017": {}}, COMPACT.video)
FEATURE_SETS = {
    "networks": NETWORKS,
    "descriptors": COMPACT,
    "vmnet2017": VMNET2017,
    "starter": FeatureSet({**COMPACT.music, **VMNET2017.music}, COMPACT.video),
    "fused": FeatureSet({**NETWORKS.music, **COMPACT.music, **VMNET2017.music}, {**NETWORKS.video, **COMPACT.video}),
}
"""Those of the variants `vmnet_musicnn` (networks) and `vmnet_fused`, and what the starter model is fitted to."""


def describe_backend(name: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a backend as the nodes take them."""
    return {"backend": name, "weights_dir": str(ROOT / DEFAULT_WEIGHTS_DIR), **own}


# --- a folder of arrays


def load_arrays(folder: Path) -> PairArrays:
    """Pairs of audio.* or music.* and video.*; row i of both is one pair. `groups.txt` may have a group per row.

    Arrays are (n, D), or (n, T, D), of which the mean over T is taken.

    Raises:
        PairsError: A file is missing or cannot be used; the message names it.
    """
    music, video = (_read_side(folder, side) for side in SIDE_NAMES)
    if len(music) != len(video):
        raise PairsError(f"{folder}: {len(music)} rows of audio and {len(video)} of video; row i of both is one pair")
    ids = tuple(f"{row:07d}" for row in range(len(music)))
    given = folder / "groups.txt"
    groups = given.read_text(encoding="utf-8").splitlines() if given.is_file() else [""] * len(ids)
    if len(groups) != len(ids):
        raise PairsError(f"{given} has {len(groups)} lines and the arrays {len(ids)} rows; give one group per row")
    return PairArrays(ids, tuple(groups), music, video)


def _read_side(folder: Path, side: str) -> np.ndarray:
    names = [f"{name}{suffix}" for name in SIDE_NAMES[side] for suffix in SUFFIXES]
    found = [path for path in map(folder.joinpath, names) if path.is_file()]
    if len(found) != 1:
        what = f"has {' and '.join(path.name for path in found)}; keep one" if found else f"has none of {names}"
        raise PairsError(f"{folder} {what}")
    path = found[0]
    try:
        array = np.asarray(READERS[path.suffix](path))
    except (OSError, ValueError, RuntimeError, KeyError, EOFError) as error:
        raise PairsError(f"{path} cannot be read ({error})") from error
    if array.ndim not in (2, 3) or array.dtype.kind not in "fiu" or not array.size:
        raise PairsError(f"{path} holds {array.dtype} of shape {array.shape}; (n, D) or (n, T, D) numbers are needed")
    pooled = np.asarray(array, np.float32) if array.ndim == 2 else array.mean(axis=1, dtype=np.float64).astype("f4")
    if len(wrong := np.flatnonzero(~np.isfinite(pooled).all(axis=1))):
        raise PairsError(f"{path}: {len(wrong)} row(s) have NaN or infinity, the first is {wrong[0]}; take them out")
    return pooled


def _read_npz(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as content:
        return np.asarray(content[_only(path, content.files)])


def _read_h5(path: Path) -> np.ndarray:
    try:
        import h5py
    except ImportError as error:
        raise PairsError(f"{path} needs h5py: run `pip install h5py`, or save the array as .npy") from error
    with h5py.File(path) as file:
        return np.asarray(file[_only(path, [name for name in file if isinstance(file[name], h5py.Dataset)])])


def _read_pt(path: Path) -> np.ndarray:
    import pickle

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PairsError(f"{path} holds more than tensors; save the tensor alone by torch.save") from error
    if isinstance(content, dict):
        content = content[_only(path, list(content))]
    return np.asarray(content.float().numpy() if isinstance(content, torch.Tensor) else content)


def _only(path: Path, names: list[str]) -> str:
    if len(names) != 1:
        raise PairsError(f"{path} has {len(names)} arrays ({', '.join(map(str, names[:5]))}); keep one")
    return names[0]


READERS: dict[str, Any] = {
    ".npy": read_array, ".npz": _read_npz, ".h5": _read_h5, ".hdf5": _read_h5, ".pt": _read_pt,
}  # fmt: skip


# --- a folder of clips


def load_clips(folder: Path, store: Path, sets: Mapping[str, FeatureSet]) -> dict[str, PairArrays]:
    """Pairs of every set of features, of the same clips; features are made once and kept in `store`.

    Groups come from `manifest.tsv` or `media.csv` (columns `file` or `video`, and `group` or `source`), else a clip
    belongs to the folder that it is in. Files without audio or without video are left out.
    """
    from vmnet_pipeline.params import IngestParams
    from vmnet_pipeline.pipelines.ingest.nodes import ingest_media

    manifest, _ = ingest_media(IngestParams(media_dir=str(_write_table(folder, store))), store / "probed")
    usable = manifest[manifest["status"] == "ok"]
    backends = {_place(name, own): (name, own) for one in sets.values() for name, own in _list_backends(one)}
    for place, (name, own) in backends.items():
        _extract(manifest, store / "features" / place, name, own)
    pairs = {title: _pack(usable, store, title, one) for title, one in sets.items()}
    return _keep_common(pairs)


def _list_backends(one: FeatureSet) -> list[tuple[str, Mapping[str, Any]]]:
    return [*one.music.items(), *one.video.items()]


def _place(name: str, own: Mapping[str, Any]) -> str:
    return "-".join([name, *map(str, own.values())])


def _write_table(folder: Path, store: Path) -> Path:
    """A media.csv with absolute paths, as ingestion takes it; the path of the folder's own where it has that form."""
    rows = _read_table(folder) or _list_folder(folder)
    store.mkdir(parents=True, exist_ok=True)
    with (store / "media.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("id", "video", "audio", "group"))
        table.writerows(rows)
    return store / "media.csv"


def _read_table(folder: Path) -> list[tuple[str, str, str, str]]:
    for name, delimiter in (("manifest.tsv", "\t"), ("media.csv", ",")):
        if not (path := folder / name).is_file():
            continue
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [
                {key: value or "" for key, value in row.items() if key}
                for row in csv.DictReader(file, delimiter=delimiter)
            ]
        column = next((key for key in ("file", "video") if rows and key in rows[0]), None)
        if column is None:
            raise PairsError(f"{path} has no column file or video; give one row per clip with its file and group")
        return [_describe_row(folder, row, column) for row in rows if row[column]]
    return []


def _describe_row(folder: Path, row: Mapping[str, str], column: str) -> tuple[str, str, str, str]:
    group = next((row[key] for key in GROUP_COLUMNS if row.get(key)), "")
    audio = row.get("audio", "")
    video = str((folder / row[column]).absolute())
    return row.get("id") or _make_id(row[column]), video, str((folder / audio).absolute()) if audio else "", group


def _list_folder(folder: Path) -> list[tuple[str, str, str, str]]:
    from vmnet_pipeline.ingestion.listing import list_media_files
    from vmnet_pipeline.ingestion.probing import recognise_files

    paths = [Path(path) for path in list_media_files(folder.absolute(), recognise_files)]
    names = [path.relative_to(folder.absolute()) for path in paths]
    return [
        (_make_id(name.as_posix()), str(path), "", name.parent.as_posix())
        for name, path in zip(names, paths, strict=True)
    ]


def _make_id(name: str) -> str:
    return name.replace("/", "_")


def _extract(manifest: pd.DataFrame, place: Path, name: str, own: Mapping[str, Any]) -> None:
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.params import ExtractParams
    from vmnet_pipeline.pipelines.extract.nodes import check_complete, extract_features, plan_missing

    store, params, backend = FeatureStore(place), ExtractParams(), describe_backend(name, own)
    missing = plan_missing(manifest, store, backend, params)
    extract_features(missing, store, backend, params)
    store.reload()
    check_complete(manifest, store, backend, params)


def _pack(usable: pd.DataFrame, store: Path, title: str, one: FeatureSet) -> PairArrays:
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.pairs.packing import read_pairs, write_pairs
    from vmnet_pipeline.params import TrainParams
    from vmnet_pipeline.pipelines.train.nodes import pack_pairs

    features: list[Any] = []
    for name, own in _list_backends(one):
        features += [FeatureStore(store / "features" / _place(name, own)), describe_backend(name, own)]
    plan = pack_pairs(usable, tuple(usable["id"]), (), (), TrainParams(), *features)
    write_pairs(store / "pairs" / title, plan)
    pairs = read_pairs(store / "pairs" / title).subset("train")
    return replace(pairs, music=_average(pairs.music), video=_average(pairs.video))


def _average(features: Any) -> np.ndarray:
    array = np.asarray(features, np.float32)
    return array.mean(axis=1) if array.ndim == 3 else array


def _keep_common(sets: Mapping[str, PairArrays]) -> dict[str, PairArrays]:
    common = set.intersection(*({*pairs.ids} for pairs in sets.values()))
    return {
        name: take_rows(pairs, np.array([row for row, key in enumerate(pairs.ids) if key in common], int))
        for name, pairs in sets.items()
    }


# --- groups and splits


def take_rows(pairs: PairArrays, rows: np.ndarray) -> PairArrays:
    ids, groups = (tuple(names[row] for row in rows) for names in (pairs.ids, pairs.groups))
    return replace(pairs, ids=ids, groups=groups, music=pairs.music[rows], video=pairs.video[rows])


def tie_equal_rows(sets: Mapping[str, PairArrays]) -> tuple[dict[str, PairArrays], int]:
    """Items with equal features of audio or of video in any set are one group; also the number of groups."""
    import pandas as pd

    from vmnet_pipeline.ingestion.ties import tie_groups

    first = next(iter(sets.values()))
    contents = []
    for name, pairs in sets.items():
        for side, array in (("music", pairs.music), ("video", pairs.video)):
            rows = np.ascontiguousarray(array, np.float32) + np.float32(0.0)
            digests = [f"{name} {side} {hashlib.sha256(row.tobytes()).hexdigest()}" for row in rows]
            contents.append(pd.Series(digests, dtype="str"))
    given = ["" if group == key else group for key, group in zip(first.ids, first.groups, strict=True)]
    tied = tie_groups(pd.Series(first.ids, dtype="str"), pd.Series(given, dtype="str"), contents)
    groups = tuple(map(str, tied))
    return {name: replace(pairs, groups=groups) for name, pairs in sets.items()}, len(set(groups))


def draw_split(groups: Sequence[str], n_test: int, val_share: float, seed: int) -> dict[str, np.ndarray]:
    """Rows of `train`, `val` and `test`: whole groups in random order, as far as they fit; validation from training.

    Raises:
        PairsError: There are too few groups.
    """
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    sizes = np.bincount(codes, minlength=len(names))
    test = _fill(order, sizes, n_test)
    rest = [group for group in order if group not in test]
    val = _fill(rest, sizes, round(val_share * int(sizes[rest].sum())))
    train = {*rest} - val
    if min(len(test), len(val), len(train)) < MIN_GROUPS:
        raise PairsError(
            f"{len(names)} groups give {len(train)} for training, {len(val)} for validation and {len(test)} for "
            f"testing {n_test} items; each needs {MIN_GROUPS}. Give more groups, or another number by --test."
        )
    chosen = {"train": train, "val": val, "test": test}
    return {subset: np.flatnonzero(np.isin(codes, [*own])) for subset, own in chosen.items()}


def _fill(order: Sequence[int] | np.ndarray, sizes: np.ndarray, wanted: int) -> set[int]:
    """Groups that fit, none larger than its share: one film alone tests nothing."""
    chosen: set[int] = set()
    largest, left = wanted // MIN_GROUPS, wanted
    for group in order:
        if sizes[group] <= min(left, largest):
            chosen.add(int(group))
            left -= int(sizes[group])
    return chosen
