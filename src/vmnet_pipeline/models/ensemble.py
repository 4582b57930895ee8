"""Join several networks into one: the cosine of two joint embeddings is the mean of the members' cosines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vmnet_pipeline.models.two_tower import VMNet
from vmnet_pipeline.models.types import TowerOutput

if TYPE_CHECKING:
    from collections.abc import Sequence


class EnsembleTower(nn.Module):
    """One side of all members, each with its own scaler: (B, ...) -> (B, n E), unit length."""

    def __init__(self, scalers: Sequence[nn.Module], towers: Sequence[nn.Module], embedding_dim: int) -> None:
        super().__init__()
        self.scalers = nn.ModuleList(scalers)
        self.towers = nn.ModuleList(towers)
        self.embedding_dim = embedding_dim * len(towers)

    def forward(self, x: Any) -> TowerOutput:
        """Features as any one member takes them -> joint embeddings; the structure feature is the first member's."""
        outputs: list[TowerOutput] = [tower(scale(x)) for scale, tower in zip(self.scalers, self.towers, strict=True)]
        joint = torch.cat([output.embedding for output in outputs], dim=1) / math.sqrt(len(outputs))  # (B, n E)
        return TowerOutput(joint, outputs[0].structure)


def join_networks(members: Sequence[VMNet], embedding_dim: int) -> VMNet:
    """Join networks of one kind, each with embeddings of `embedding_dim`, into one network."""
    return VMNet(
        EnsembleTower([item.music_scaler for item in members], [item.music for item in members], embedding_dim),
        EnsembleTower([item.video_scaler for item in members], [item.video for item in members], embedding_dim),
    )


def join_tensors(members: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Rename the weights of networks of one kind to the names that they have in `join_networks`."""
    return {_rename(name, number): tensor for number, tensors in enumerate(members) for name, tensor in tensors.items()}


def _rename(name: str, number: int) -> str:
    part, _, rest = name.partition(".")
    side, is_scaler = part.removesuffix("_scaler"), part.endswith("_scaler")
    return f"{side}.{'scalers' if is_scaler else 'towers'}.{number}.{rest}"
