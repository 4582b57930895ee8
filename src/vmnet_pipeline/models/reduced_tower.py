"""A tower in closed form for few pairs: the mean cosine of variates of several ranks. See `models.reduced_cca`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.models.cca_tower import ScaledRows
from vmnet_pipeline.models.reduced_cca import fit_reduced
from vmnet_pipeline.models.types import TowerOutput
from vmnet_pipeline.types import Sequences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.types import Array, FeatureArray

TINY = 1e-6  # gives an item at the very mean, as all are where features are constant, a direction


class ReducedTower(nn.Module):
    """Blocks of variates, each of unit length, side by side: (B, D) or (B, T, D) -> (B, E). Time is averaged.

    Args:
        input_dim: D.
        ranks: Size of each block; E is their sum.
    """

    projection: Tensor
    offset: Tensor
    blocks: Tensor

    def __init__(self, input_dim: int, ranks: Sequence[int]) -> None:
        super().__init__()
        self.embedding_dim = sum(ranks)
        self.register_buffer("projection", torch.zeros(input_dim, self.embedding_dim))
        self.register_buffer("offset", torch.zeros(self.embedding_dim))
        columns = [block for block, rank in enumerate(ranks) for _ in range(rank)]
        self.register_buffer(
            "blocks", torch.eye(len(ranks))[:, columns]
        )  # (blocks, E), 1 where a variate is in a block
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)  # tells the device, as towers' weights do

    @torch.no_grad()
    def set_fit(self, projection: Array, mean: Array) -> None:
        """Take over a (D, E) projection of inputs that have a (D,) mean."""
        self.projection.copy_(torch.from_numpy(projection))
        self.offset.copy_(torch.from_numpy(mean @ projection))

    def forward(self, x: Tensor) -> TowerOutput:
        """(B, D) or (B, T, D) float32 -> embeddings (B, E); the structure feature is the (averaged) input."""
        pooled = x.mean(dim=1) if x.ndim == 3 else x  # (B, D)
        with torch.autocast(pooled.device.type, enabled=False):
            variates = pooled @ self.projection - self.offset  # (B, E)
            lengths = (variates**2 @ self.blocks.T).sqrt() @ self.blocks  # (B, E)
            units = variates / lengths.clamp_min(1e-12)
        first = functional.pad(units.new_full((1,), TINY), (0, self.embedding_dim - 1))
        return TowerOutput(functional.normalize((units + first) * self.scale, dim=1), pooled)


def fit_reduced_towers(
    model: VMNet, music: FeatureArray, video: FeatureArray, music_widths: Sequence[int], video_widths: Sequence[int]
) -> None:
    """Fit a network of two such towers to training pairs, through its own scalers.

    Args:
        model: Its towers have the blocks of `reduced_cca.list_ranks`.
        music: (n, ...) features before scaling.
        video: (n, ...) features before scaling.
        music_widths: Entries of each backend.
        video_widths: The same of video.

    Raises:
        ParameterError: Only one tower is of this kind, or the features are sequences.
    """
    towers = (model.music, model.video)
    if not all(isinstance(tower, ReducedTower) for tower in towers):
        raise ParameterError(
            "tower 'reduced' needs the same tower on the other side; set music_tower and video_tower to it"
        )
    if isinstance(music, Sequences) or isinstance(video, Sequences):
        raise ParameterError("tower 'reduced' takes pooled features, and these are sequences; pack them pooled")
    sides = [_scale(music, model.music_scaler), _scale(video, model.video_scaler)]
    projections = fit_reduced(sides[0], sides[1], music_widths, video_widths)
    for tower, side, projection in zip(towers, sides, projections, strict=True):
        cast("ReducedTower", tower).set_fit(projection, side.mean(axis=0))


def _scale(array: Array, scaler: nn.Module) -> Array:
    """(n, D) float64 of features after a scaler; time is averaged."""
    scaled = np.asarray(ScaledRows(array, scaler)[np.arange(len(array))], np.float64)
    return scaled.mean(axis=1) if scaled.ndim == 3 else scaled
