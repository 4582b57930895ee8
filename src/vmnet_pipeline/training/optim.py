"""Optimiser, learning-rate schedule, and the moving average of weights."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

if TYPE_CHECKING:
    from vmnet_pipeline.models.two_tower import VMNet

AVERAGE_WARM_UP_STEPS = 10
ADAM_BETA_2 = 0.999  # torch's default, and TensorFlow's


def build_optimiser(
    model: nn.Module, loss: nn.Module, *, learning_rate: float, epsilon: float, weight_decay: float = 0.0
) -> torch.optim.Adam:
    """Adam, or AdamW when there is weight decay, which applies to weight matrices only.

    Source: D. Kingma, J. Ba, arXiv:1412.6980; I. Loshchilov, F. Hutter, arXiv:1711.05101 (decoupled decay).
    """
    trainable = [p for p in (*model.parameters(), *loss.parameters()) if p.requires_grad]
    if not weight_decay:
        return torch.optim.Adam(trainable, lr=learning_rate, eps=epsilon, fused=True)
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, eps=epsilon, fused=True)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate and epsilon of Adam, step by step.

    Attributes:
        learning_rate: The largest one.
        shape: `staircase`, or half a `cosine` down to 0; both after a linear warm-up.
        n_warm_up: Steps of the warm-up; a fraction is allowed.
        n_steps: Steps of the whole training (cosine).
        decay: Factor of each stair.
        decay_steps: Steps of a stair.
        first_step: Steps of the checkpoint that training starts from: a staircase goes on from there, and a
            cosine begins again.
        epsilon: Of Adam.
        epsilon_before_correction: Whether epsilon acts as if added before the bias correction, as in TensorFlow.

    Source: I. Loshchilov, F. Hutter, arXiv:1608.03983 (cosine).
    """

    learning_rate: float
    shape: Literal["staircase", "cosine"] = "staircase"
    n_warm_up: float = 0.0
    n_steps: int = 1
    decay: float = 1.0
    decay_steps: int = 1
    first_step: int = 0
    epsilon: float = 1e-8
    epsilon_before_correction: bool = False

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        step -= 0 if self.shape == "staircase" else self.first_step
        warm = min(1.0, (step + 1) / self.n_warm_up) if self.n_warm_up else 1.0
        if self.shape == "cosine":
            n_left = max(1, self.n_steps - self.n_warm_up)
            share = min(1.0, max(0, step - self.n_warm_up) / n_left)
            return self.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * share))
        return self.learning_rate * warm * self.decay ** (step // self.decay_steps)

    def epsilon_at(self, step: int) -> float:
        """Epsilon for torch's Adam in a step, counted from 0.

        torch adds epsilon after the correction c = sqrt(1 - beta^step), TensorFlow before it: m / (sqrt(v) + e) * c,
        which is m / (sqrt(v) / c + e / c).

        Source: "epsilon hat" of arXiv:1412.6980, section 2.
        """
        if not self.epsilon_before_correction:
            return self.epsilon
        return self.epsilon / math.sqrt(1.0 - ADAM_BETA_2 ** (step + 1))


class WeightAverage:
    """Exponential moving average of a network's weights and running statistics; `model` is ready to be evaluated.

    Source: B. Polyak, A. Juditsky, Acceleration of stochastic approximation by averaging (1992).
    """

    def __init__(self, model: VMNet, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval()

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after `step` steps; early on the average is over few steps, so that it does not lag."""
        decay = min(self.decay, step / (step + AVERAGE_WARM_UP_STEPS))
        current = model.state_dict()
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                value.lerp_(current[name], 1.0 - decay)
            else:
                value.copy_(current[name])
