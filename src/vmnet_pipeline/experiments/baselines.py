"""Baselines without a network: chance, regularised CCA, PLS, nearest neighbours after PCA.

Each is fitted on training pairs, has its settings chosen on validation pairs (R@10, then MRR), and gives unit vectors
of both sides, so that it is evaluated as trained networks are. Time, if features have it, is averaged. CCA reads all
training pairs, chunk by chunk; PLS and neighbours at most `MAX_FIT_PAIRS` of them, evenly spaced. So memory does not
grow with the collection, except for the embeddings. Features are taken as they are, except where a side joins several
backends, whose units differ: these are standardised, with equal weights.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.evaluation.ranks import rank_both
from vmnet_pipeline.models.cca import MIN_RIDGE, CanonicalAnalysis
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training.data import measure_scale
from vmnet_pipeline.training.fusion import spread_weights, weigh_parts
from vmnet_pipeline.types import Sequences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from vmnet_pipeline.types import Array, FeatureArray, PairArrays

Embedder: TypeAlias = "Callable[[PairArrays], tuple[Array, Array]]"

RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0)  # in units of the mean variance of a side
WIDTHS = (5, 8, 10, 12, 16, 32)
MAX_WIDTH = 64
NEIGHBOURS = (5, 20, 50, 100)
N_PRINCIPAL = 32
MAX_FIT_PAIRS = 20_000
CHUNK_ROWS = 1024

logger = logging.getLogger(__name__)


def fit_baseline(name: str, train: PairArrays, val: PairArrays, seed: int = 0) -> Embedder:
    """Fit a baseline, `chance`, `cca`, `pls` or `neighbours`; validation pairs choose its settings.

    Returns:
        Function from pairs to (n, E) float32 unit vectors of their music and of their video.

    Raises:
        PairsError: There are fewer than two training or validation pairs.
    """
    for subset, pairs in (("training", train), ("validation", val)):
        if len(pairs) < 2:
            raise PairsError(f"Baselines need at least 2 {subset} pairs, not {len(pairs)}; enlarge that subset.")
    if name == "chance":
        return lambda pairs: _draw_chance(len(pairs), seed)
    fit = {"cca": _fit_cca, "pls": _fit_pls, "neighbours": _fit_neighbours}[name]
    if not train.parts:
        return fit(train, val)
    scale = _scale_joint(train)
    embed = fit(scale(train), scale(val))
    return lambda pairs: embed(scale(pairs))


def _draw_chance(n: int, seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng((seed, n))
    music, video = (_normalise(rng.standard_normal((n, 16))) for _ in range(2))
    return music, video


# --- several backends on a side


def _scale_joint(train: PairArrays) -> Callable[[PairArrays], PairArrays]:
    """Standardise joint vectors on training pairs; each backend has the same total variance."""
    weighed = weigh_parts(train, None, TrainParams.model_validate({}))
    scales = {}
    for side, parts in weighed.parts.items():
        mean, std = measure_scale(getattr(train, side))
        scales[side] = mean, std / spread_weights(parts)

    def scale(pairs: PairArrays) -> PairArrays:
        scaled: dict[str, Any] = {side: _ScaledRows(getattr(pairs, side), *own) for side, own in scales.items()}
        return replace(pairs, **scaled)

    return scale


@dataclass(frozen=True)
class _ScaledRows:
    """Rows of an array, scaled when they are read."""

    array: Array
    mean: Array
    std: Array

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: Array) -> Array:
        return np.asarray((self.array[rows] - self.mean) / self.std)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape


# --- regularised CCA


def _fit_cca(train: PairArrays, val: PairArrays) -> Embedder:
    """Ridge-regularised CCA; variates weighted by their correlation or not, whichever is better on validation."""
    moments = _measure_moments(train)
    analysis = CanonicalAnalysis(moments.xx, moments.yy, moments.xy)
    units = analysis.x_values.mean(), analysis.y_values.mean()

    def list_candidates() -> Iterator[Embedder]:
        for ridge in RIDGES:
            px, py, r = analysis.solve(*(max(ridge * unit, MIN_RIDGE) for unit in units))
            for n in _cap_widths(len(r)):
                yield _Projection(moments.x, moments.y, px[:, :n], py[:, :n])
                yield _Projection(moments.x, moments.y, px[:, :n] * r[:n], py[:, :n] * r[:n])

    return _choose(list_candidates(), val)


@dataclass
class _Moments:
    """Means and covariances of both sides, float64."""

    x: Array
    y: Array
    xx: Array
    yy: Array
    xy: Array


def _measure_moments(pairs: PairArrays) -> _Moments:
    """Two passes over the pairs: means first, so that covariances do not suffer from cancellation."""
    n, (x, y) = len(pairs), (_mean(side) for side in (pairs.music, pairs.video))
    moments = _Moments(x, y, *(np.zeros((len(a), len(b))) for a, b in ((x, x), (y, y), (x, y))))
    for music, video in zip(_iterate_pooled(pairs.music), _iterate_pooled(pairs.video), strict=True):
        a, b = music - x, video - y
        moments.xx += a.T @ a / n
        moments.yy += b.T @ b / n
        moments.xy += a.T @ b / n
    return moments


def _mean(features: FeatureArray) -> Array:
    total = np.zeros(features.shape[-1])
    for chunk in _iterate_pooled(features):
        total += chunk.sum(axis=0)
    return total / len(features)


# --- PLS


def _fit_pls(train: PairArrays, val: PairArrays) -> Embedder:
    """Partial least squares by singular vectors of the cross-covariance (scikit-learn's PLSSVD)."""
    from sklearn.cross_decomposition import PLSSVD

    music, video = _gather_fit(train)
    n = min(MAX_WIDTH, music.shape[1], video.shape[1], len(music))
    fitted = PLSSVD(n_components=n).fit(music, video)
    x_scale, y_scale = (np.where(scale > 0, scale, 1.0) for scale in (fitted._x_std, fitted._y_std))
    px, py = fitted.x_weights_ / x_scale[:, None], fitted.y_weights_ / y_scale[:, None]
    whole = _Projection(music.mean(axis=0), video.mean(axis=0), px, py)
    widths = [*_cap_widths(n), n]
    return _choose((replace(whole, px=whole.px[:, :k], py=whole.py[:, :k]) for k in dict.fromkeys(widths)), val)


# --- neighbours


def _fit_neighbours(train: PairArrays, val: PairArrays) -> Embedder:
    """Represent a query on the other side by the partners of its nearest training items, after PCA."""
    from sklearn.decomposition import PCA

    sides = _gather_fit(train)
    music, video = (
        PCA(min(N_PRINCIPAL, *side.shape), svd_solver="covariance_eigh", random_state=0).fit(side) for side in sides
    )
    known = music.transform(sides[0]), video.transform(sides[1])
    counts = [n for n in NEIGHBOURS if n <= len(known[0])] or [1]
    places = [(side.mean_, side.components_.T) for side in (music, video)]
    return _choose((_Neighbours(places, known, n) for n in counts), val)


@dataclass(frozen=True)
class _Neighbours:
    """Join an item's own vector and the mean of its neighbours' partners: products are means of two cosines."""

    places: list[tuple[Array, Array]]
    known: tuple[Array, Array]
    n: int

    def __call__(self, pairs: PairArrays) -> tuple[Array, Array]:
        x, y = (
            np.concatenate([(chunk - mean) @ axes for chunk in _iterate_pooled(side)])
            for side, (mean, axes) in zip((pairs.music, pairs.video), self.places, strict=True)
        )
        x_guess, y_guess = self._guess(x, self.known[0], self.known[1]), self._guess(y, self.known[1], self.known[0])
        music = np.concatenate([_normalise(x_guess), _normalise(x)], axis=1)
        video = np.concatenate([_normalise(y), _normalise(y_guess)], axis=1)
        return _normalise(music), _normalise(video)

    def _guess(self, queries: Array, own: Array, other: Array) -> Array:
        parts = []
        own = _normalise(own)
        for start in range(0, len(queries), CHUNK_ROWS):
            scores = _normalise(queries[start : start + CHUNK_ROWS]) @ own.T
            nearest = np.argpartition(-scores, self.n - 1, axis=1)[:, : self.n]
            parts.append(other[nearest].mean(axis=1))
        return np.concatenate(parts)


# --- what they share


@dataclass(frozen=True)
class _Projection:
    """Linear maps of both sides into one space, then unit length."""

    mx: Array
    my: Array
    px: Array
    py: Array

    def __call__(self, pairs: PairArrays) -> tuple[Array, Array]:
        x = [_normalise((chunk - self.mx) @ self.px) for chunk in _iterate_pooled(pairs.music)]
        y = [_normalise((chunk - self.my) @ self.py) for chunk in _iterate_pooled(pairs.video)]
        return np.concatenate(x), np.concatenate(y)


def _choose(candidates: Iterable[Embedder], val: PairArrays) -> Embedder:
    def score(embed: Embedder) -> tuple[float, float]:
        music, video = embed(val)
        ranks = np.stack([result.ranks for result in rank_both(music, video)])
        return float((ranks <= 10).mean()), float((1.0 / ranks).mean())

    return max(candidates, key=score)


def _cap_widths(n: int) -> list[int]:
    return [width for width in WIDTHS if width <= n] or [n]


def _gather_fit(pairs: PairArrays) -> tuple[Array, Array]:
    """Pooled features of at most `MAX_FIT_PAIRS` pairs, evenly spaced."""
    n = min(len(pairs), MAX_FIT_PAIRS)
    if n < len(pairs):
        logger.info("a baseline is fitted on %d of %d training pairs, evenly spaced", n, len(pairs))
    rows = np.arange(n) * len(pairs) // n
    music, video = (np.concatenate([*_iterate_pooled(side, rows)]) for side in (pairs.music, pairs.video))
    return music, video


def _iterate_pooled(features: FeatureArray, rows: Array | None = None) -> Iterator[Array]:
    """Some rows, or all, in blocks of (n, D) float64; the mean over the steps of each item where there are steps."""
    rows = np.arange(len(features)) if rows is None else rows
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = rows[start : start + CHUNK_ROWS]
        if isinstance(features, Sequences):
            values, mask = features.take(chunk)
            yield values.sum(axis=1, dtype=np.float64) / mask.sum(axis=1, keepdims=True)
        else:
            array = np.asarray(features[chunk], dtype=np.float64)
            yield array.mean(axis=1) if array.ndim == 3 else array


def _normalise(rows: Array) -> Array:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(lengths > 0, lengths, 1.0)
    unit[lengths[:, 0] == 0, 0] = 1.0  # an item at the very mean has no direction; any unit vector is as good
    return np.asarray(unit, dtype=np.float32)
