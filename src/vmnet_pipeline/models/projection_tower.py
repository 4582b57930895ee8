"""A tower that projects: the identity of a joint space, or its position relative to anchors; training may bend it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from vmnet_pipeline.models.types import TowerOutput

if TYPE_CHECKING:
    from vmnet_pipeline.types import Array

TINY = 1e-10  # gives a feature of zeros a direction


class ProjectionTower(nn.Module):
    """One matrix, then the unit sphere: (B, D) or (B, T, D) -> (B, E). Time, if there is any, is averaged.

    Args:
        input_dim: D.
        embedding_dim: E.
    """

    def __init__(self, input_dim: int, embedding_dim: int) -> None:
        super().__init__()
        self.projection = nn.Parameter(torch.empty(embedding_dim, input_dim))
        nn.init.orthogonal_(self.projection)

    @torch.no_grad()
    def set_projection(self, projection: Array) -> None:
        """Take over an (E, D) matrix."""
        self.projection.copy_(torch.from_numpy(projection))

    def forward(self, x: Tensor) -> TowerOutput:
        """(B, D) or (B, T, D) float32 -> embeddings (B, E); the structure feature is the (averaged) input."""
        pooled = functional.normalize(x, dim=-1).mean(dim=1) if x.ndim == 3 else x  # (B, D)
        projected = pooled @ self.projection.T
        first = functional.pad(projected.new_full((1,), TINY), (0, projected.shape[1] - 1))
        return TowerOutput(functional.normalize(projected + first, dim=1), pooled)
