"""Canonical correlation analysis of Gaussian kernels: where two views agree, without the limit of straight lines.

Regularised CCA (see `models.cca`) finds linear directions only. Here both views first go through the features of a
Gaussian kernel exp(-g |x - z|^2) at m landmarks z (Nystrom: K(x, Z) C^-T with C C^T = K(Z, Z)), which makes an item
known by the training items that it resembles. All is in closed form: the width g and the ridge are chosen by
cross-validation over groups, and memory is that of a few (m, m) matrices, however many pairs there are.

Source: F. Bach, M. Jordan, Kernel independent component analysis, JMLR 3 (2002), for kernel CCA; C. Williams,
M. Seeger, Using the Nystrom method to speed up kernel machines (2001).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.models.cca import decompose, pool_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Array: TypeAlias = npt.NDArray[Any]

WIDTHS = (0.25, 0.5, 0.8)  # of the kernel: g times the median squared distance between landmarks
RIDGES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 1e-2, 1e-1)  # a kernel's features have a variance of 1 in all
FIRST_RIDGE = 1e-4  # where widths are compared, if there are too many pairs to try everything
MANY_WIDTHS, MANY_RIDGES = WIDTHS[1:], RIDGES[1:5]  # what is then tried
MAX_PAIRS = 50_000  # more are thinned evenly; m landmarks do not profit from them
MAX_TRIED_LANDMARKS = 2_000  # when settings are chosen; the ridge that fits is about the same with more
MAX_SCORED = 1_000  # held-out pairs of a fold that settings are scored on
MANY_PAIRS = 2_000  # from here on three folds are enough to choose the settings
JITTER = 1e-6
CHUNK_ROWS = 1024


@dataclass(frozen=True)
class KernelSettings:
    """What cross-validation chooses: the width in median squared distances, and the ridge."""

    width: float
    ridge: float


@dataclass(frozen=True)
class KernelMap:
    """One view's half of a fit: x -> exp(-gamma |x - landmarks|^2) @ projection - offset.

    Attributes:
        landmarks: (m, D) float32.
        gamma: Of the kernel, per squared distance.
        projection: (m, n) float32; variates weighted by their correlations.
        offset: (n,) float32; what the mean of the training items gives.
    """

    landmarks: Array
    gamma: float
    projection: Array
    offset: Array


@dataclass(frozen=True)
class KernelFit:
    """Both views' maps, the settings that were chosen, and their mean reciprocal rank on held-out pairs."""

    music: KernelMap
    video: KernelMap
    settings: KernelSettings
    score: float | None


def fit_kernels(
    music: Array,
    video: Array,
    groups: Array,
    n_components: int,
    *,
    n_landmarks: int,
    seed: int,
    width: float | None = None,
    ridge: float | None = None,
) -> KernelFit:
    """Fit the two maps on pairs; settings are those under which held-out pairs rank best.

    Args:
        music: (n, Dm) or (n, T, Dm) floating point, or what gives such rows when it is indexed by row numbers; time is
            averaged.
        video: (n, Dv) or (n, T, Dv).
        groups: (n,) int codes; pairs of one group are held out together.
        n_components: Variates wanted; beyond the number of landmarks they are 0.
        n_landmarks: Training items that the kernels are measured at; all of them if there are fewer.
        seed: Of the landmarks and the folds.
        width: Of the kernel; None lets cross-validation choose it.
        ridge: Regularisation; None lets cross-validation choose it.

    Raises:
        ParameterError: Fewer than two pairs are finite.
    """
    rows = _usable_rows(music, video, len(groups))
    rng = np.random.default_rng((seed, 1))
    order = rng.permutation(rows)
    folds = assign_folds(groups[rows], 3 if len(rows) > MANY_PAIRS else 5, rng)

    def measure(width: float, n_landmarks: int, folds: Array) -> _Sums:
        chosen = np.sort(order[:n_landmarks])
        landmarks = [torch.from_numpy(pool_time(side[chosen])) for side in (music, video)]
        return _Sums(landmarks, width, music, video, rows, folds)

    @lru_cache(maxsize=1)  # one is large, and the settings are tried width by width
    def sums(width: float) -> _Sums:
        return measure(width, min(n_landmarks, MAX_TRIED_LANDMARKS), folds)

    @cache
    def score(settings: KernelSettings) -> float:
        return sums(settings.width).score(settings.ridge, n_components)

    many = len(rows) > MANY_PAIRS
    widths = (width,) if width else MANY_WIDTHS if many else WIDTHS
    ridges = (ridge,) if ridge else MANY_RIDGES if many else RIDGES
    if width is None and many:
        first = ridge or FIRST_RIDGE
        widths = (max(widths, key=lambda width: score(KernelSettings(width, first))),)
    tried = [KernelSettings(width, ridge) for width in widths for ridge in ridges]
    settings = max(tried, key=score) if len(tried) > 1 else tried[0]
    maps = measure(settings.width, n_landmarks, np.zeros(len(rows), dtype=np.int64)).fit(settings.ridge, n_components)
    return KernelFit(*maps, settings, score(settings) if len(tried) > 1 else None)


def assign_folds(groups: Array, n_folds: int, rng: np.random.Generator) -> Array:
    """(n,) int fold of each item, below `n_folds`; items of a group share one if there are several groups."""
    _, codes = np.unique(groups, return_inverse=True)
    if codes.max() == 0:
        codes = np.arange(len(groups))  # one group cannot be divided by groups
    sizes = np.bincount(codes)
    fold_of, filled = np.empty(len(sizes), dtype=np.int64), np.zeros(min(n_folds, len(sizes)))
    for code in sorted(rng.permutation(len(sizes)), key=lambda code: -sizes[code]):
        fold_of[code] = filled.argmin()
        filled[fold_of[code]] += sizes[code]
    return cast("Array", fold_of[codes])


def _usable_rows(music: Array, video: Array, n: int) -> Array:
    rows = np.arange(n) if n <= MAX_PAIRS else np.arange(MAX_PAIRS) * n // MAX_PAIRS
    finite = [
        np.isfinite(pool_time(music[chunk])).all(axis=1) & np.isfinite(pool_time(video[chunk])).all(axis=1)
        for chunk in _chunks(rows)
    ]
    rows = rows[np.concatenate(finite)] if finite else rows
    if len(rows) < 2:
        raise ParameterError("tower 'kernel' needs at least two usable training pairs; add some or use another tower")
    return rows


def _chunks(rows: Array) -> Iterator[Array]:
    for start in range(0, len(rows), CHUNK_ROWS):
        yield rows[start : start + CHUNK_ROWS]


class _Kernel:
    """Nystrom features of one view: (n, D) -> (n, m) float64."""

    def __init__(self, landmarks: Tensor, width: float) -> None:
        distances = _square_distances(landmarks, landmarks)
        typical = float(distances.median())
        self.landmarks, self.gamma = landmarks, width / typical if typical > 0 else 1.0
        self.root = torch.linalg.cholesky(
            torch.exp(-self.gamma * distances) + JITTER * torch.eye(len(landmarks)).double()
        )

    def __call__(self, x: Array) -> Tensor:
        kernel = torch.exp(-self.gamma * _square_distances(torch.from_numpy(x), self.landmarks))
        features: Tensor = torch.linalg.solve_triangular(self.root, kernel.T, upper=False).T
        return features

    def to_map(self, directions: Tensor, mean: Tensor) -> KernelMap:
        """The map whose variates are those of directions (m, n) in these features, 0 at their mean (m,)."""
        projection = torch.linalg.solve_triangular(self.root.T, directions, upper=True)
        parts = (self.landmarks, projection, mean @ directions)
        landmarks, projection, offset = (part.numpy().astype(np.float32) for part in parts)
        return KernelMap(landmarks, self.gamma, projection, offset)


class _Sums:
    """Moments of both views' kernel features by fold, at one width, and the features of pairs that are scored."""

    def __init__(
        self, landmarks: Sequence[Tensor], width: float, music: Array, video: Array, rows: Array, folds: Array
    ) -> None:
        self.kernels = [_Kernel(part, width) for part in landmarks]
        self.moments: list[_Moments] = []
        self.scored: list[tuple[Tensor, Tensor]] = []
        for fold in range(int(folds.max()) + 1):
            own = rows[folds == fold]
            parts = [self._featurise(music, video, chunk) for chunk in _chunks(own)]
            self.moments.append(_Moments.sum(parts))
            if folds.max() == 0:
                continue  # nothing is held out
            kept = own[np.arange(min(MAX_SCORED, len(own))) * len(own) // min(MAX_SCORED, len(own))]
            self.scored.append(self._featurise(music, video, kept))

    def _featurise(self, music: Array, video: Array, rows: Array) -> tuple[Tensor, Tensor]:
        return self.kernels[0](pool_time(music[rows])), self.kernels[1](pool_time(video[rows]))

    def score(self, ridge: float, n: int) -> float:
        """Mean reciprocal rank of the held-out pairs of each fold, both directions."""
        scores, sizes = [], []
        for fold, (x, y) in enumerate(self.scored):
            rest = [part for number, part in enumerate(self.moments) if number != fold]
            if len(x) < 2 or not rest:
                continue
            fit = _solve(_Moments.add(rest), ridge, n)
            scores.append(_score_ranks((x - fit.x_mean) @ fit.x, (y - fit.y_mean) @ fit.y))
            sizes.append(len(x))
        return float(np.average(scores, weights=sizes)) if scores else 0.0

    def fit(self, ridge: float, n: int) -> tuple[KernelMap, KernelMap]:
        """The maps of all pairs."""
        fit = _solve(_Moments.add(self.moments), ridge, n)
        return self.kernels[0].to_map(fit.x, fit.x_mean), self.kernels[1].to_map(fit.y, fit.y_mean)


@dataclass
class _Moments:
    n: int
    x: Tensor
    y: Tensor
    xx: Tensor
    yy: Tensor
    xy: Tensor

    @classmethod
    def sum(cls, parts: list[tuple[Tensor, Tensor]]) -> _Moments:
        return cls.add([cls(len(x), x.sum(0), y.sum(0), x.T @ x, y.T @ y, x.T @ y) for x, y in parts])

    @classmethod
    def add(cls, parts: list[_Moments]) -> _Moments:
        return cls(
            *(sum(values[1:], start=values[0]) for values in zip(*(vars(part).values() for part in parts), strict=True))
        )


@dataclass(frozen=True)
class _Directions:
    x: Tensor  # (m, n), weighted by the correlations
    y: Tensor
    x_mean: Tensor  # (m,)
    y_mean: Tensor


def _solve(sums: _Moments, ridge: float, n: int) -> _Directions:
    """The first n canonical directions, by Cholesky factors: u, v are singular vectors of Cx^-1 S_xy Cy^-T."""
    x_mean, y_mean = sums.x / sums.n, sums.y / sums.n
    x_root, y_root = (
        torch.linalg.cholesky(square / sums.n - torch.outer(mean, mean) + ridge * torch.eye(len(mean)).double())
        for square, mean in ((sums.xx, x_mean), (sums.yy, y_mean))
    )
    cross = torch.linalg.solve_triangular(x_root, sums.xy / sums.n - torch.outer(x_mean, y_mean), upper=False)
    whitened = torch.linalg.solve_triangular(y_root, cross.T, upper=False).T
    left, values, right = _decompose(whitened, n)
    x = torch.linalg.solve_triangular(x_root.T, left, upper=True) * values
    y = torch.linalg.solve_triangular(y_root.T, right, upper=True) * values
    return _Directions(x, y, x_mean, y_mean)


def _decompose(matrix: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first n singular vectors; of a large matrix by random projections, which is ten times as fast."""
    if len(matrix) <= 4 * n:
        left, values, right = map(torch.from_numpy, decompose(matrix.numpy()))
        return left[:, :n], values[:n], right[:n].T
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        left, values, right = torch.svd_lowrank(matrix, n + 32, niter=3)
    return left[:, :n], values[:n], right[:, :n]


def _score_ranks(x: Tensor, y: Tensor) -> float:
    scores = torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(y, dim=1).T
    own = scores.diag()
    ranks = [
        ((matrix > own[:, None]).sum(1) + (matrix == own[:, None]).sum(1) * 0.5 + 0.5) for matrix in (scores, scores.T)
    ]
    return float((1.0 / torch.stack(ranks)).mean())


def _square_distances(a: Tensor, b: Tensor) -> Tensor:
    return ((a**2).sum(1)[:, None] + (b**2).sum(1) - 2.0 * (a @ b.T)).clamp_min(0.0)
