"""EfficientNet B0-B7 and Lite0, from picture to pooled head, for inference.

Source: Tan & Le, "EfficientNet: rethinking model scaling for convolutional neural networks" (ICML 2019);
EfficientNet-Lite: tensorflow/tpu, models/official/efficientnet/lite (no squeeze-and-excitation, ReLU6, stem and
head not scaled).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

BATCH_NORM_EPS = 1e-3
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
SQUEEZE_RATIO = 0.25


@dataclass(frozen=True, slots=True)
class Stage:
    """A run of equal blocks, before scaling."""

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


@dataclass(frozen=True, slots=True)
class Variant:
    """What tells one member of the family from another.

    Attributes:
        width: Factor of all channel counts.
        depth: Factor of all repeat counts.
        size_px: Side of the input.
        lite: Whether it is a Lite network.
    """

    width: float
    depth: float
    size_px: int
    lite: bool = False

    def scale_channels(self, channels: int) -> int:
        """Scaled count, rounded to a multiple of 8, never more than a tenth below."""
        scaled = channels * self.width
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * scaled else rounded

    @property
    def head_channels(self) -> int:
        """Length of the pooled output."""
        return HEAD_CHANNELS if self.lite else self.scale_channels(HEAD_CHANNELS)


VARIANTS = {
    "lite0": Variant(1.0, 1.0, 224, lite=True),
    "b0": Variant(1.0, 1.0, 224),
    "b1": Variant(1.0, 1.1, 240),
    "b2": Variant(1.1, 1.2, 260),
    "b3": Variant(1.2, 1.4, 300),
    "b4": Variant(1.4, 1.8, 380),
    "b5": Variant(1.6, 2.2, 456),
    "b6": Variant(1.8, 2.6, 528),
    "b7": Variant(2.0, 3.1, 600),
}


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, activation or none.

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
        act: str | None = None,
    ) -> None:
        super().__init__()
        total = (count_outputs(size_px, stride) - 1) * stride + kernel - size_px
        before, after = total // 2, total - total // 2
        self.uneven_padding = (before, after, before, after) if before != after else None
        padding = 0 if self.uneven_padding else before
        self.conv = nn.Conv2d(n_inputs, n_outputs, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(n_outputs, eps=BATCH_NORM_EPS)
        self.act: nn.Module = {"swish": nn.SiLU, "relu6": nn.ReLU6, None: nn.Identity}[act]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_inputs, H, W) to (B, n_outputs, ceil(H / stride), ceil(W / stride))."""
        if self.uneven_padding is not None:
            x = functional.pad(x, self.uneven_padding)
        return self.act(self.norm(self.conv(x)))  # type: ignore[no-any-return]


def count_outputs(size_px: int, stride: int) -> int:
    """Side of a strided convolution's output."""
    return -(-size_px // stride)


class SqueezeExcite(nn.Module):
    """Channel gates computed from the mean picture."""

    def __init__(self, n_channels: int, n_squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(n_channels, n_squeezed, 1)
        self.expand = nn.Conv2d(n_squeezed, n_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_channels, H, W) to the same shape."""
        gate = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.expand(functional.silu(self.reduce(gate))))


class Block(nn.Module):
    """Inverted residual block: expand, depthwise, gate, project."""

    def __init__(self, n_inputs: int, n_outputs: int, stage: Stage, *, size_px: int, stride: int, lite: bool) -> None:
        super().__init__()
        act = "relu6" if lite else "swish"
        n_inner = n_inputs * stage.expansion
        self.expand = ConvNorm(n_inputs, n_inner, 1, size_px=size_px, act=act) if stage.expansion > 1 else None
        self.depthwise = ConvNorm(
            n_inner, n_inner, stage.kernel, size_px=size_px, stride=stride, groups=n_inner, act=act
        )
        self.gate = None if lite else SqueezeExcite(n_inner, max(1, int(n_inputs * SQUEEZE_RATIO)))
        self.project = ConvNorm(n_inner, n_outputs, 1, size_px=count_outputs(size_px, stride))
        self.residual = stride == 1 and n_inputs == n_outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_inputs, H, W) to (B, n_outputs, ceil(H / stride), ceil(W / stride))."""
        inner: torch.Tensor = x if self.expand is None else self.expand(x)
        inner = self.depthwise(inner)
        if self.gate is not None:
            inner = self.gate(inner)
        inner = self.project(inner)
        return torch.add(inner, x) if self.residual else inner


class EfficientNet(nn.Module):
    """Stem, blocks, head, global average; the classifier is left out."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        act = "relu6" if variant.lite else "swish"
        n_stem = STEM_CHANNELS if variant.lite else variant.scale_channels(STEM_CHANNELS)
        self.stem = ConvNorm(3, n_stem, 3, size_px=variant.size_px, stride=2, act=act)
        blocks, size_px = _build_blocks(variant, n_stem, count_outputs(variant.size_px, 2))
        self.blocks = nn.ModuleList(blocks)
        n_last = variant.scale_channels(STAGES[-1].channels)
        self.head = ConvNorm(n_last, variant.head_channels, 1, size_px=size_px, act=act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, size, size) normalised RGB to (B, head_channels)."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x).mean(dim=(2, 3))  # type: ignore[no-any-return]


class NormalizedEfficientNet(nn.Module):
    """Takes pictures as they are, and normalises inside, so that callers may keep 8 bits per colour.

    Args:
        network: What sees the normalised pictures.
        mean: One per colour, on the scale 0-255.
        std: One per colour, on the scale 0-255.
    """

    def __init__(self, network: EfficientNet, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, size, size, 3) RGB in 0-255 to (B, head_channels)."""
        x = x.permute(0, 3, 1, 2)  # (B, 3, size, size)
        return self.network((x - self.mean) / self.std)  # type: ignore[no-any-return]


def count_repeats(variant: Variant) -> list[int]:
    """Blocks per stage; a Lite network scales neither its first nor its last stage (all factors are 1 for Lite0)."""
    return [math.ceil(stage.n_repeats * variant.depth) for stage in STAGES]


def _build_blocks(variant: Variant, n_channels: int, size_px: int) -> tuple[list[Block], int]:
    """All blocks, and the side of what the last one gives."""
    blocks = []
    for stage, n_repeats in zip(STAGES, count_repeats(variant), strict=True):
        n_outputs = variant.scale_channels(stage.channels)
        for repeat in range(n_repeats):
            stride = stage.stride if repeat == 0 else 1
            blocks.append(Block(n_channels, n_outputs, stage, size_px=size_px, stride=stride, lite=variant.lite))
            n_channels, size_px = n_outputs, count_outputs(size_px, stride)
    return blocks, size_px
