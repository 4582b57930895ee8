"""Regularised canonical correlation analysis (CCA): the directions in which two views agree, and how strongly.

With covariances S of the centred views x and y and ridges a, b, it finds the pairs of directions u, v that maximise

    u' S_xy v    subject to    u' (S_xx + a I) u = v' (S_yy + b I) v = 1,

each uncorrelated with those before. They are u = (S_xx + a I)^(-1/2) l and v = (S_yy + b I)^(-1/2) r for the singular
vectors l, r of the whitened (S_xx + a I)^(-1/2) S_xy (S_yy + b I)^(-1/2); its singular values are the correlations.
scikit-learn's CCA has no ridge, and without one the features of a few hundred pairs agree by accident.

Source: H. Hotelling, Relations between two sets of variates, Biometrika 28 (1936); D. Hardoon, S. Szedmak,
J. Shawe-Taylor, Canonical correlation analysis (2004), for the ridge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import scipy.linalg
import torch

from vmnet_pipeline.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmnet_pipeline.types import Array


RIDGES = (0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # in units of the mean variance of a side
MAX_COMPONENTS = 1024  # principal components kept before the analysis; bounds its cost on wide features
MIN_RIDGE = 1e-12  # of a side that does not vary, as half of two items
MIN_VARIANCE = 1e-9  # of a direction, which has 1 with its regularisation; below, it is one that the items do not span
MIN_CORRELATION = 1e-10  # of the largest one; below is rounding
MAX_CORRELATION = 0.97  # above, a few outliers would dominate the scores
CHUNK_ROWS = 1024


@dataclass(frozen=True)
class CanonicalFit:
    """Directions in which two views agree.

    Attributes:
        music: (Dm, n) float64, centred inputs to variates of unit variance.
        video: (Dv, n) float64.
        correlations: (n,) float64, in [0, 1): of variates fitted on one half of the items and measured on the other.
        ridge: The chosen regularisation, in units of the mean variance of a side's inputs.
    """

    music: Array
    video: Array
    correlations: Array
    ridge: float


@dataclass
class _Moments:
    """Sums over items of one half; covariances of any union of halves follow from them."""

    n: int
    x: Array
    y: Array
    xx: Array
    yy: Array
    xy: Array

    def __add__(self, other: _Moments) -> _Moments:
        mine, theirs = vars(self), vars(other)
        return _Moments(**{name: mine[name] + theirs[name] for name in mine})

    def covariances(self) -> tuple[Array, Array, Array]:
        x, y = self.x / self.n, self.y / self.n
        return self.xx / self.n - np.outer(x, x), self.yy / self.n - np.outer(y, y), self.xy / self.n - np.outer(x, y)


class CanonicalAnalysis:
    """CCA of one set of covariances at any ridge, from one eigendecomposition per view.

    In the basis of the eigenvectors of S_xx, (S_xx + a I)^(-1/2) is diagonal: another ridge costs one decomposition
    of the cross-covariance, not two of the views.
    """

    def __init__(self, xx: Array, yy: Array, xy: Array) -> None:
        self.x_values, self.x_vectors = _principal(xx)
        self.y_values, self.y_vectors = _principal(yy)
        self.cross = self.x_vectors.T @ xy @ self.y_vectors

    def solve(self, x_ridge: float, y_ridge: float, n: int | None = None) -> tuple[Array, Array, Array]:
        """(Dx, n) and (Dy, n) directions and their (n,) correlations, falling; None gives all.

        A direction that the items do not determine is 0.
        """
        x_scale, y_scale = 1.0 / np.sqrt(self.x_values + x_ridge), 1.0 / np.sqrt(self.y_values + y_ridge)
        left, values, right = decompose(x_scale[:, None] * self.cross * y_scale)
        known = values[:n] > MIN_CORRELATION * values.max(initial=0.0)
        x, y = x_scale[:, None] * left[:, :n] * known, y_scale[:, None] * right[:n].T * known
        return self.x_vectors @ x, self.y_vectors @ y, values[:n]


def _solve(moments: _Moments, n: int, dims: tuple[int, int]) -> Callable[[float], tuple[Array, Array]]:
    """The first n directions of both sides at a ridge in units of the mean variance of a side's entries."""
    xx, yy, xy = moments.covariances()
    analysis = CanonicalAnalysis(xx, yy, xy)
    x_mean, y_mean = np.trace(xx) / dims[0], np.trace(yy) / dims[1]

    def solve(ridge: float) -> tuple[Array, Array]:
        return analysis.solve(max(ridge * x_mean, MIN_RIDGE), max(ridge * y_mean, MIN_RIDGE), n)[:2]

    return solve


def fit_canonical(music: Array, video: Array, n_components: int, *, halves: Array) -> CanonicalFit:
    """Regularised canonical correlation analysis; memory does not grow with the number of items.

    The regularisation is the one under which variates fitted on one half share most information on the other half.

    Args:
        music: (n, Dm) or (n, T, Dm) floating point, may be memory-mapped; time is averaged.
        video: (n, Dv) or (n, T, Dv) floating point.
        n_components: Variates wanted; fewer come back where a side is narrower.
        halves: (n,) bool, which half an item is in; related items belong in the same one.

    Raises:
        ParameterError: A half has no item whose features are finite.
    """
    dims = music.shape[-1], video.shape[-1]
    (music, x_basis), (video, y_basis) = (_rotate_wide(side, len(halves)) for side in (music, video))
    first, second = (_sum_moments(music, video, np.flatnonzero(halves == half)) for half in (False, True))
    n = min(n_components, len(first.x), len(first.y))
    analyses = [(_solve(first, n, dims), second), (_solve(second, n, dims), first)]
    held_out = {
        ridge: np.mean([_correlate(solve(ridge), rest) for solve, rest in analyses], axis=0) for ridge in RIDGES
    }
    # Mutual information of Gaussian views with these correlations, in nats.
    information = {ridge: float(-0.5 * np.log1p(-(r**2)).sum()) for ridge, r in held_out.items()}
    ridge = max(RIDGES, key=lambda value: information[value])
    whole = first + second
    x, y = _solve(whole, n, dims)(ridge)
    xx, yy, _ = whole.covariances()
    x, y = x / _deviation(x, xx), y / _deviation(y, yy)
    return CanonicalFit(
        x if x_basis is None else x_basis @ x, y if y_basis is None else y_basis @ y, held_out[ridge], ridge
    )


def _rotate_wide(features: Array, n: int) -> tuple[Array, Array | None]:
    """Features with more entries than the n items: (n, r) coordinates in the span of the items, and its (D, r) basis.

    Directions of a regularised analysis are in that span, so that nothing is lost and the cost does not grow with D.
    """
    if features.shape[-1] <= n:
        return features, None
    rows = pool_time(features[np.arange(n)])
    good = np.isfinite(rows).all(axis=1)
    basis = torch.linalg.qr(torch.from_numpy(rows[good].T))[0].numpy()
    return rows @ basis, basis


def _sum_moments(music: Array, video: Array, rows: Array) -> _Moments:
    total: _Moments | None = None
    for start in range(0, len(rows), CHUNK_ROWS):
        x, y = (pool_time(side[rows[start : start + CHUNK_ROWS]]) for side in (music, video))
        # Bad features are named by the training loop, which meets them in its first epoch.
        good = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
        x, y = x[good], y[good]
        part = _Moments(len(x), x.sum(axis=0), y.sum(axis=0), _cross(x, x), _cross(y, y), _cross(x, y))
        total = part if total is None else total + part
    if total is None or total.n == 0:
        raise ParameterError(
            "tower 'canonical' needs at least two usable training pairs; add some or use another tower"
        )
    return total


def pool_time(features: Array) -> Array:
    """(n, D) float64 of (n, D) or (n, T, D): time is averaged."""
    features = np.asarray(features, dtype=np.float64)
    return cast("Array", features.mean(axis=1) if features.ndim == 3 else features)


def _cross(x: Array, y: Array) -> Array:
    return (torch.from_numpy(x).T @ torch.from_numpy(y)).numpy()


def decompose(matrix: Array) -> tuple[Array, Array, Array]:
    """Singular vectors and values: matrix = left @ diag(values) @ right. Not by torch where its fast method fails."""
    try:
        left, values, right = torch.linalg.svd(torch.from_numpy(matrix), full_matrices=False)
    except RuntimeError:  # LinAlgError of torch: many equal singular values, as items with equal features make
        return cast("tuple[Array, Array, Array]", scipy.linalg.svd(matrix, full_matrices=False, lapack_driver="gesvd"))
    return left.numpy(), values.numpy(), right.numpy()


def _principal(covariance: Array) -> tuple[Array, Array]:
    # torch and not numpy for heavy steps: so that they keep to the number of threads that training was given
    values, vectors = (part.numpy() for part in torch.linalg.eigh(torch.from_numpy(covariance)))
    kept = slice(max(0, len(values) - MAX_COMPONENTS), None)
    return np.maximum(values[kept], 0.0), vectors[:, kept]


def _deviation(directions: Array, covariance: Array) -> Array:
    """(n,) deviations along directions; infinite where there is none, so that division gives 0 there."""
    variance = np.einsum("dn,dn->n", directions, covariance @ directions)
    return np.sqrt(np.where(variance > MIN_VARIANCE, variance, np.inf))


def _correlate(directions: tuple[Array, Array], moments: _Moments) -> Array:
    """(n,) correlations, not below 0, of the variates on other items."""
    x, y = directions
    xx, yy, xy = moments.covariances()
    shared = np.einsum("dn,dn->n", x, xy @ y)
    return cast("Array", np.clip(shared / (_deviation(x, xx) * _deviation(y, yy)), 0.0, MAX_CORRELATION))
