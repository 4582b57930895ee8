"""A tower that starts from regularised canonical correlation analysis and learns only what that leaves open.

Canonical analysis finds the directions in which two views agree, and how strongly. For jointly Gaussian views with
correlations r_k, the order of candidates v for a query u that no other order beats is by the likelihood ratio

    s(u, v) = sum_k a_k u_k v_k - b_k u_k^2 - b_k v_k^2,    a = r / (1 - r^2),  b = r^2 / (2 (1 - r^2)).

`CanonicalTower` writes s as the dot product of unit vectors, exactly, and so works with any index for cosine
similarity. Network layers bend the variates first: they start at zero and learn where the views are not Gaussian.

Source: H. Hotelling, Relations between two sets of variates, Biometrika 28 (1936); F. Bach, M. Jordan, A probabilistic
interpretation of canonical correlation analysis (2005), for the Gaussian model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.models.cca import MAX_CORRELATION, fit_canonical
from vmnet_pipeline.models.types import TowerOutput, init_linear
from vmnet_pipeline.types import Sequences, Side

if TYPE_CHECKING:
    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.types import Array, FeatureArray


N_SPHERE_DIMS = 4  # coordinates that carry the quadratic terms and fill up to unit length
HIDDEN_DIM = 256
MIN_CORRELATION = 0.01  # below, a direction tells too little for its share of the sphere
RADIUS_SHARE = 8.0  # squared radius over the mean squared length of a scaled variate; room for outliers


class CanonicalTower(nn.Module):
    """Canonical variates, bent by a small network, on the sphere: (B, D) or (B, T, D) -> (B, E).

    The embedding holds E - 4 scaled variates and four coordinates, two of which meet the other side's constant and so
    carry the quadratic terms, and two of which fill up the length on one side each. A dot product of two embeddings is
    the score divided by the squared radius. Time, if there is any, is averaged.

    Args:
        input_dim: D.
        embedding_dim: E, at least 5.
        side: Music and video use mirrored coordinates.
        dropout: Share of hidden activations dropped, 0-1.
    """

    projection: Tensor
    weight: Tensor
    radius: Tensor

    def __init__(self, input_dim: int, embedding_dim: int, *, side: Side, dropout: float) -> None:
        super().__init__()
        n = embedding_dim - N_SPHERE_DIMS
        if n < 1:
            raise ParameterError(f"tower 'canonical' needs an embedding_dim of at least 5, not {embedding_dim}")
        self.embedding_dim = embedding_dim
        self.side = side
        # Fixed: thousands of weights that canonical analysis has already estimated would only overfit from here.
        self.register_buffer("projection", torch.zeros(input_dim, n))
        self.register_buffer("weight", torch.zeros(n))  # of the variates at the network's input
        self.register_buffer("radius", torch.ones(()))
        self.scale = nn.Parameter(torch.zeros(n))  # sqrt(a)
        self.curvature = nn.Parameter(torch.zeros(n))  # b
        self.hidden = nn.Sequential(
            init_linear(nn.Linear(n, HIDDEN_DIM)), nn.BatchNorm1d(HIDDEN_DIM), nn.ReLU(), nn.Dropout(dropout)
        )
        self.bend = _zero_linear(HIDDEN_DIM, n)
        self.offset = _zero_linear(HIDDEN_DIM, 1)

    @torch.no_grad()
    def set_fit(self, projection: Array, correlations: Array) -> None:
        """Take over a (D, n) projection to variates of unit variance and their (n,) correlations."""
        r = torch.from_numpy(correlations).float().clamp(MIN_CORRELATION, MAX_CORRELATION)
        a = r / (1.0 - r**2)
        n = len(r)
        self.projection.zero_()[:, :n] = torch.from_numpy(projection).float()
        self.weight.zero_()[:n] = r.sqrt()
        self.scale.zero_()[:n] = a.sqrt()
        self.curvature.zero_()[:n] = a * r / 2.0
        self.radius.fill_(float((1.0 + RADIUS_SHARE * a.sum()).sqrt()))

    def forward(self, x: Tensor) -> TowerOutput:
        """(B, D) or (B, T, D) float32 -> embeddings (B, E); the structure feature is the (averaged) input."""
        pooled = x.mean(dim=1) if x.ndim == 3 else x  # (B, D)
        with torch.autocast(pooled.device.type, enabled=False):  # large terms cancel, which takes all the digits
            variates = pooled @ self.projection  # (B, E - 4)
        hidden = self.hidden(variates * self.weight)  # (B, H)
        variates = variates + self.bend(hidden)
        quadratic = ((variates**2 - 1.0) * self.curvature).sum(dim=1) + self.offset(hidden).squeeze(1)  # (B,)
        return TowerOutput(self._place(variates * self.scale, quadratic), pooled)

    def _place(self, scaled: Tensor, quadratic: Tensor) -> Tensor:
        """Unit vectors (B, E) whose dot products are (p . q - quadratic_p - quadratic_q + constant) / radius^2."""
        constant = self.radius / 2.0
        own = -quadratic / constant
        used = (scaled**2).sum(dim=1) + own**2 + constant**2
        filler = (self.radius**2 - used).clamp_min(1e-6).sqrt()
        other, zero = constant.expand_as(own), torch.zeros_like(own)
        first, second = (own, other) if self.side == "music" else (other, own)
        third, fourth = (filler, zero) if self.side == "music" else (zero, filler)
        return functional.normalize(
            torch.cat([scaled, torch.stack([first, second, third, fourth], dim=1)], dim=1), dim=1
        )


def _zero_linear(in_dim: int, out_dim: int) -> nn.Linear:
    layer = nn.Linear(in_dim, out_dim)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def fit_towers(model: VMNet, music: FeatureArray, video: FeatureArray, *, halves: Array) -> float | None:
    """Fit a model's canonical towers to training pairs, through its own scalers.

    Returns:
        The squared radius: the factor from dot products to log-likelihood ratios; None without canonical towers.

    Raises:
        ParameterError: Only one of the two towers is canonical, the features are sequences, or too few are finite.
    """
    sides = (model.music, model.video)
    if not any(isinstance(side, CanonicalTower) for side in sides):
        return None
    if not all(isinstance(side, CanonicalTower) for side in sides):
        raise ParameterError(
            "tower 'canonical' needs the same tower on the other side; set both music_tower and video_tower to it"
        )
    if isinstance(music, Sequences) or isinstance(video, Sequences):
        raise ParameterError("tower 'canonical' takes pooled features, and these are sequences; pack them pooled")
    towers = cast("tuple[CanonicalTower, CanonicalTower]", sides)
    n = len(towers[0].scale)
    fit = fit_canonical(ScaledRows(music, model.music_scaler), ScaledRows(video, model.video_scaler), n, halves=halves)  # type: ignore[arg-type]
    towers[0].set_fit(fit.music, fit.correlations)
    towers[1].set_fit(fit.video, fit.correlations)
    return float(towers[0].radius) ** 2


class ScaledRows:
    """Rows of an array after a scaler; nothing is computed before rows are asked for."""

    def __init__(self, array: Array, scaler: nn.Module) -> None:
        self.array = array
        self.scaler = scaler

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the array."""
        return self.array.shape

    @torch.no_grad()
    def __getitem__(self, rows: Array) -> Array:
        chunk = torch.from_numpy(np.asarray(self.array[rows], dtype=np.float32))
        return cast("Array", self.scaler(chunk).numpy())
