"""What a score means: probability, percentile and a threshold, from pairs that the network was not fitted on.

A cosine of 0.33 is much for one network and little for another. Held-out pairs tell: with n of them there are n scores
of true pairs, and n (n - 1) of others.

Probability: logistic regression of true pairs against others gives the logarithm of the likelihood ratio of a score:
linear in the score (J. Platt, Probabilistic outputs for support vector machines, 1999) and in the logarithm of the
share of candidates above it, as a few pairs that agree far better than all others make heavy tails. Where one of N
items is the right one, the odds before looking are 1 to N - 1, so that the same curve serves libraries of any size.

Threshold: a held-out query whose own pair is in a library of N has some best score. If the best score of a new query is
below the k-th smallest of these n best scores, k = floor((1 - coverage) (n + 1)), nothing fits. Of queries whose own
pair is in the library, at most 1 - coverage are told so: by exchangeability (split conformal prediction, V. Vovk and
others, Algorithmic Learning in a Random World, 2005). How often it is said where nothing fits depends on the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from vmnet_pipeline.evaluation.domain import KnownItems
from vmnet_pipeline.evaluation.results import DIRECTIONS
from vmnet_pipeline.types import Side

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vmnet_pipeline.types import Array

MIN_PAIRS = 20
"""Fewer held-out pairs give no probabilities: 20 are the fewest whose smallest best score has a coverage of 95 %."""
COVERAGE = 0.95
LEVEL = 0.95
MAX_PAIRS = 2000
"""More held-out pairs of a fold are sampled: their scores would be millions."""
MAX_NEGATIVES = 200_000
LEVELS = (*(k / 100 for k in range(100)), 0.995, 0.999, 0.9995, 0.9999, 1.0)
"""Shares of the candidates' scores below each of `ScoreCurve.quantiles`."""
POOL_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
N_RESAMPLES = 2000

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Threshold(_Stored):
    """Best score that 1 - `COVERAGE` of the queries with their own pair among `pool_size` candidates do not reach."""

    pool_size: int = Field(ge=1)
    score: Finite


class ScoreCurve(_Stored):
    """What a cosine means.

    Attributes:
        slope: Of the logarithm of the likelihood ratio over the score, >= 0.
        tail: The same over -log(share of candidates above the score), >= 0.
        intercept: Of the same.
        quantiles: Scores of candidates that do not belong to the query, at `LEVELS`.
        thresholds: Direction to thresholds by size of the library, smallest first.
    """

    slope: Finite = Field(ge=0)
    tail: Finite = Field(ge=0)
    intercept: Finite
    quantiles: list[Finite] = Field(min_length=len(LEVELS), max_length=len(LEVELS))
    thresholds: dict[str, list[Threshold]] = Field(max_length=len(DIRECTIONS))

    def find_probability(self, scores: Array | Sequence[float] | float, pool_size: int) -> Array:
        """Probability that a pair of this score is a true one, if one of `pool_size` candidates belongs to the query.

        Args:
            scores: Cosines, any shape.
            pool_size: Candidates, >= 1; with one alone it is as likely to belong to the query as not.
        """
        log_ratio = self.find_log_ratio(scores)
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * (log_ratio - math.log(max(pool_size - 1, 1))))))

    def find_log_ratio(self, scores: Array | Sequence[float] | float) -> Array:
        """Logarithm of the likelihood ratio of a true pair to another one, for cosines of any shape."""
        scores = np.asarray(scores, np.float64)
        return np.asarray(self.slope * scores + self.tail * _measure_tail(scores, self.quantiles) + self.intercept)

    def find_percentile(self, scores: Array | Sequence[float] | float) -> Array:
        """Percentage of the candidates that do not belong to a query whose score is lower, 0-100."""
        return np.asarray(100.0 * _find_level(scores, self.quantiles))

    def find_threshold(self, direction: str, pool_size: int) -> float | None:
        """Best score below which nothing fits; that of the next smaller library that is known, which is lower."""
        known = [item.score for item in self.thresholds.get(direction, []) if item.pool_size <= pool_size]
        return known[-1] if known else None


class Calibration(_Stored):
    """What held-out pairs say about a network.

    Attributes:
        n_pairs: How many there are.
        mrr: Mean reciprocal rank over both directions; `mrr_low` and `mrr_high` its 95 % bootstrap interval over
            groups, None with fewer than two; `mrr_chance` its value under random order.
        curve: What a score means; None with fewer than `MIN_PAIRS`.
        known: Side to a sample of its training items, to tell whether a query is of their kind; empty if not known.
    """

    n_pairs: int = Field(ge=2)
    mrr: Finite
    mrr_low: Finite | None
    mrr_high: Finite | None
    mrr_chance: Finite
    curve: ScoreCurve | None = None
    known: dict[Side, KnownItems] = Field(default_factory=dict)

    def warn_of_chance(self) -> str:
        """Sentence for a network that is not better than chance; empty for a better one."""
        if self.mrr_low is not None and self.mrr_low > self.mrr_chance:
            return ""
        interval = "" if self.mrr_low is None else f", 95 % interval {self.mrr_low:.3f} to {self.mrr_high:.3f}"
        return (
            f"this model is not better than chance on its validation pairs (MRR {self.mrr:.3f}{interval}; chance "
            f"{self.mrr_chance:.3f}; {self.n_pairs} pairs)"
        )


@dataclass(frozen=True, slots=True)
class Fold:
    """Held-out pairs embedded by a network that was not fitted on them.

    Attributes:
        music: (n, E) float32 unit rows.
        video: (n, E) float32 unit rows; row i belongs to row i of `music`.
        codes: (n,) int64, equal for rows that match.
        groups: (n,) labels of what is independent.
    """

    music: Array
    video: Array
    codes: Array
    groups: Sequence[object] | Array

    def sample(self, n: int, rng: np.random.Generator) -> Fold:
        """At most `n` of the pairs."""
        if len(self.codes) <= n:
            return self
        rows = np.sort(rng.permutation(len(self.codes))[:n])
        return Fold(self.music[rows], self.video[rows], self.codes[rows], np.asarray(self.groups)[rows])

    def score(self) -> tuple[Array, Array]:
        """(n, n) scores of every music with every video, and which of them are of true pairs."""
        scores = np.asarray(self.music, np.float32) @ np.asarray(self.video, np.float32).T
        return scores, self.codes[:, None] == self.codes[None, :]


def calibrate(folds: Sequence[Fold], seed: int = 0) -> Calibration | None:
    """Calibrate the scores of a network on held-out pairs.

    Args:
        folds: One for validation pairs, several for cross-validation; folds of one pair say nothing.
        seed: Of samples and pools.

    Returns:
        None without two pairs to tell apart. The same folds and seed give the same.
    """
    rng = np.random.default_rng(seed)
    folds = [fold.sample(MAX_PAIRS, rng) for fold in folds if len(np.unique(fold.codes)) >= 2]
    if not folds:
        return None
    n_pairs = sum(len(fold.codes) for fold in folds)
    return Calibration(n_pairs=n_pairs, **_measure_mrr(folds), curve=_fit_curve(folds, rng))


def _measure_mrr(folds: Sequence[Fold]) -> dict[str, Any]:
    # Imported here: searches read calibrations, and these need torch.
    from vmnet_pipeline.evaluation.bootstrap import bootstrap_intervals
    from vmnet_pipeline.evaluation.chance import expect_chance
    from vmnet_pipeline.evaluation.ranks import rank_both

    ranks, chances, units = [], [], []
    for number, fold in enumerate(folds):
        for ranked in rank_both(fold.music, fold.video, fold.codes, fold.codes):
            ranks.append(ranked.ranks)
            chances += [expect_chance(len(fold.codes), ranked.n_positives, [1]).mrr] * len(fold.codes)
            units += [f"{number} {group}" for group in fold.groups]
    joint = np.concatenate(ranks)
    low, high = bootstrap_intervals(joint, [1], N_RESAMPLES, LEVEL, groups=units).mrr or (None, None)
    return {
        "mrr": float((1.0 / joint).mean()),
        "mrr_low": low,
        "mrr_high": high,
        "mrr_chance": float(np.mean(chances)),
    }


def _fit_curve(folds: Sequence[Fold], rng: np.random.Generator) -> ScoreCurve | None:
    if sum(len(fold.codes) for fold in folds) < MIN_PAIRS:
        return None
    parts = [fold.score() for fold in folds]
    positives = np.concatenate([scores[is_pair] for scores, is_pair in parts]).astype(np.float64)
    negatives = np.concatenate([scores[~is_pair] for scores, is_pair in parts]).astype(np.float64)
    quantiles = np.quantile(negatives, LEVELS).tolist()
    slope, tail, intercept = _fit_log_ratio(positives, negatives, quantiles, rng)
    return ScoreCurve(
        slope=slope,
        tail=tail,
        intercept=intercept,
        quantiles=quantiles,
        thresholds={
            direction: _find_thresholds([(s, p) if forward else (s.T, p.T) for s, p in parts], rng)
            for direction, forward in zip(DIRECTIONS, (True, False), strict=True)
        },
    )


def _fit_log_ratio(
    positives: Array, negatives: Array, quantiles: Sequence[float], rng: np.random.Generator
) -> tuple[float, float, float]:
    """Slope, tail and intercept of the logarithm of the likelihood ratio, which never falls with the score."""
    from sklearn.linear_model import LogisticRegression

    n_negatives = len(negatives)
    negatives = rng.choice(negatives, MAX_NEGATIVES, replace=False) if n_negatives > MAX_NEGATIVES else negatives
    scores = np.concatenate([positives, negatives])
    mean, std = negatives.mean(), max(negatives.std(), 1e-9)
    inputs = np.column_stack([(scores - mean) / std, _measure_tail(scores, quantiles)])
    is_pair = np.arange(len(scores)) < len(positives)
    weights = np.where(is_pair, 1.0, n_negatives / len(negatives))
    rising = np.ones(2, dtype=bool)
    while rising.any():
        model = LogisticRegression().fit(inputs * rising, is_pair, weights)
        slope, tail = model.coef_[0].tolist()
        if min(slope, tail) >= 0:
            prior = math.log(len(positives) / n_negatives)
            return slope / std, tail, float(model.intercept_[0]) - slope * mean / std - prior
        rising &= model.coef_[0] > 0
    return 0.0, 0.0, 0.0


def _find_level(scores: Array | Sequence[float] | float, quantiles: Sequence[float]) -> Array:
    """Share of the candidates with lower scores, 0-1."""
    return np.asarray(np.interp(scores, np.maximum.accumulate(quantiles), LEVELS))


def _measure_tail(scores: Array, quantiles: Sequence[float]) -> Array:
    """-log(share of the candidates with higher scores), from 0; beyond the last quantiles but one it stays as it is."""
    return np.asarray(-np.log1p(-np.minimum(_find_level(scores, quantiles), LEVELS[-2])))


def _find_thresholds(parts: Sequence[tuple[Array, Array]], rng: np.random.Generator) -> list[Threshold]:
    """Thresholds of one direction; (queries, candidates) scores and pairs of each fold."""
    smallest = min(int((~is_pair).sum(axis=1).min()) for _, is_pair in parts) + 1
    sizes = sorted({size for size in POOL_SIZES if size < smallest} | {smallest})
    best = np.concatenate([_draw_best(scores, is_pair, sizes, rng) for scores, is_pair in parts])
    place = math.floor((1.0 - COVERAGE) * (len(best) + 1) + 1e-9)
    found = np.sort(best, axis=0)[place - 1]
    return [Threshold(pool_size=size, score=score) for size, score in zip(sizes, found.tolist(), strict=True)]


def _draw_best(scores: Array, is_pair: Array, sizes: Sequence[int], rng: np.random.Generator) -> Array:
    """(queries, sizes) best scores in random pools of each size that hold the own pair; larger ones hold smaller."""
    keys = np.where(is_pair, 2.0, rng.random(scores.shape))
    drawn = np.take_along_axis(scores, np.argsort(keys, axis=1)[:, : sizes[-1] - 1], axis=1)
    own = np.diagonal(scores)[:, None]
    running = np.maximum.accumulate(np.concatenate([own, drawn], axis=1), axis=1)
    return running[:, np.asarray(sizes) - 1]


# --- reliability


def add_calibration(
    results: dict[str, Any], calibration: Calibration, music: Array, video: Array, relevant: Sequence[str]
) -> dict[str, Any]:
    """Add to the results of an evaluation what the validation pairs say, and `measure_reliability` on the test pairs.

    Args:
        results: `Evaluation.to_dict()`.
        calibration: That of the network.
        music: (n, E) float32 unit rows of the test pairs.
        video: (n, E) float32 unit rows.
        relevant: (n,) labels, equal for items that are relevant to each other.
    """
    warning = calibration.warn_of_chance()
    results = {**results, "warnings": [*results["warnings"], *([f"{warning}."] if warning else [])]}
    if calibration.curve is None:
        return results
    keys = np.unique(np.asarray(relevant), return_inverse=True)[1].reshape(-1)
    reliability = measure_reliability(calibration.curve, music, video, keys)
    return results | {"reliability": {"n_held_out": calibration.n_pairs, **reliability}}


def measure_reliability(
    curve: ScoreCurve, music: Array, video: Array, keys: Array, *, top_k: int = 10, n_bins: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Compare the probabilities of the first answers of each query, both directions, with how many are right.

    Args:
        curve: From other pairs.
        music: (n, E) float32 unit rows.
        video: (n, E) float32 unit rows; row i belongs to row i of `music`.
        keys: (n,) labels, equal for rows that belong together.
        top_k: Answers of each query.
        n_bins: Bins of equal numbers of answers.
        seed: Of the simulation of `ece_of_perfect`.

    Returns:
        `bins`, each with `n`, mean `predicted`, `observed` share and its 95 % interval (`low`, `high`, Wilson);
        `expected_calibration_error`, the mean distance between the two; `ece_of_perfect`, what chance alone makes of
        perfect probabilities; `pool_size`, `top_k`, `n_answers`.
    """
    answers = [_list_answers(*sides, keys, min(top_k, len(keys))) for sides in ((music, video), (video, music))]
    scores, is_right = (np.concatenate(parts) for parts in zip(*answers, strict=True))
    predicted = curve.find_probability(scores, len(keys))
    order = np.argsort(predicted, kind="stable")
    bins = np.array_split(order, min(n_bins, len(order)))
    drawn = np.random.default_rng(seed).random((200, len(predicted))) < predicted
    return {
        "pool_size": len(keys),
        "top_k": min(top_k, len(keys)),
        "n_answers": len(predicted),
        "expected_calibration_error": _measure_error(predicted, is_right, bins),
        "ece_of_perfect": float(np.mean([_measure_error(predicted, row, bins) for row in drawn])),
        "bins": [_describe_bin(predicted[rows], is_right[rows]) for rows in bins],
    }


def _list_answers(queries: Array, gallery: Array, keys: Array, top_k: int) -> tuple[Array, Array]:
    """Scores of the best answers of at most `MAX_PAIRS` queries, and which of them are right; (m,) each."""
    scores, is_right = [], []
    for rows in _cut_evenly(len(queries)):
        block = np.asarray(queries[rows], np.float32) @ np.asarray(gallery, np.float32).T
        top = np.argpartition(-block, top_k - 1, axis=1)[:, :top_k]
        scores.append(np.take_along_axis(block, top, axis=1).ravel())
        is_right.append((keys[top] == keys[rows][:, None]).ravel())
    return np.concatenate(scores), np.concatenate(is_right)


def _cut_evenly(n: int) -> Iterator[Array]:
    rows = np.unique(np.linspace(0, n - 1, min(n, MAX_PAIRS)).round().astype(np.int64))
    yield from np.array_split(rows, -(-len(rows) // 256))


def _measure_error(predicted: Array, is_right: Array, bins: Sequence[Array]) -> float:
    distances = [abs(predicted[rows].mean() - is_right[rows].mean()) * len(rows) for rows in bins]
    return float(np.sum(distances) / len(predicted))


def _describe_bin(predicted: Array, is_right: Array) -> dict[str, float]:
    from scipy.stats import binomtest

    interval = binomtest(int(is_right.sum()), len(is_right)).proportion_ci(LEVEL, "wilson")
    return {
        "n": len(is_right),
        "predicted": float(predicted.mean()),
        "observed": float(is_right.mean()),
        "low": float(interval.low),
        "high": float(interval.high),
    }
