"""Small pairs to train on, and a narrow tower beside the real ones."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.models.factory import MUSIC_TOWERS, VIDEO_TOWERS
from vmnet_pipeline.models.pooled_tower import PooledTower
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.types import EpochRecord, PairArrays

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn


def build_narrow(input_shape: tuple[int, ...], embedding_dim: int, dropout: float) -> nn.Module:
    return PooledTower(input_shape[0], (16,), embedding_dim, normalise_first=True, dropout=dropout)


MUSIC_TOWERS["narrow"] = VIDEO_TOWERS["narrow"] = build_narrow
NARROW = {"music_tower": "narrow", "video_tower": "narrow", "embedding_dim": 8}


def narrow_params(**given: Any) -> TrainParams:
    settings: dict[str, Any] = {"epochs": 5, "batch_size": 8, "learning_rate": 3e-3, "device": "cpu", "n_threads": 1}
    settings |= {"model": NARROW, "state_interval_s": 0.0}  # a state after every epoch
    return TrainParams(**{**settings, **given})


def draw_pairs(
    n: int, seed: int, per_group: int = 1, *, music_shape: tuple[int, ...] = (12,), video_dim: int = 14
) -> PairArrays:
    """Two noisy, non-linear views of five shared Gaussian factors; `per_group` neighbours are of one group."""
    world, rng = np.random.default_rng(7), np.random.default_rng(seed)
    shared = rng.normal(size=(n, 5))

    def view(dim: int) -> np.ndarray:
        seen = 0.9 * shared + 0.4 * rng.normal(size=shared.shape)
        return np.tanh(seen @ world.normal(size=(5, dim)) / 2).astype(np.float32)

    ids = tuple(f"{seed}-{i}" for i in range(n))
    groups = tuple(f"{seed}-g{i // per_group}" for i in range(n))
    return PairArrays(ids, groups, view(int(np.prod(music_shape))).reshape(n, *music_shape), view(video_dim))


class Killed(BaseException):
    pass


class Log:
    """What a training told; kills it after `kill_after` epochs of its own."""

    def __init__(self, kill_after: int | None = None) -> None:
        self.epochs: list[int] = []
        self.history: tuple[EpochRecord, ...] = ()
        self.results: dict[str, float] = {}
        self.kill_after = kill_after

    def add(self, record: EpochRecord) -> None:
        self.epochs.append(record.epoch)
        if len(self.epochs) == self.kill_after:
            raise Killed

    def finish(self, history: Sequence[EpochRecord]) -> None:
        self.history = tuple(history)

    def metrics(self, figures: Mapping[str, float]) -> None:
        self.results.update(figures)


class Logs:
    """Opens logs, by name; the one called `kill` kills its training after `kill_after` epochs."""

    def __init__(self, kill: str | None = None, kill_after: int | None = None) -> None:
        self.by_name: dict[Any, Log] = {}
        self.parameters: dict[Any, Any] = {}
        self.kill, self.kill_after = kill, kill_after

    @contextmanager
    def __call__(self, name: Any, parameters: Any) -> Iterator[Log]:
        self.parameters[name] = parameters
        self.by_name[name] = Log(self.kill_after if name == self.kill else None)
        yield self.by_name[name]

    @property
    def n_epochs(self) -> int:
        return sum(len(log.epochs) for log in self.by_name.values())
