"""Batches of training pairs: their order, reading ahead, and augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vmnet_pipeline.models.embed import gather_rows
from vmnet_pipeline.models.types import MaskedSequence
from vmnet_pipeline.prefetch import read_ahead
from vmnet_pipeline.training.distributed import own_share
from vmnet_pipeline.training.validation import match_mask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmnet_pipeline.models.types import Features
    from vmnet_pipeline.types import FeatureArray, PairArrays


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch in memory; `rows`, `codes`, `groups` and `positives` are of all processes, features of this one.

    Attributes:
        rows: (B,) numbers of the training pairs.
        music: Features of this process's part of them.
        video: Features of the other side.
        codes: (B,) int64, equal for rows that match.
        groups: (B,) int64, equal for rows of one group; None when groups do not matter.
        positives: (B, B) bool, or None when every row matches only itself.
    """

    rows: np.ndarray
    music: Features
    video: Features
    codes: Tensor
    groups: Tensor | None
    positives: Tensor | None


class TrainBatches:
    """The training pairs, batch by batch; `len()` is the number of steps per epoch.

    Args:
        pairs: Training pairs.
        codes: (n,) int64, equal for pairs that match.
        groups: (n,) int64, equal for pairs of one group; None when groups do not matter.
        batch_size: Pairs per step, those of other processes included.
        seed: Of the order.
        shuffle: Whether every epoch has an order of its own; otherwise that of the pairs.
        device: Where the network is; batches for CUDA are read into pinned memory, which it can fetch from.
    """

    def __init__(
        self,
        pairs: PairArrays,
        codes: np.ndarray,
        groups: np.ndarray | None,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool,
        device: torch.device,
    ) -> None:
        self.pairs, self.codes, self.groups = pairs, codes, groups
        self.batch_size, self.seed, self.shuffle, self.device = batch_size, seed, shuffle, device

    def __len__(self) -> int:
        return len(self.pairs) // self.batch_size

    def read_epoch(self, epoch: int) -> Iterator[Batch]:
        """Batches of an epoch in its order; while one is used, the next one is read in another thread."""
        order = order_epoch(len(self.pairs), self.batch_size, epoch, seed=self.seed, shuffle=self.shuffle)
        return read_ahead(self.read, order)

    def read(self, rows: np.ndarray) -> Batch:
        """Read this process's share of one batch."""
        share = own_share(rows)
        codes = torch.from_numpy(self.codes[rows])
        groups = None if self.groups is None else torch.from_numpy(self.groups[rows])
        music, video = self._read(self.pairs.music, share), self._read(self.pairs.video, share)
        return Batch(rows, music, video, codes, groups, match_mask(codes))

    def _read(self, array: FeatureArray, rows: np.ndarray) -> Features:
        features = gather_rows(array, rows)
        if self.device.type != "cuda":
            return features
        if isinstance(features, MaskedSequence):
            return MaskedSequence(*(part.pin_memory() for part in features))
        return features.pin_memory()


def order_epoch(n_pairs: int, batch_size: int, epoch: int, *, seed: int, shuffle: bool) -> Iterator[np.ndarray]:
    """Yield (batch_size,) row numbers per step; the last partial batch is dropped.

    The order depends on nothing but the arguments, so a resumed run needs no generator state.
    """
    order = np.random.default_rng((seed, epoch)).permutation(n_pairs) if shuffle else np.arange(n_pairs)
    for start in range(0, n_pairs - batch_size + 1, batch_size):
        yield order[start : start + batch_size]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Augment features in training; draws from torch's global random state.

    Attributes:
        mixup_alpha: Parameter of the mixing share (see `mix_pairs`); 0 for none.
        noise: Deviation of Gaussian noise, in deviations of each channel where those are known; 0 for none.
        music_std: Deviations of the music channels, (D,), or 1.
        video_std: Deviations of the video channels, (D,), or 1.
    """

    mixup_alpha: float = 0.0
    noise: float = 0.0
    music_std: Tensor | float = 1.0
    video_std: Tensor | float = 1.0

    def __call__(self, music: Features, video: Features) -> tuple[Features, Features]:
        """Features of one batch as the network sees them; sequences are never mixed."""
        if self.mixup_alpha and isinstance(music, Tensor) and isinstance(video, Tensor):
            music, video = mix_pairs(music, video, self.mixup_alpha)
        if self.noise:
            music = add_noise(music, self.noise * self.music_std)
            video = add_noise(video, self.noise * self.video_std)
        return music, video


def add_noise(features: Features, deviation: float | Tensor) -> Features:
    """Add Gaussian noise; padding of (B, ..., D) sequences gets some too, and is masked later."""
    if isinstance(features, MaskedSequence):
        return features._replace(values=features.values + deviation * torch.randn_like(features.values))
    return features + deviation * torch.randn_like(features)


def mix_pairs(music: Tensor, video: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Mix each of B pairs with another one, in the same proportion on both sides, so that mixtures match mixtures.

    The share follows a symmetric beta distribution of parameter alpha; the pair's own share is at least a half.

    Source: H. Zhang et al., arXiv:1710.09412.
    """
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    share = max(share, 1.0 - share)
    partner = torch.randperm(len(music)).to(music.device)
    return share * music + (1.0 - share) * music[partner], share * video + (1.0 - share) * video[partner]
