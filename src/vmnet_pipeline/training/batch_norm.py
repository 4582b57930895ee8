"""Batch norm that follows the variance of a batch as TensorFlow does."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.nn.modules.batchnorm import _BatchNorm


class PopulationBatchNorm1d(nn.BatchNorm1d):
    """Batch norm whose running variance averages sums of squares divided by n; torch's own divides by n - 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) float32 -> (B, C)."""
        if not self.training:
            return super().forward(x)
        with torch.no_grad():
            variance, mean = torch.var_mean(x, dim=0, correction=0)
        update_statistics(self, mean, variance)
        return functional.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)


@torch.no_grad()
def update_statistics(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics towards the (C,) mean and variance of a batch."""
    cast("Tensor", norm.num_batches_tracked).add_(1)
    cast("Tensor", norm.running_mean).lerp_(mean, cast("float", norm.momentum))
    cast("Tensor", norm.running_var).lerp_(variance, cast("float", norm.momentum))


def replace_batch_norms(model: nn.Module, kind: type[_BatchNorm], make: Callable[[_BatchNorm], _BatchNorm]) -> None:
    """Put what `make` gives in place of every batch norm of a kind; weights, their names and the device stay."""
    parents = list(model.modules())
    norms = [(parent, *item) for parent in parents for item in parent.named_children() if isinstance(item[1], kind)]
    for parent, name, norm in norms:
        replacement = make(cast("_BatchNorm", norm))
        replacement.load_state_dict(norm.state_dict())
        setattr(parent, name, replacement.to(cast("Tensor", norm.weight).device))


def use_population_variance(model: nn.Module) -> None:
    """Use `PopulationBatchNorm1d` behind every fully connected layer.

    Behind convolutions TensorFlow's fused batch norm divides by n - 1, as torch does.
    """
    replace_batch_norms(
        model, nn.BatchNorm1d, lambda norm: PopulationBatchNorm1d(norm.num_features, norm.eps, norm.momentum)
    )
