"""The musicnn network, for inference.

Source: Pons & Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging" (2019), and
Pons et al., "End-to-end learning for music audio tagging at scale" (ISMIR 2018).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np

N_MELS = 96
N_TAGS = 50
BATCH_NORM_EPS = 1e-3
TIMBRAL_WIDTHS = (38, 67)
TEMPORAL_LENGTHS = (128, 64, 32)
N_TIMBRAL = 204
N_TEMPORAL = 51
N_FRONT = len(TIMBRAL_WIDTHS) * N_TIMBRAL + len(TEMPORAL_LENGTHS) * N_TEMPORAL
MID_LENGTH = 7
LAYERS = ("penultimate", "max_pool", "mean_pool", "mean_max_add", "taggram")


class FrontBlock(nn.Module):
    """Convolution over (time, frequency), ReLU, batch norm, maximum over all frequencies."""

    def __init__(self, n_filters: int, kernel: tuple[int, int], time_padding: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, n_filters, kernel)
        self.norm = nn.BatchNorm2d(n_filters, eps=BATCH_NORM_EPS)
        self.time_padding = time_padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, time, mel) to (B, n_filters, time)."""
        x = functional.pad(x, (0, 0, *self.time_padding))
        # The norm's sign may be negative, so the maximum has to come after it, as in the original.
        return torch.amax(self.norm(torch.relu(self.conv(x))), dim=3)


class MidBlock(nn.Module):
    """Convolution over 7 frames, ReLU, batch norm."""

    def __init__(self, n_inputs: int, n_filters: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_inputs, n_filters, MID_LENGTH, padding=MID_LENGTH // 2)
        self.norm = nn.BatchNorm1d(n_filters, eps=BATCH_NORM_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_inputs, time) to (B, n_filters, time)."""
        return self.norm(torch.relu(self.conv(x)))  # type: ignore[no-any-return]


def _split_same_padding(length: int) -> tuple[int, int]:
    """Zeros before and after so that an unstrided convolution keeps the length; the odd one goes last."""
    return (length - 1) // 2, length // 2


class MusicnnNetwork(nn.Module):
    """musicnn up to one chosen layer.

    Args:
        n_mid: Filters of each mid-end convolution, 64 (small) or 512 (big).
        n_dense: Units of the penultimate layer, 200 or 500.
        layer: Which activation to return, one of `LAYERS`. `mean_max_add` is max_pool + mean_pool.
    """

    def __init__(self, n_mid: int, n_dense: int, layer: str = "penultimate") -> None:
        super().__init__()
        if layer not in LAYERS:
            raise ValueError(f"unknown layer {layer!r}")
        self.layer = layer
        self.norm_input = nn.BatchNorm2d(1, eps=BATCH_NORM_EPS)
        timbral = [FrontBlock(N_TIMBRAL, (7, width), (3, 3)) for width in TIMBRAL_WIDTHS]
        temporal = [FrontBlock(N_TEMPORAL, (length, 1), _split_same_padding(length)) for length in TEMPORAL_LENGTHS]
        self.front = nn.ModuleList(timbral + temporal)
        self.mid = nn.ModuleList([MidBlock(N_FRONT, n_mid), MidBlock(n_mid, n_mid), MidBlock(n_mid, n_mid)])
        n_flat = 2 * (N_FRONT + 3 * n_mid)
        self.norm_flat = nn.BatchNorm1d(n_flat, eps=BATCH_NORM_EPS)
        self.dense = nn.Linear(n_flat, n_dense)
        self.norm_dense = nn.BatchNorm1d(n_dense, eps=BATCH_NORM_EPS)
        self.tags = nn.Linear(n_dense, N_TAGS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 187, 96) log-mel to (B, D) activations of the chosen layer."""
        x = self.norm_input(x.unsqueeze(1))  # (B, 1, 187, 96)
        front = torch.cat([block(x) for block in self.front], dim=1)  # (B, 561, 187)
        first = self.mid[0](front)
        second = self.mid[1](first) + first
        third = self.mid[2](second) + second
        dense = torch.cat([front, first, second, third], dim=1)  # (B, 561 + 3 n_mid, 187)
        return self._finish(torch.amax(dense, dim=2), torch.mean(dense, dim=2))

    def _finish(self, maximum: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        pooled: dict[str, Callable[[], torch.Tensor]] = {
            "max_pool": lambda: maximum,
            "mean_pool": lambda: mean,
            "mean_max_add": lambda: maximum + mean,
        }
        if self.layer in pooled:
            return pooled[self.layer]()
        flat = torch.stack([maximum, mean], dim=2).flatten(1)  # channels interleave: max0, mean0, max1, ...
        penultimate: torch.Tensor = self.norm_dense(torch.relu(self.dense(self.norm_flat(flat))))
        return torch.sigmoid(self.tags(penultimate)) if self.layer == "taggram" else penultimate

    def variables(self) -> dict[str, nn.Module]:
        """Name of each layer in the published checkpoints -> the layer here."""
        norms = [self.norm_input, *(block.norm for block in self.front), *(block.norm for block in self.mid)]
        norms += [self.norm_flat, self.norm_dense]
        convs = [block.conv for block in (*self.front, *self.mid)]
        groups = {"batch_normalization": norms, "conv2d": convs, "dense": [self.dense, self.tags]}
        return {
            f"{prefix}_{index}" if index else prefix: layer
            for prefix, layers in groups.items()
            for index, layer in enumerate(layers)
        }


class PublishedNetwork(Protocol):
    """A network whose weights come from a checkpoint of the musicnn package."""

    def variables(self) -> dict[str, nn.Module]:
        """Name of each layer in the published checkpoints -> the layer here."""
        ...

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """As of every module."""
        ...


def read_state(network: PublishedNetwork, variables: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Turn checkpoint variables into a state dict of the network.

    Raises:
        KeyError: A variable is missing.
    """
    names = {id(module): name for name, module in network.named_modules()}
    state: dict[str, torch.Tensor] = {}
    for source, layer in network.variables().items():
        target = names[id(layer)]
        for key, value in _read_layer(layer, source, variables).items():
            state[f"{target}.{key}"] = torch.from_numpy(value.copy())
    return state


def _read_layer(layer: nn.Module, name: str, variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
        keys = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
        return {ours: variables[f"{name}/{theirs}"] for ours, theirs in keys.items()}
    kernel = variables[f"{name}/kernel"]
    if isinstance(layer, nn.Conv2d):  # (time, mel, 1, filters)
        kernel = kernel.transpose(3, 2, 0, 1)
    elif isinstance(layer, nn.Conv1d):  # (time, channels, 1, filters): the original lays channels along an image axis
        kernel = kernel[:, :, 0].transpose(2, 1, 0)
    else:
        kernel = kernel.T
    return {"weight": kernel, "bias": variables[f"{name}/bias"]}
