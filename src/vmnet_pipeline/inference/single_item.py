"""Embed one item with a VM-NET tower in NumPy.

Reading the weights once, some 36 MB for a pair, is nearly all of the work. One dot product per row streams them twice
as fast as torch's product of a matrix with one row (0.9 against 1.7 ms on one core of an AMD processor), and no thread
waits for another, which costs more than the work where other programs keep the cores busy. The weights are torch's
own memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from vmnet_pipeline.models.pooled_tower import HiddenLayer, PooledTower, TimeFusion, TimeFusionTower
from vmnet_pipeline.models.two_tower import Standardise, Whiten

if TYPE_CHECKING:
    from torch import Tensor, nn

Array: TypeAlias = npt.NDArray[np.float32]
RunOne: TypeAlias = Callable[[Array], Array]
SMALLEST_NORM = 1e-12  # as in torch's normalisation


class _Layer(NamedTuple):
    """Times `weight` (out, in), times `scale` (out,), plus `shift` (out,): batch norm is in the last two."""

    weight: Array
    scale: Array
    shift: Array

    def __call__(self, x: Array) -> Array:
        z: Array = np.vecdot(self.weight, x)
        z *= self.scale
        z += self.shift
        return z


def build_single(scaler: nn.Module, tower: nn.Module) -> RunOne | None:
    """Build a function that embeds one item, for a tower in inference mode on the CPU.

    Returns:
        A thread-safe function from (D,) or (T, C) float32 to (E,) float32 of unit length. None for towers that are not
        VM-NET's own: they have few weights, or take sequences.
    """
    head = tower.head if isinstance(tower, TimeFusionTower) else tower
    if not isinstance(head, PooledTower):
        return None
    filters = [_build_filter(part) for part in tower.time_fusion] if isinstance(tower, TimeFusionTower) else []
    hidden = [_build_hidden(cast("HiddenLayer", layer)) for layer in head.hidden]
    last = _fold(head.fc, head.bn)
    standardise = _build_scaler(scaler)

    def run(features: Array) -> Array:
        x = standardise(features)
        for apply in filters:
            x = apply(x)
        x = x.mean(axis=0) if filters else x
        for layer in hidden:
            x = layer(x)
        z = last(x)
        return cast("Array", z / np.float32(max(float(np.linalg.norm(z)), SMALLEST_NORM)))

    return run


def _build_hidden(layer: HiddenLayer) -> RunOne:
    folded, is_linear = _fold(layer.fc, layer.bn), layer.is_linear

    def run(x: Array) -> Array:
        z = folded(x)
        return z if is_linear else np.maximum(z, 0.0)

    return run


def _build_scaler(scaler: nn.Module) -> RunOne:
    if not isinstance(scaler, Standardise):
        return lambda x: x
    mean, std = _to_array(scaler.mean), _to_array(scaler.std)
    if isinstance(scaler, Whiten):
        matrix = _to_array(scaler.matrix)
        return lambda x: cast("Array", ((x - mean) / std) @ matrix)
    return lambda x: (x - mean) / std


def _build_filter(part: nn.Module) -> RunOne:
    """`TimeFusion` for one item, batch norm inside the filter; (T, C) -> (T // 3, C)."""
    fusion = cast("TimeFusion", part)
    scale, shift = _fold_norm(fusion.bn, _to_array(cast("Tensor", fusion.conv.bias)))
    kernel = _to_array(fusion.conv.weight).ravel() * scale[0]
    half = len(kernel) // 2

    def run(x: Array) -> Array:
        padded = np.pad(x, ((half, half), (0, 0)))
        filtered = kernel[0] * padded[: len(x)] + shift[0]
        for k in range(1, len(kernel)):
            filtered += kernel[k] * padded[k : k + len(x)]
        thirds = filtered[: len(x) // 3 * 3].reshape(len(x) // 3, 3, -1)
        return cast("Array", np.maximum(thirds.max(axis=1), 0.0))

    return run


def _fold(fc: nn.Linear, bn: nn.Module) -> _Layer:
    return _Layer(_to_array(fc.weight), *_fold_norm(bn, _to_array(fc.bias)))


def _fold_norm(bn: Any, bias: Array) -> tuple[Array, Array]:
    """Scale and shift that do what adding the bias and then batch norm do; without batch norm 1 and the bias."""
    if not hasattr(bn, "running_var"):
        return np.ones_like(bias), bias
    mean, var, gamma, beta = (
        _to_array(tensor).astype(np.float64) for tensor in (bn.running_mean, bn.running_var, bn.weight, bn.bias)
    )
    scale = gamma / np.sqrt(var + bn.eps)
    return scale.astype(np.float32), (scale * (bias - mean) + beta).astype(np.float32)


def _to_array(tensor: Tensor) -> Array:
    return cast("Array", tensor.detach().numpy())
