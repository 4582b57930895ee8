"""What happens to weights and inputs in a step: optimiser, learning rate, averaging, augmentation."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vmnet_pipeline.models.types import MaskedSequence

if TYPE_CHECKING:
    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.models.types import Features
    from vmnet_pipeline.params import TrainParams

AVERAGE_WARM_UP_STEPS = 10
ADAM_BETA_2 = 0.999  # torch's default, and TensorFlow's


def build_optimiser(model: nn.Module, loss: nn.Module, params: TrainParams) -> torch.optim.Adam:
    """Adam, or AdamW when there is weight decay, which applies to weight matrices only.

    Source: D. Kingma, J. Ba, arXiv:1412.6980; I. Loshchilov, F. Hutter, arXiv:1711.05101 (decoupled decay).
    """
    trainable = [p for p in (*model.parameters(), *loss.parameters()) if p.requires_grad]
    if not params.weight_decay:
        return torch.optim.Adam(trainable, lr=params.learning_rate, eps=params.adam_epsilon, fused=True)
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": params.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=params.learning_rate, eps=params.adam_epsilon, fused=True)


def learning_rate(params: TrainParams, step: int, steps_per_epoch: int) -> float:
    """Learning rate of a step, counted from 0: linear warm-up, then a staircase or half a cosine down to 0.

    Source: I. Loshchilov, F. Hutter, arXiv:1608.03983 (cosine).
    """
    n_warm = params.warmup_epochs * steps_per_epoch
    warm = min(1.0, (step + 1) / n_warm) if n_warm else 1.0
    if params.lr_schedule == "cosine":
        n_left = max(1, params.epochs * steps_per_epoch - n_warm)
        share = min(1.0, max(0, step - n_warm) / n_left)
        return params.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * share))
    return params.learning_rate * warm * params.lr_decay ** (step // params.lr_decay_steps)


def adam_epsilon(params: TrainParams, step: int) -> float:
    """Epsilon of torch's Adam in a step, counted from 1; scaled where it is to be as if added before the correction.

    With the correction c = sqrt(1 - beta^step), m / (sqrt(v) + e) * c is m / (sqrt(v) / c + e / c).

    Source: the first form is that of TensorFlow's AdamOptimizer ("epsilon hat" of arXiv:1412.6980, section 2).
    """
    if not params.epsilon_before_correction:
        return params.adam_epsilon
    return params.adam_epsilon / math.sqrt(1.0 - ADAM_BETA_2**step)


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


def add_noise(features: Features, deviation: float | Tensor) -> Features:
    """Gaussian noise from torch's global random state; what (B, ..., D) features share survives it."""
    if isinstance(features, MaskedSequence):
        return features._replace(values=features.values + deviation * torch.randn_like(features.values))
    return features + deviation * torch.randn_like(features)


def mix_pairs(music: Tensor, video: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Mix each pair with another one, in the same proportion on both sides, so that mixtures match mixtures.

    Args:
        music: (B, ...) features.
        video: (B, ...) features.
        alpha: Parameter of the symmetric beta distribution of the share; the pair's own share is at least a half.

    Source: H. Zhang et al., arXiv:1710.09412.
    """
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    share = max(share, 1.0 - share)
    partner = torch.randperm(len(music)).to(music.device)
    return share * music + (1.0 - share) * music[partner], share * video + (1.0 - share) * video[partner]
