"""A training that takes milliseconds: a narrow tower, 26 pairs, 6 epochs; and ways to stop it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from vmnet_pipeline.models.factory import MUSIC_TOWERS, VIDEO_TOWERS
from vmnet_pipeline.models.pooled_tower import PooledTower
from vmnet_pipeline.training import TrainingResult
from vmnet_pipeline.types import EpochRecord, PairArrays

if TYPE_CHECKING:
    from collections.abc import Callable

TINY = {"music_tower": "tiny", "video_tower": "tiny", "embedding_dim": 16}
SMALL = {"epochs": 6, "batch_size": 8, "model": TINY, "state_interval_s": 0.0, "device": "cpu", "n_threads": 1}


def build_tiny(input_shape: tuple[int, ...], embedding_dim: int, dropout: float) -> torch.nn.Module:
    return PooledTower(input_shape[0], (32,), embedding_dim, normalise_first=True, dropout=dropout)


# A narrow tower beside the real ones: what is tested here is the loop.
MUSIC_TOWERS["tiny"] = VIDEO_TOWERS["tiny"] = build_tiny


def make_pairs(n: int, seed: int, music_shape: tuple[int, ...] = (12,), noise: float = 0.3) -> PairArrays:
    """Two noisy, non-linear views of five shared Gaussian factors."""
    world, rng = np.random.default_rng(7), np.random.default_rng(seed)
    shared = rng.normal(size=(n, 5))

    def view(dim: int) -> np.ndarray:
        seen = np.sqrt(1 - noise**2) * shared + noise * rng.normal(size=shared.shape)
        return np.tanh(seen @ world.normal(size=(5, dim)) / 2).astype(np.float32)

    ids = tuple(f"{seed}-{i}" for i in range(n))
    music = view(int(np.prod(music_shape))).reshape(n, *music_shape)
    return PairArrays(ids, ids, music, view(20))


TRAIN, VAL = make_pairs(26, 1), make_pairs(10, 2)


class Killed(BaseException):
    pass


def kill_after(epoch: int) -> Callable[[EpochRecord], None]:
    def on_epoch(record: EpochRecord) -> None:
        if record.epoch == epoch:
            raise Killed

    return on_epoch


def same_weights(a: TrainingResult, b: TrainingResult) -> bool:
    return a.tensors.keys() == b.tensors.keys() and all(torch.equal(a.tensors[k], b.tensors[k]) for k in a.tensors)


def untimed(history: tuple[EpochRecord, ...]) -> list[EpochRecord]:
    return [replace(record, seconds=0.0) for record in history]
