"""Weights of the parts of a joint vector: how much each backend of a side counts.

Every entry is standardised on the training pairs. A part's total variance then is the number of its entries, so that
2,048 of a network would drown 30 descriptors. Equal weights give every part the same total variance. On the validation
pairs each part is then tried with more and with less, by a model with a closed form (ridge CCA, see `models.cca`); a
change is kept only where the reciprocal ranks improve by more than their standard error. The weight becomes part of the
deviation that `Standardise` divides by, so a network, its export and its index know nothing of parts.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.evaluation.ranks import rank_on_device
from vmnet_pipeline.models.cca_tower import fit_towers
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.training.data import encode_matches, halve_groups, measure_scale
from vmnet_pipeline.types import SIDES, Sequences

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from vmnet_pipeline.params import TrainParams
    from vmnet_pipeline.types import FeatureArray, FeaturePart, PairArrays, Side

Array: TypeAlias = npt.NDArray[Any]
Factors: TypeAlias = dict[tuple["Side", str], float]
"""Side and backend to what its deviation is multiplied by, beside that of equal total variance."""

FACTORS = (0.25, 0.5, 2.0, 4.0)
MIN_VALIDATION = 16  # with fewer pairs a difference of ranks is noise
MAX_ROWS = 5_000  # training pairs that the choice looks at
MAX_VALIDATION = 1_000  # validation pairs
MAX_COMPONENTS = 128  # principal components of a part that the choice looks at
EMBEDDING_DIM = 36

logger = logging.getLogger(__name__)


def weigh_parts(train: PairArrays, val: PairArrays | None, params: TrainParams) -> PairArrays:
    """The training pairs with a weight for every part; as they are where there are none, or they have weights already.

    Args:
        train: Training pairs.
        val: Validation pairs; with too few of them all parts have the same total variance.
        params: Settings; without `standardise` features go in as they are, and there are no weights.

    Raises:
        ParameterError: `part_weights` names a backend that no side with several has.
    """
    backends = {part.backend for side in SIDES for part in train.parts.get(side, ())}
    given = {} if isinstance(params.part_weights, str) else dict(params.part_weights)
    if unknown := given.keys() - backends:
        known = f"those are {', '.join(sorted(backends))}" if backends else "these pairs have none"
        raise ParameterError(
            f"train.part_weights names {', '.join(sorted(unknown))}, no backend of a side with several; {known}"
        )
    if not params.standardise or all(part.weight is not None for parts in train.parts.values() for part in parts):
        return train
    factors: Factors = {
        (side, part.backend): given.get(part.backend, 1.0) for side, parts in train.parts.items() for part in parts
    }
    if params.part_weights == "validation":
        factors = _choose_factors(train, val, params, factors)
    weighed = {side: _set_weights(side, train, factors) for side in train.parts}
    for side, parts in weighed.items():
        told = ", ".join(f"{part.backend} {factors[side, part.backend]:g}" for part in parts)
        logger.info("%s: weights of the backends, 1 for equal variance: %s", side, told)
    return replace(train, parts=weighed)


def has_few_pairs(train: PairArrays, val: PairArrays | None, params: TrainParams) -> bool:
    """Whether there are so few pairs that several members are fitted on all, as validation pairs would be noise."""
    return bool(params.members) and len(train) + (0 if val is None else len(val)) < params.few_pairs


def spread_weights(parts: Sequence[FeaturePart]) -> Array:
    """(D,) float32, the weight of every entry; 1 where none was chosen."""
    weights = [1.0 if part.weight is None else part.weight for part in parts]
    return np.repeat(np.array(weights, np.float32), [part.width for part in parts])


def _set_weights(side: Side, train: PairArrays, factors: Factors) -> tuple[FeaturePart, ...]:
    """Weights by which the total variance stays that of standardised entries."""
    parts = train.parts[side]
    varying = [_count_varying(values) for values in _cut(getattr(train, side)[:MAX_ROWS], parts)]
    own = [factors[side, part.backend] for part in parts]
    scale = math.sqrt(sum(varying) / (sum(factor**2 for factor in own) or 1.0))
    return tuple(
        replace(part, weight=scale * factor / math.sqrt(max(1, n)))
        for part, factor, n in zip(parts, own, varying, strict=True)
    )


def _count_varying(values: Array) -> int:
    return int((np.ptp(values, axis=0) > 0).sum()) if len(values) else values.shape[1]


def _cut(array: Array, parts: Sequence[FeaturePart]) -> Iterator[Array]:
    """The columns of every part."""
    stops = np.cumsum([part.width for part in parts])
    return (np.asarray(array[:, stop - part.width : stop]) for stop, part in zip(stops, parts, strict=True))


# --- the choice


def _choose_factors(train: PairArrays, val: PairArrays | None, params: TrainParams, equal: Factors) -> Factors:
    """Change one factor at a time; only ratios count, so the first part of a side keeps its own."""
    is_noise = val is None or len(val) < MIN_VALIDATION or len(train) < MIN_VALIDATION
    if val is None or is_noise or has_few_pairs(train, val, params):
        logger.info("too few pairs to choose weights of the backends: all have the same total variance")
        return equal
    trial = _Trial(train, val, params)
    best, reached = equal, trial.measure(equal)
    for side, parts in train.parts.items():
        for part in parts[1:]:
            for factor in FACTORS:
                factors = {**best, (side, part.backend): factor}
                found = trial.measure(factors)
                if is_better(found, reached):
                    best, reached = factors, found
    return best


def rank_reciprocally(music: Tensor, video: Tensor, codes: Tensor) -> Array:
    """(n,) reciprocal rank of every pair, mean of both directions; arguments as in `rank_on_device`."""
    there, back = rank_on_device(music, video, codes)
    return cast("Array", (1.0 / there + 1.0 / back) / 2.0)


def is_better(found: Array, reached: Array) -> bool:
    """Whether (n,) values are larger on average by more than the standard error of the difference."""
    gain = found - reached
    return bool(gain.mean() > gain.std(ddof=1) / math.sqrt(len(gain)))


class _Trial:
    """Ridge CCA of some pairs under any weights, measured on validation pairs."""

    def __init__(self, train: PairArrays, val: PairArrays, params: TrainParams) -> None:
        rng = np.random.default_rng((params.seed, 1))
        rows, val_rows = (_draw(rng, len(pairs), most) for pairs, most in ((train, MAX_ROWS), (val, MAX_VALIDATION)))
        self._halves = halve_groups(train, params.seed)[rows]
        self._codes = torch.from_numpy(encode_matches(val, params.positives_by)[val_rows])
        self._parts: dict[Side, Mapping[str, tuple[Array, Array]]] = {}
        for side in SIDES:
            fitted = take_vectors(getattr(train, side), rows)
            measured = take_vectors(getattr(val, side), val_rows)
            self._parts[side] = {
                name: _reduce(own, other)
                for name, own, other in zip(*_list_views(train, side, fitted, measured), strict=True)
            }

    def measure(self, factors: Factors) -> Array:
        """(n,) reciprocal rank of every validation pair, mean of both directions."""
        music, video = ([self._join(side, place, factors) for place in (0, 1)] for side in SIDES)
        with torch.random.fork_rng(), torch.no_grad():
            model = build_model(
                "canonical", "canonical", music[0].shape[1:], video[0].shape[1:], embedding_dim=EMBEDDING_DIM
            ).eval()
            fit_towers(model, music[0], video[0], halves=self._halves)
            sides = model.embed_music(torch.from_numpy(music[1])), model.embed_video(torch.from_numpy(video[1]))
        return rank_reciprocally(*sides, self._codes)

    def _join(self, side: Side, place: int, factors: Factors) -> Array:
        parts = [factors.get((side, name), 1.0) * views[place] for name, views in self._parts[side].items()]
        return np.concatenate(parts, axis=1).astype(np.float32)


def _list_views(
    train: PairArrays, side: Side, fitted: Array, measured: Array
) -> tuple[list[str], list[Array], list[Array]]:
    """Names and columns of the parts of a side, of training and of validation pairs; one part without a list."""
    parts = train.parts.get(side)
    if parts is None:
        return [""], [fitted], [measured]
    return [part.backend for part in parts], [*_cut(fitted, parts)], [*_cut(measured, parts)]


def take_vectors(array: FeatureArray, rows: Array) -> Array:
    """(B, D) of some items; features over time are averaged."""
    if isinstance(array, Sequences):
        values, mask = array.take(rows)
        return cast("Array", values.sum(axis=1) / mask.sum(axis=1)[:, None])
    taken = np.asarray(array[rows])
    return taken.mean(axis=1) if taken.ndim == 3 else taken


def _reduce(fitted: Array, measured: Array) -> tuple[Array, Array]:
    """Standardised principal components, of total variance 1 in the first."""
    mean, std = measure_scale(fitted)
    fitted, measured = (fitted - mean) / std, (measured - mean) / std
    axes = _find_axes(torch.from_numpy(fitted)).numpy()
    total = math.sqrt(float(np.square(fitted, dtype=np.float64).sum()) / len(fitted)) or 1.0
    return fitted @ axes / total, measured @ axes / total


def _find_axes(values: Tensor) -> Tensor:
    """(D, k) principal axes of (n, D) centred values, from the smaller of both products of the matrix with itself."""
    n, dim = values.shape
    if dim <= n:
        return _last_axes(values.T @ values)
    return functional.normalize(values.T @ _last_axes(values @ values.T), dim=0)


def _last_axes(product: Tensor) -> Tensor:
    vectors: Tensor = torch.linalg.eigh(product).eigenvectors
    return vectors[:, -MAX_COMPONENTS:]


def _draw(rng: np.random.Generator, n: int, most: int) -> Array:
    """(min(n, most),) rows in file order."""
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))
