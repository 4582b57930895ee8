"""Published EfficientNet weight files, renamed for our network.

Two layouts are read: the PyTorch state dict of EfficientNet-Lite, and the HDF5 files of Keras (`notop`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vmnet_pipeline.backends.networks.efficientnet import STAGES, Variant, count_repeats

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

NORM_KINDS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def rename_torch_state(content: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """State dict of the PyTorch EfficientNet family (`_conv_stem`, `_blocks.N`, ...) in our names; no classifier."""
    parts = {
        "_conv_stem": "stem.conv",
        "_bn0": "stem.norm",
        "_conv_head": "head.conv",
        "_bn1": "head.norm",
    }
    block_parts = {
        "_expand_conv": "expand.conv",
        "_bn0": "expand.norm",
        "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.norm",
        "_se_reduce": "gate.reduce",
        "_se_expand": "gate.expand",
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


def read_keras_state(variant: Variant, variables: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Variables of a Keras file in our names.

    Args:
        variant: Member of the family that the file is of.
        variables: `layer/kind` -> array, e.g. `stem_conv/kernel` (H, W, in, out).

    Raises:
        KeyError: A variable is missing.
    """
    state: dict[str, torch.Tensor] = {}
    for place, layer in _name_keras_convs(variant).items():
        kernel = "depthwise_kernel" if f"{layer}/depthwise_kernel" in variables else "kernel"
        array = variables[f"{layer}/{kernel}"]
        axes = (2, 3, 0, 1) if layer.endswith("dwconv") else (3, 2, 0, 1)
        state[f"{place}.weight"] = torch.from_numpy(array.transpose(axes).copy())
        if ".gate." in place:
            state[f"{place}.bias"] = torch.from_numpy(variables[f"{layer}/bias"].copy())
    for place, layer in _name_keras_norms(variant).items():
        for ours, theirs in NORM_KINDS.items():
            state[f"{place}.{ours}"] = torch.from_numpy(variables[f"{layer}/{theirs}"].copy())
    return state


def _name_keras_blocks(variant: Variant) -> list[tuple[str, bool]]:
    """Keras name of each block, and whether it has an expansion."""
    return [
        (f"block{number}{chr(ord('a') + repeat)}", stage.expansion > 1)
        for number, (stage, n_repeats) in enumerate(zip(STAGES, count_repeats(variant), strict=True), start=1)
        for repeat in range(n_repeats)
    ]


def _name_keras_convs(variant: Variant) -> dict[str, str]:
    names = {"stem.conv": "stem_conv", "head.conv": "top_conv"}
    for index, (block, expands) in enumerate(_name_keras_blocks(variant)):
        parts = {"depthwise.conv": "dwconv", "project.conv": "project_conv"}
        parts |= {"gate.reduce": "se_reduce", "gate.expand": "se_expand"}
        parts |= {"expand.conv": "expand_conv"} if expands else {}
        names |= {f"blocks.{index}.{ours}": f"{block}_{theirs}" for ours, theirs in parts.items()}
    return names


def _name_keras_norms(variant: Variant) -> dict[str, str]:
    names = {"stem.norm": "stem_bn", "head.norm": "top_bn"}
    for index, (block, expands) in enumerate(_name_keras_blocks(variant)):
        parts = {"depthwise.norm": "bn", "project.norm": "project_bn"} | (
            {"expand.norm": "expand_bn"} if expands else {}
        )
        names |= {f"blocks.{index}.{ours}": f"{block}_{theirs}" for ours, theirs in parts.items()}
    return names
