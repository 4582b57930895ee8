"""EfficientNet-Lite0, from picture to pooled head, for inference.

The one member of the family that no library at hand carries: no squeeze-and-excitation, ReLU6 in place of swish.

Source: Tan & Le, "EfficientNet: rethinking model scaling for convolutional neural networks" (ICML 2019);
tensorflow/tpu, models/official/efficientnet/lite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Mapping

BATCH_NORM_EPS = 1e-3
SIZE_PX = 224
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280


@dataclass(frozen=True, slots=True)
class Stage:
    """A run of equal blocks."""

    kernel: int
    n_repeats: int
    channels: int
    expansion: int
    stride: int


STAGES = (
    Stage(3, 1, 16, 1, 1),
    Stage(3, 2, 24, 6, 2),
    Stage(5, 2, 40, 6, 2),
    Stage(3, 3, 80, 6, 2),
    Stage(5, 3, 112, 6, 1),
    Stage(5, 4, 192, 6, 2),
    Stage(3, 1, 320, 6, 1),
)


def count_outputs(size_px: int, stride: int) -> int:
    """Side of a strided convolution's output."""
    return -(-size_px // stride)


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, ReLU6 or none.

    Strided convolutions pad as TensorFlow does: as little as needed for the side of the input (`size_px`), the odd
    pixel below and to the right.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        kernel: int,
        *,
        size_px: int,
        stride: int = 1,
        groups: int = 1,
        has_act: bool = True,
    ) -> None:
        super().__init__()
        total = (count_outputs(size_px, stride) - 1) * stride + kernel - size_px
        before, after = total // 2, total - total // 2
        self.uneven_padding = (before, after, before, after) if before != after else None
        padding = 0 if self.uneven_padding else before
        self.conv = nn.Conv2d(n_inputs, n_outputs, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(n_outputs, eps=BATCH_NORM_EPS)
        self.act: nn.Module = nn.ReLU6() if has_act else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_inputs, H, W) to (B, n_outputs, ceil(H / stride), ceil(W / stride))."""
        if self.uneven_padding is not None:
            x = functional.pad(x, self.uneven_padding)
        return self.act(self.norm(self.conv(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Inverted residual block: expand, depthwise, project."""

    def __init__(self, n_inputs: int, n_outputs: int, stage: Stage, *, size_px: int, stride: int) -> None:
        super().__init__()
        n_inner = n_inputs * stage.expansion
        self.expand = ConvNorm(n_inputs, n_inner, 1, size_px=size_px) if stage.expansion > 1 else None
        self.depthwise = ConvNorm(n_inner, n_inner, stage.kernel, size_px=size_px, stride=stride, groups=n_inner)
        self.project = ConvNorm(n_inner, n_outputs, 1, size_px=count_outputs(size_px, stride), has_act=False)
        self.has_skip = stride == 1 and n_inputs == n_outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_inputs, H, W) to (B, n_outputs, ceil(H / stride), ceil(W / stride))."""
        inner = x if self.expand is None else self.expand(x)
        result = self.project(self.depthwise(inner))
        return x + result if self.has_skip else result  # type: ignore[no-any-return]


class EfficientNetLite(nn.Module):
    """Lite0 up to the mean of its head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, size_px=SIZE_PX, stride=2)
        blocks, size_px, n_channels = [], count_outputs(SIZE_PX, 2), STEM_CHANNELS
        for stage in STAGES:
            for repeat in range(stage.n_repeats):
                stride = stage.stride if repeat == 0 else 1
                blocks.append(Block(n_channels, stage.channels, stage, size_px=size_px, stride=stride))
                n_channels, size_px = stage.channels, count_outputs(size_px, stride)
        self.blocks = nn.ModuleList(blocks)
        self.head = ConvNorm(n_channels, HEAD_CHANNELS, 1, size_px=size_px)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, 224, 224) normalised RGB to (B, 1280)."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x).mean(dim=(2, 3))  # type: ignore[no-any-return]


class NormalizedLite(nn.Module):
    """Takes pictures as they are, and normalises inside, so that callers may keep 8 bits per colour."""

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 224, 224, 3) RGB in 0-255 to (B, 1280)."""
        x = x.permute(0, 3, 1, 2)  # (B, 3, 224, 224)
        return self.network((x - self.mean) / self.std)  # type: ignore[no-any-return]


def rename_state(content: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The published state dict (`_conv_stem`, `_blocks.N`, ...) in our names; no classifier.

    Raises:
        KeyError: A layer that this network does not have.
    """
    parts = {"_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "head.conv", "_bn1": "head.norm"}
    block_parts = {
        "_expand_conv": "expand.conv",
        "_bn0": "expand.norm",
        "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.norm",
        "_project_conv": "project.conv",
        "_bn2": "project.norm",
    }
    state = {}
    for name, tensor in content.items():
        *head, layer, kind = name.split(".")
        if layer == "_fc":
            continue
        place = f"blocks.{head[1]}.{block_parts[layer]}" if head else parts[layer]
        state[f"{place}.{kind}"] = tensor
    return state
