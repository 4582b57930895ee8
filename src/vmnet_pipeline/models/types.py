"""Types shared by all towers, and the initialisation of their layers."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

EMBEDDING_DIM = 512
BN_MOMENTUM = 0.01  # torch counts the new value's share: 1 - 0.99
BN_EPSILON = 1e-3


class TowerOutput(NamedTuple):
    """Output of a tower.

    Attributes:
        embedding: (B, E) float32, rows of unit length.
        structure: (B, D) float32, the feature whose neighbourhoods the structure loss keeps; not normalised.
    """

    embedding: Tensor
    structure: Tensor


class MaskedSequence(NamedTuple):
    """Sequences of unlike length in one tensor.

    Attributes:
        values: (B, T, D) float32; values after the end of an item have no meaning.
        mask: (B, T) bool, True where a step is; each item has at least one.
    """

    values: Tensor
    mask: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> MaskedSequence:
        """The same on a device."""
        return MaskedSequence(*(part.to(device, non_blocking=non_blocking) for part in self))


Features: TypeAlias = Tensor | MaskedSequence


class PairOutput(NamedTuple):
    """Both towers' outputs for a batch of pairs; row i of both sides belongs together."""

    music: TowerOutput
    video: TowerOutput


def init_linear(layer: nn.Linear) -> nn.Linear:
    """Draw truncated-normal weights (cut at two deviations) of deviation sqrt(2 / fan_in); biases 0; in place."""
    std = math.sqrt(2.0 / layer.in_features)
    nn.init.trunc_normal_(layer.weight, std=std, a=-2.0 * std, b=2.0 * std)
    nn.init.zeros_(layer.bias)
    return layer
