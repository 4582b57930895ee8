"""The VGG network that the musicnn package has besides its own, for inference.

Source: Pons & Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging" (2019), after
Choi et al., "Automatic tagging using deep convolutional neural networks" (ISMIR 2016).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from vmnet_pipeline.backends.networks.musicnn import BATCH_NORM_EPS, N_TAGS

if TYPE_CHECKING:
    from collections.abc import Sequence

N_FILTERS = 128
# Of each block: what its maximum is taken over, (frames, mel bands), and how far that moves on.
POOLS = (((4, 1), (2, 2)), ((2, 2), (2, 2)), ((2, 2), (2, 2)), ((2, 2), (2, 2)), ((4, 4), (4, 4)))
POOLS_OF_MSD_VGG = (((4, 1), (4, 1)), ((1, 4), (1, 4)), *POOLS[2:])
"""Those of the graph that its weights were trained in; the package's extractor runs them with `POOLS`."""
N_PENULTIMATE = 2 * N_FILTERS  # 187 frames x 96 bands leave 2 x 1
LAYERS = ("penultimate", "taggram")


class VggBlock(nn.Module):
    """Convolution 3x3, ReLU, batch norm, maximum: (B, n_inputs, time, mel) to (B, 128, fewer, fewer)."""

    def __init__(self, n_inputs: int, window: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_inputs, N_FILTERS, 3, padding=1)
        self.norm = nn.BatchNorm2d(N_FILTERS, eps=BATCH_NORM_EPS)
        self.pool = nn.MaxPool2d(window, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Activations of one block to those of the next."""
        pooled: torch.Tensor = self.pool(self.norm(torch.relu(self.conv(x))))
        return pooled


class MusicnnVggNetwork(nn.Module):
    """The network up to one chosen layer.

    Args:
        layer: `penultimate` is the last maximum (`pool5` of the package), laid out as its dense layer takes it: all
            filters of the first half of the patch, then those of the second. `taggram` is that dense layer's sigmoid.
        pools: Window and stride of each block's maximum.
    """

    def __init__(
        self, layer: str = "penultimate", pools: Sequence[tuple[tuple[int, int], tuple[int, int]]] = POOLS
    ) -> None:
        super().__init__()
        if layer not in LAYERS:
            raise ValueError(f"unknown layer {layer!r}")
        self.layer = layer
        self.norm_input = nn.BatchNorm2d(1, eps=BATCH_NORM_EPS)
        inputs = (1, *[N_FILTERS] * (len(pools) - 1))
        self.blocks = nn.Sequential(*(VggBlock(n, *pool) for n, pool in zip(inputs, pools, strict=True)))
        self.tags = nn.Linear(N_PENULTIMATE, N_TAGS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 187, 96) log-mel to (B, 256) or (B, 50) activations of the chosen layer."""
        x = self.blocks(self.norm_input(x.unsqueeze(1)))  # (B, 128, 2, 1)
        penultimate = x.permute(0, 2, 3, 1).flatten(1)
        return torch.sigmoid(self.tags(penultimate)) if self.layer == "taggram" else penultimate

    def variables(self) -> dict[str, nn.Module]:
        """Name of each layer in the published checkpoints -> the layer here."""
        named: dict[str, nn.Module] = {"batch_normalization": self.norm_input, "dense": self.tags}
        for number, block in enumerate(self.blocks, start=1):
            named |= {f"{number}CNN": block.conv, f"batch_normalization_{number}": block.norm}  # type: ignore[dict-item]
        return named
