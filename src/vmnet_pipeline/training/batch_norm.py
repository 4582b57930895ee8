"""Batch norm that follows the variance of a batch as TensorFlow does."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class PopulationBatchNorm1d(nn.BatchNorm1d):
    """Batch norm whose running variance averages sums of squares divided by n; torch's own divides by n - 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) float32 -> (B, C)."""
        if not self.training:
            return super().forward(x)
        self._follow(x)
        return functional.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)

    @torch.no_grad()
    def _follow(self, x: Tensor) -> None:
        variance, mean = torch.var_mean(x, dim=0, correction=0)
        cast("Tensor", self.num_batches_tracked).add_(1)
        cast("Tensor", self.running_mean).lerp_(mean, cast("float", self.momentum))
        cast("Tensor", self.running_var).lerp_(variance, cast("float", self.momentum))


def use_population_variance(model: nn.Module) -> None:
    """Put `PopulationBatchNorm1d` in place of every batch norm behind a fully connected layer; names of weights stay.

    Behind convolutions TensorFlow's fused batch norm divides by n - 1, as torch does.
    """
    norms = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.BatchNorm1d
    ]
    for parent, name, norm in norms:
        replacement = PopulationBatchNorm1d(norm.num_features, norm.eps, norm.momentum)
        replacement.load_state_dict(norm.state_dict())
        setattr(parent, name, replacement.to(norm.weight.device))
