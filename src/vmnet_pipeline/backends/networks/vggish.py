"""The convolutions of VGGish.

Source: Hershey et al., "CNN architectures for large-scale audio classification" (ICASSP 2017).
"""

from __future__ import annotations

import torch
from torch import nn

# 0 stands for a 2x2 max-pool.
LAYOUT = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0)
CONV_KEYS = tuple(f"features.{index}" for index in (0, 3, 6, 8, 11, 13))


class VggishConvolutions(nn.Module):
    """VGGish without its fully connected layers; keys as the PyTorch port has them (`features.N`)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        n_channels = 1
        for n_filters in LAYOUT:
            if n_filters == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(n_channels, n_filters, 3, padding=1), nn.ReLU()]
            n_channels = n_filters
        self.features = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 96, 64) log-mel to (B, 512, 6, 4), >= 0: (channel, time, mel)."""
        return self.features(x.unsqueeze(1))  # type: ignore[no-any-return]


def pick_state(content: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The convolutions' tensors out of a published state dict; all else is left.

    Raises:
        KeyError: A tensor is missing.
    """
    return {f"{key}.{kind}": content[f"{key}.{kind}"] for key in CONV_KEYS for kind in ("weight", "bias")}
