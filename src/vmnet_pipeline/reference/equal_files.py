"""Feature files with equal arrays: one song or one film under several ids."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

from vmnet_pipeline.storage.arrays import map_array, read_array

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    import numpy as np

N_FIRST = 1024  # values that tell most files apart; only files that agree in them are read whole


def label_equal_arrays(paths: Mapping[str, Path]) -> dict[str, str]:
    """Label the items whose array another item has, too; equal arrays have equal labels.

    Values count, not bytes of the file: the same numbers in another precision or order of axes in memory are equal.
    Files that cannot be read are left out, as packing reports them.

    Args:
        paths: Item to its `.npy` file.

    Returns:
        Item to hex sha256; items whose array is their own are left out.
    """
    alike = _find_repeated(paths, _digest_first)
    return _find_repeated({key: paths[key] for key in alike}, _digest_whole)


def _find_repeated(paths: Mapping[str, Path], digest: Callable[[Path], str]) -> dict[str, str]:
    keys: defaultdict[str, list[str]] = defaultdict(list)
    for key, path in paths.items():
        try:
            keys[digest(path)].append(key)
        except (OSError, ValueError):
            continue
    return _invert(item for item in keys.items() if len(item[1]) > 1)


def _invert(labels: Iterable[tuple[str, list[str]]]) -> dict[str, str]:
    return {key: label for label, keys in labels for key in keys}


def _digest_first(path: Path) -> str:
    array = map_array(path)
    return _digest(array.shape, array.flat[:N_FIRST])


def _digest_whole(path: Path) -> str:
    array = read_array(path)
    return _digest(array.shape, array)


def _digest(shape: tuple[int, ...], values: np.ndarray) -> str:
    import numpy as np

    plain = np.ascontiguousarray(values, dtype=np.float64) + 0.0  # -0.0 equals 0.0
    return hashlib.sha256(repr(shape).encode() + plain.tobytes()).hexdigest()
