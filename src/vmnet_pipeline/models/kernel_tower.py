"""A tower in closed form: the variates of kernel CCA; nothing is learnt by steps. See `models.kernel_cca`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.models.cca_tower import ScaledRows
from vmnet_pipeline.models.kernel_cca import KernelFit, KernelMap, fit_kernels
from vmnet_pipeline.models.types import TowerOutput
from vmnet_pipeline.types import Sequences

if TYPE_CHECKING:
    import numpy as np

    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.types import FeatureArray

N_LANDMARKS = 2000
TINY = 1e-10  # gives an item at the very mean, as all are where features are constant, a direction


class KernelTower(nn.Module):
    """Kernel variates on the unit sphere: (B, D) or (B, T, D) -> (B, E). Time, if there is any, is averaged.

    Args:
        input_dim: D.
        embedding_dim: E.
        n_landmarks: m.
    """

    landmarks: Tensor
    gamma: Tensor
    projection: Tensor
    offset: Tensor

    def __init__(self, input_dim: int, embedding_dim: int, n_landmarks: int) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.register_buffer("landmarks", torch.zeros(n_landmarks, input_dim))
        self.register_buffer("gamma", torch.ones(()))
        self.register_buffer("projection", torch.zeros(n_landmarks, embedding_dim))
        self.register_buffer("offset", torch.zeros(embedding_dim))
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)  # tells the device, as towers' weights do

    @torch.no_grad()
    def set_fit(self, fit: KernelMap) -> None:
        """Take over a fit with as many landmarks."""
        n = fit.projection.shape[1]
        self.landmarks.copy_(torch.from_numpy(fit.landmarks))
        self.gamma.fill_(fit.gamma)
        self.projection.zero_()[:, :n] = torch.from_numpy(fit.projection)
        self.offset.zero_()[:n] = torch.from_numpy(fit.offset)

    def forward(self, x: Tensor) -> TowerOutput:
        """(B, D) or (B, T, D) float32 -> embeddings (B, E); the structure feature is the (averaged) input."""
        pooled = x.mean(dim=1) if x.ndim == 3 else x  # (B, D)
        with torch.autocast(pooled.device.type, enabled=False):  # large terms cancel, which takes all the digits
            x, landmarks = pooled.double(), self.landmarks.double()
            squares = (x**2).sum(dim=1, keepdim=True) + (landmarks**2).sum(dim=1)
            kernel = torch.exp(-self.gamma.double() * (squares - 2.0 * (x @ landmarks.T)).clamp_min(0.0))  # (B, m)
            variates = (kernel @ self.projection.double() - self.offset.double()).float()  # (B, E)
        first = functional.pad(variates.new_full((1,), TINY), (0, self.embedding_dim - 1))
        return TowerOutput(functional.normalize((variates + first) * self.scale, dim=1), pooled)


def fit_kernel_towers(
    model: VMNet,
    music: FeatureArray,
    video: FeatureArray,
    groups: np.ndarray,
    *,
    seed: int,
    width: float | None = None,
    ridge: float | None = None,
) -> KernelFit:
    """Fit a network of two kernel towers to training pairs, through its own scalers.

    Args:
        model: Its towers have at most as many landmarks as there are pairs.
        music: (n, ...) features before scaling.
        video: (n, ...) features before scaling.
        groups: (n,) int codes of groups.
        seed: Of landmarks and folds.
        width: As in `fit_kernels`.
        ridge: As in `fit_kernels`.

    Raises:
        ParameterError: Only one tower is of this kind, the features are sequences, or too few are finite.
    """
    towers = (model.music, model.video)
    if not all(isinstance(tower, KernelTower) for tower in towers):
        raise ParameterError(
            "tower 'kernel' needs the same tower on the other side; set music_tower and video_tower to it"
        )
    if isinstance(music, Sequences) or isinstance(video, Sequences):
        raise ParameterError("tower 'kernel' takes pooled features, and these are sequences; pack them pooled")
    first, second = cast("tuple[KernelTower, KernelTower]", towers)
    fit = fit_kernels(
        cast("Any", ScaledRows(music, model.music_scaler)), cast("Any", ScaledRows(video, model.video_scaler)), groups,
        first.embedding_dim, n_landmarks=len(first.landmarks), seed=seed, width=width, ridge=ridge,
    )  # fmt: skip
    first.set_fit(fit.music)
    second.set_fit(fit.video)
    return fit
