"""Locate the user's own feature files in the layout of the reference; they need not come from this project.

    DIR/train.csv, DIR/test.csv, perhaps DIR/val.csv      column `id`, perhaps `group`
    DIR/{train,test}/{audio,video}/ID.npy                 perhaps DIR/val/..., else val items are among those of train

Widths are whatever the files have. Here files are located and the variant recognised; `planning` does the rest.

Source: the layout is that of github.com/MorrisXu-Driving/Video-Music_Cross-Modal_Retrival.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from vmnet_pipeline.errors import PairsError, ParameterError
from vmnet_pipeline.reference.feature_files import find_side_folder
from vmnet_pipeline.storage.arrays import read_array_shape
from vmnet_pipeline.storage.names import find_entry, find_file, find_on_disk

if TYPE_CHECKING:
    from collections.abc import Mapping

Variant = Literal["vmnet_musicnn", "vmnet_vggish"]
N_PATCHES = 62
N_VGGISH_CHANNELS = 512
N_SAMPLED = 16
"""Headers that recognising the variant looks at."""


@dataclass(frozen=True, slots=True)
class SubsetFiles:
    """Files of one subset of the split: the csv file with the ids, and the folder with `audio` and `video`."""

    csv_path: Path
    data_dir: Path


@dataclass(frozen=True, slots=True)
class ReferenceLayout:
    """Files in the layout of the reference, and the variant that they are to be used with.

    Attributes:
        variant: `vmnet_vggish` (patches in time) or `vmnet_musicnn` (one vector per item).
        subsets: Files of `train`, `val` and `test`, as far as there are any.
        test_only: Whether only the test subset is wanted.
    """

    variant: Variant
    subsets: Mapping[str, SubsetFiles]
    test_only: bool = False


# --- where the files are


def locate_subsets(
    pairs_dir: str | Path | None = None,
    train_data_dir: str | Path | None = None,
    train_csv_path: str | Path | None = None,
    test_data_dir: str | Path | None = None,
    test_csv_path: str | Path | None = None,
) -> dict[str, SubsetFiles]:
    """Find the files of each subset; a place given on its own takes precedence over `pairs_dir`.

    A subset without any file is left out, so that a test set alone can be evaluated.

    Raises:
        ParameterError: A folder is given without its csv file or the other way round.
        PairsError: `pairs_dir` does not exist, or there is no subset at all.
    """
    root = None if pairs_dir is None else find_on_disk(Path(pairs_dir).expanduser())
    if root is not None and not root.is_dir():
        raise PairsError(f"There is no folder {root}. Pass one with train.csv, test.csv, train/ and test/.")
    given = {"train": (train_data_dir, train_csv_path), "test": (test_data_dir, test_csv_path)}
    located = {subset: _locate_subset(subset, root, *places) for subset, places in given.items()}
    subsets = {subset: files for subset, files in located.items() if files is not None}
    if root is not None and (table := _find_entry(root, "val.csv")).is_file():
        train_dir = subsets["train"].data_dir if "train" in subsets else _find_entry(root, "train")
        own_dir = _find_entry(root, "val")
        subsets["val"] = SubsetFiles(table, own_dir if own_dir.is_dir() else train_dir)
    if not subsets.keys() & {"train", "test"}:
        raise PairsError(f"{root} has neither train.csv nor test.csv, neither train/ nor test/.")
    return subsets


def _locate_subset(
    subset: str, root: Path | None, data_dir: str | Path | None, csv_path: str | Path | None
) -> SubsetFiles | None:
    if root is None and (data_dir is None) != (csv_path is None):
        missing = f"{subset}_csv_path" if csv_path is None else f"{subset}_data_dir"
        together = f"{subset}_data_dir and {subset}_csv_path together"
        raise ParameterError(f"{missing} is missing: give {together}, or pairs_dir")
    if root is None and data_dir is None:
        return None
    base = root or Path()
    folder = _find_entry(base, subset) if data_dir is None else find_on_disk(Path(data_dir).expanduser())
    table = _find_entry(base, f"{subset}.csv") if csv_path is None else find_on_disk(Path(csv_path).expanduser())
    is_absent = data_dir is None and csv_path is None and not folder.is_dir() and not table.is_file()
    return None if is_absent else SubsetFiles(table, folder)


def _find_entry(folder: Path, name: str) -> Path:
    """Find a csv file or folder by its name in any case."""
    if name.endswith(".csv"):
        return find_file(folder, name)
    found = find_entry(folder, (name,))
    return found[0] if found else folder / name


# --- which variant


def recognise_variant(subsets: Mapping[str, SubsetFiles]) -> Variant:
    """Tell the variant from the shapes of some music files.

    Raw VGGish (T, C, time, mel) and pooled VGGish of 60 s, (62, 512), are `vmnet_vggish` when more than half of the
    files have such a shape; everything else, one vector (D,) or vectors over time (T, D), is `vmnet_musicnn`. Files
    of another extractor that happen to be (62, 512), or patches of another number, need the parameter `variant`.
    """
    folders = [find_side_folder(subset.data_dir, "audio") for subset in subsets.values()]
    paths = [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.npy"))[:N_SAMPLED]]
    shapes = [shape for shape in map(read_shape, paths) if shape]
    n_vggish = sum(len(shape) == 4 or shape == (N_PATCHES, N_VGGISH_CHANNELS) for shape in shapes)
    return "vmnet_vggish" if 2 * n_vggish > len(shapes) else "vmnet_musicnn"


def read_shape(path: Path) -> tuple[int, ...] | None:
    """Read the shape of the array in a .npy file from its header; None if it has no readable one."""
    try:
        return read_array_shape(path)
    except (OSError, ValueError):
        return None


def make_layout(subsets: Mapping[str, SubsetFiles], variant: str | None = None) -> ReferenceLayout:
    """Combine files with the given variant, or the recognised one.

    Raises:
        ParameterError: The variant is unknown.
    """
    known = get_args(Variant)
    if variant is not None and variant not in known:
        raise ParameterError(f"unknown variant {variant!r}; choose one of {', '.join(known)}")
    return ReferenceLayout(cast("Variant", variant) if variant else recognise_variant(subsets), subsets)
