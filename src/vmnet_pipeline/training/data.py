"""Training pairs: checks, identity, statistics and seeds."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from vmnet_pipeline.errors import TrainingError
from vmnet_pipeline.types import Sequences

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmnet_pipeline.types import FeatureArray, PairArrays

logger = logging.getLogger(__name__)

CHUNK_BYTES = 16 * 2**20


def check_pairs(pairs: PairArrays, name: str) -> None:
    """Refuse pairs whose sides do not belong together.

    Raises:
        TrainingError: Lengths differ, or an array is not a floating-point matrix of features.
    """
    lengths = {"ids": len(pairs.ids), "groups": len(pairs.groups), "music": len(pairs.music), "video": len(pairs.video)}
    if len(set(lengths.values())) != 1:
        raise TrainingError(f"the {name} pairs have unequal lengths {lengths}; pack them again")
    for side, array in (("music", pairs.music), ("video", pairs.video)):
        if array.ndim < 2 or not np.issubdtype(array.dtype, np.floating):
            raise TrainingError(
                f"the {name} {side} features are {array.dtype} {array.shape}; "
                "floating-point numbers of shape (n, D) or (n, T, C) are needed: pack them again"
            )


def check_same_shapes(train: PairArrays, val: PairArrays) -> None:
    """Refuse validation features of another shape than the training features.

    Raises:
        TrainingError: The shape of an item differs.
    """
    for side in ("music", "video"):
        expected, found = getattr(train, side).shape[1:], getattr(val, side).shape[1:]
        if expected != found:
            raise TrainingError(
                f"{side} features of the validation pairs have shape {found} per item, those of the training pairs "
                f"{expected}; pack both from the same feature store"
            )


def iterate_chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield contiguous blocks of rows of about `CHUNK_BYTES`, so that a mapped file is never loaded whole."""
    n_rows = max(1, CHUNK_BYTES // max(1, array.nbytes // max(1, len(array))))
    for start in range(0, len(array), n_rows):
        yield np.ascontiguousarray(array[start : start + n_rows])


def digest_pairs(pairs: PairArrays) -> str:
    """Hex sha256 over ids, groups, shapes, types and every value of both sides; reads each array once."""
    digest = hashlib.sha256()
    for text in (*pairs.ids, *pairs.groups):
        digest.update(len(text).to_bytes(8, "little", signed=False) + text.encode("utf-8", "surrogatepass"))
    for array in (pairs.music, pairs.video):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        if isinstance(array, Sequences):
            digest.update(np.ascontiguousarray(array.lengths).data)
        for chunk in iterate_chunks(_values_of(array)):
            digest.update(chunk.data)
    return digest.hexdigest()


def encode_matches(pairs: PairArrays, positives_by: Literal["id", "group", "position"]) -> np.ndarray:
    """(n,) int64 codes; two rows match when their codes are equal."""
    if positives_by == "position":
        return np.arange(len(pairs), dtype=np.int64)
    keys = pairs.ids if positives_by == "id" else pairs.groups
    codes = {key: code for code, key in enumerate(dict.fromkeys(keys))}
    return np.fromiter((codes[key] for key in keys), dtype=np.int64, count=len(keys))


def halve_groups(pairs: PairArrays, seed: int) -> np.ndarray:
    """(n,) bool, True for half of the groups, drawn by seed; items of one group stay together if there are several."""
    codes = encode_matches(pairs, "group")
    if codes.max() == 0:
        codes = np.arange(len(pairs))  # one group cannot be divided by groups
    order = np.random.default_rng((seed, 0)).permutation(int(codes.max()) + 1)
    return cast("np.ndarray", order[codes] % 2 == 0)


def _values_of(array: FeatureArray) -> np.ndarray:
    """Return the array itself, or the steps of all sequences without padding."""
    return array.steps if isinstance(array, Sequences) else array


def measure_scale(features: FeatureArray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel (last axis) over all other axes, in chunks; every step counts once.

    Returns:
        Two (D,) float32 arrays. A channel without spread has deviation 1.
    """
    array = _values_of(features)
    n_values = array.size // array.shape[-1]
    total = np.zeros(array.shape[-1])
    for chunk in iterate_chunks(array):
        total += chunk.reshape(-1, array.shape[-1]).sum(axis=0, dtype=np.float64)
    mean = total / n_values
    squares = np.zeros_like(mean)
    for chunk in iterate_chunks(array):
        squares += ((chunk.reshape(-1, array.shape[-1]) - mean) ** 2).sum(axis=0)
    std = np.sqrt(squares / n_values)
    std[std < 1e-6 * np.maximum(np.abs(mean), 1e-6)] = 1.0
    return mean.astype(np.float32), std.astype(np.float32)


def fit_batch_size(batch_size: int, n_pairs: int, *, shuffle: bool) -> int:
    """Cut the batch size for a small set, with a warning, so that it trains at all.

    With shuffling the limit is half of the pairs: a batch of all of them would meet the same negatives in every epoch.

    Raises:
        TrainingError: There are fewer than two pairs, so no negatives.
    """
    if n_pairs < 2:
        raise TrainingError(
            f"there are {n_pairs} training pairs, and at least 2 are needed (each pair needs another as its negative); "
            "add media or give the training split a larger share"
        )
    limit = n_pairs // 2 if shuffle and n_pairs >= 4 else n_pairs
    if batch_size > limit:
        logger.warning("batch_size %d is cut to %d, as there are only %d training pairs", batch_size, limit, n_pairs)
    return min(batch_size, limit)


def derive_seed(entropy: int | tuple[int, int], *key: int) -> int:
    """Derive a seed of 63 bits; unlike arguments give unrelated streams.

    `entropy` is the seed of the training, or that and an epoch; epoch 0 is the initialisation. `key` is the number of
    an ensemble's member, whose streams are kept apart from those of epochs.
    """
    words = np.random.SeedSequence(entropy, spawn_key=key).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))
