"""Batch norm that follows the variance of a batch as TensorFlow does."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class PopulationBatchNorm1d(nn.BatchNorm1d):
    """Batch norm whose running variance averages sums of squares divided by n; torch's own divides by n - 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) float32 -> (B, C)."""
        if not self.training:
            return super().forward(x)
        running, n = cast("Tensor", self.running_var), x.numel() // x.shape[1]
        kept = (1.0 - cast("float", self.momentum)) * running
        y = super().forward(x)
        with torch.no_grad():
            running.sub_(kept).mul_((n - 1) / n).add_(kept)
        return y


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
