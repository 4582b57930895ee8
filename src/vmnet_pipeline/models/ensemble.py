"""Several networks as one: the cosine of two joint embeddings is the weighted mean of the members' cosines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from vmnet_pipeline.models.two_tower import VMNet
from vmnet_pipeline.models.types import MaskedSequence, TowerOutput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class EnsembleTower(nn.Module):
    """One side of all members, each with its own scaler: (B, ...) -> (B, sum of E), unit length.

    Members that take pooled features get the mean over time where the whole takes sequences.

    Args:
        scalers: What each member applies to features before its tower.
        towers: One tower per member, each to (B, E) unit vectors.
        embedding_dim: Sum of the members' E.
        weighted: Whether the weights of members are stored with the network; otherwise they are equal.
    """

    weights: Tensor | None

    def __init__(
        self, scalers: Sequence[nn.Module], towers: Sequence[nn.Module], embedding_dim: int, *, weighted: bool = False
    ) -> None:
        super().__init__()
        self.scalers = nn.ModuleList(scalers)
        self.towers = nn.ModuleList(towers)
        self.embedding_dim = embedding_dim
        self.register_buffer("weights", torch.full((len(towers),), 1.0 / len(towers)) if weighted else None)

    def forward(self, x: Any) -> TowerOutput:
        """Features as any one member takes them -> joint embeddings; the structure feature is the first member's."""
        outputs = [
            cast("TowerOutput", tower(scaler(_pool_for(tower, x))))
            for scaler, tower in zip(self.scalers, self.towers, strict=True)
        ]
        if self.weights is None:
            joint = torch.cat([output.embedding for output in outputs], dim=1) / math.sqrt(len(outputs))  # (B, n E)
        else:
            roots = self.weights.sqrt()
            joint = torch.cat([output.embedding * roots[i] for i, output in enumerate(outputs)], dim=1)
        return TowerOutput(joint, outputs[0].structure)


def _pool_for(tower: nn.Module, x: Any) -> Any:
    if not isinstance(x, MaskedSequence) or any(hasattr(part, "takes_sequences") for part in tower.modules()):
        return x
    mask = x.mask.unsqueeze(-1).to(x.values.dtype)  # (B, T, 1)
    return (x.values * mask).sum(dim=1) / mask.sum(dim=1)


def join_networks(members: Sequence[VMNet], embedding_dim: int) -> VMNet:
    """Networks of one kind, each with embeddings of `embedding_dim`, as one network."""
    return _join(members, embedding_dim * len(members), weighted=False)


def join_weighted(members: Sequence[VMNet], configs: Sequence[Mapping[str, Any]]) -> VMNet:
    """Networks of different kinds as one, with weights that are equal until they are set."""
    return _join(members, sum(config.get("embedding_dim", 0) for config in configs), weighted=True)


def _join(members: Sequence[VMNet], embedding_dim: int, *, weighted: bool) -> VMNet:
    return VMNet(
        EnsembleTower(
            [item.music_scaler for item in members], [item.music for item in members], embedding_dim, weighted=weighted
        ),
        EnsembleTower(
            [item.video_scaler for item in members], [item.video for item in members], embedding_dim, weighted=weighted
        ),
    )


def join_tensors(members: Sequence[dict[str, Tensor]], weights: Sequence[float] | None = None) -> dict[str, Tensor]:
    """The weights of networks by the names that they have in `join_networks`, or in `join_weighted` with `weights`."""
    joint = {_rename(name, number): tensor for number, part in enumerate(members) for name, tensor in part.items()}
    if weights is None:
        return joint
    return joint | {f"{side}.weights": torch.tensor(weights, dtype=torch.float32) for side in ("music", "video")}


def take_member(tensors: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """Inverse of `join_tensors` for one member."""
    taken = {}
    for name, tensor in tensors.items():
        side, _, rest = name.partition(".")
        for part, prefix in ((f"scalers.{number}.", f"{side}_scaler."), (f"towers.{number}.", f"{side}.")):
            if rest.startswith(part):
                taken[prefix + rest.removeprefix(part)] = tensor
    return taken


def _rename(name: str, number: int) -> str:
    part, _, rest = name.partition(".")
    side, is_scaler = part.removesuffix("_scaler"), part.endswith("_scaler")
    return f"{side}.{'scalers' if is_scaler else 'towers'}.{number}.{rest}"
