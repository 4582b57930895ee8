"""VM-NET's own towers: fully connected layers on one vector per item, or behind learned filters along time.

Source: arXiv:1704.06761; widths and time filters are those of the reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vmnet_pipeline.models.types import BN_EPSILON, BN_MOMENTUM, TowerOutput, init_linear

if TYPE_CHECKING:
    from collections.abc import Sequence


class HiddenLayer(nn.Module):
    """Fully connected, optional batch norm, ReLU unless linear, dropout: (B, in) -> (B, out)."""

    def __init__(self, in_dim: int, out_dim: int, *, normalise: bool, dropout: float, linear: bool = False) -> None:
        super().__init__()
        self.fc = init_linear(nn.Linear(in_dim, out_dim))
        self.bn = nn.BatchNorm1d(out_dim, BN_EPSILON, BN_MOMENTUM) if normalise else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.is_linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """(B, in) float32 -> (B, out) float32, >= 0 unless linear."""
        z = self.bn(self.fc(x))
        return cast("Tensor", self.dropout(z if self.is_linear else torch.relu(z)))


class PooledTower(nn.Module):
    """Hidden layers, then fc -> BN -> L2 normalisation, on one pooled vector per item: (B, D) -> (B, E).

    Args:
        input_dim: D.
        hidden_dims: Widths of the hidden layers; may be empty.
        embedding_dim: E.
        normalise_first: Whether the first hidden layer has batch norm.
        dropout: Share of activations dropped, 0-1.
        linear: Whether the hidden layers have no ReLU.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dims: Sequence[int],
        embedding_dim: int,
        *,
        normalise_first: bool,
        dropout: float,
        linear: bool = False,
    ) -> None:
        super().__init__()
        dims = [input_dim, *hidden_dims]
        layers = [
            HiddenLayer(dims[i], dims[i + 1], normalise=normalise_first and i == 0, dropout=dropout, linear=linear)
            for i in range(len(hidden_dims))
        ]
        self.hidden = nn.Sequential(*layers)
        self.fc = init_linear(nn.Linear(dims[-1], embedding_dim))
        self.bn = nn.BatchNorm1d(embedding_dim, BN_EPSILON, BN_MOMENTUM)

    def forward(self, x: Tensor) -> TowerOutput:
        """(B, D) float32 -> embeddings (B, E); the structure feature is the input."""
        z = self.bn(self.fc(self.hidden(x)).float())  # (B, E), in float32 whatever the layers compute in
        return TowerOutput(functional.normalize(z, dim=1), x)


class TimeFusion(nn.Module):
    """One filter along time, shared by all channels, then a third of the steps: (B, 1, T, C) -> (B, 1, T // 3, C)."""

    def __init__(self, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, (kernel_size, 1), padding=(kernel_size // 2, 0))
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(cast("Tensor", self.conv.bias))
        self.bn = nn.BatchNorm2d(1, BN_EPSILON, BN_MOMENTUM)
        self.dropout = nn.Dropout(dropout)
        self.pool = nn.MaxPool2d((3, 1), stride=(3, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T, C) float32 -> (B, 1, T // 3, C) float32, >= 0."""
        return cast("Tensor", self.pool(self.dropout(torch.relu(self.bn(self._filter(x))))))

    def _filter(self, x: Tensor) -> Tensor:
        """The convolution, as one product per item: forward and backward take a tenth of the time on a CPU."""
        identity = torch.eye(x.shape[2], dtype=x.dtype, device=x.device)
        matrix = functional.conv2d(identity[None, None], self.conv.weight, padding=self.conv.padding)[0]  # (1, T, T)
        filtered = torch.bmm(matrix.expand(x.shape[0], -1, -1), x.squeeze(1))  # (B, T, C)
        return filtered.unsqueeze(1) + cast("Tensor", self.conv.bias)


class TimeFusionTower(nn.Module):
    """Two learned time filters and a mean over time before a `PooledTower`: (B, T, C) -> (B, E), T >= 9.

    The structure feature is the (B, C) output of the time filters, so it moves while they learn.
    """

    def __init__(
        self, n_channels: int, hidden_dims: Sequence[int], embedding_dim: int, *, dropout: float, linear: bool = False
    ) -> None:
        super().__init__()
        self.time_fusion = nn.Sequential(TimeFusion(5, dropout), TimeFusion(3, dropout))
        self.head = PooledTower(
            n_channels, hidden_dims, embedding_dim, normalise_first=False, dropout=dropout, linear=linear
        )

    def forward(self, x: Tensor) -> TowerOutput:
        """(B, T, C) float32 -> embeddings (B, E) and fused features (B, C)."""
        fused = self.time_fusion(x.unsqueeze(1))  # (B, 1, T // 9, C)
        return cast("TowerOutput", self.head(fused.mean(dim=2).squeeze(1)))
