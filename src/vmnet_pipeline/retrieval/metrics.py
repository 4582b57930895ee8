"""Evaluation of cross-modal retrieval in both directions, music -> video and video -> music.

`evaluate_retrieval` is the door; the pieces (`rank_positives`, `recall_at_k`, `bootstrap_intervals`, ...) can be
used alone and are re-exported here.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.retrieval.ranking import RankedQueries, check_side, rank_positives, rank_queries
from vmnet_pipeline.retrieval.scores import (
    Chance,
    Interval,
    Intervals,
    bootstrap_intervals,
    expect_chance,
    mean_reciprocal_rank,
    median_rank,
    recall_at_k,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmnet_pipeline.params import EvaluateParams

__all__ = [
    "DIRECTIONS",
    "Chance",
    "DirectionFigures",
    "Evaluation",
    "Figure",
    "Intervals",
    "RankedQueries",
    "bootstrap_intervals",
    "derange_pairs",
    "evaluate_retrieval",
    "expect_chance",
    "mean_reciprocal_rank",
    "median_rank",
    "rank_positives",
    "rank_queries",
    "recall_at_k",
]

Array: TypeAlias = npt.NDArray[Any]
logger = logging.getLogger(__name__)

# our name of a direction -> its name in the original code
DIRECTIONS = {"music_to_video": "recall_xy", "video_to_music": "recall_yx"}
_UNIT_LENGTH_SLACK = 1e-2


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure with its interval and what random order would give.

    Attributes:
        value: The measured figure.
        low: Lower end of the bootstrap interval; None where it cannot be told.
        high: Upper end; None together with `low`.
        chance: Expected value under random order; None where it is not defined.
    """

    value: float
    low: float | None
    high: float | None
    chance: float | None


@dataclass(frozen=True, slots=True)
class DirectionFigures:
    """The figures of one direction.

    Attributes:
        reference_name: What the original code calls this recall.
        recall: K (as text, for JSON) to recall, in [0, 1]. For K >= pool size it is 1 by definition.
        median_rank: >= 1.
        mrr: Mean reciprocal rank, in (0, 1].
        mean_average_precision: In (0, 1]; the same as `mrr` when every query has one positive.
    """

    reference_name: str
    recall: dict[str, Figure]
    median_rank: Figure
    mrr: Figure
    mean_average_precision: Figure


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Both directions, how they were measured, and the rank of every query.

    Attributes:
        n_items: Pairs that were evaluated.
        n_dropped: Pairs left out because they did not fill a pool.
        n_groups: Independent groups among the evaluated pairs; None without groups.
        pool_size: Gallery size that every rank refers to.
        n_pools: Number of pools; 1 for the whole gallery.
        protocol: `whole gallery` or `pools in file order`.
        ties: `mid-rank` or `lower index`.
        positives: What makes an answer right: `id` or `group`.
        max_positives: Most right answers that a query has in its pool.
        shuffled: True when pairs were mismatched on purpose (control: everything should be at chance).
        resampled_by: Unit of the bootstrap: `group` or `query`.
        n_resamples: Bootstrap draws.
        confidence_level: Of the intervals, in (0, 1).
        seed: Of the bootstrap and of the mismatching.
        warnings: What a reader must know about these figures.
        directions: Figures by direction, keys of `DIRECTIONS`.
        query_rows: One row for each query and direction: id, group, direction, pool, rank, n_positives, top_ids.
    """

    n_items: int
    n_dropped: int
    n_groups: int | None
    pool_size: int
    n_pools: int
    protocol: str
    ties: str
    positives: str
    max_positives: int
    shuffled: bool
    resampled_by: str
    n_resamples: int
    confidence_level: float
    seed: int
    warnings: tuple[str, ...]
    directions: dict[str, DirectionFigures]
    query_rows: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form of everything but the rows of the queries."""
        names = [name for name in self.__slots__ if name not in ("directions", "query_rows", "warnings")]
        content: dict[str, Any] = {name: getattr(self, name) for name in names}
        content["warnings"] = list(self.warnings)
        content["directions"] = {name: asdict(figures) for name, figures in self.directions.items()}
        return content

    def to_metrics(self) -> dict[str, float]:
        """Flat names to values, e.g. `music_to_video.recall_at_10`, for experiment tracking."""
        metrics: dict[str, float] = {"pool_size": float(self.pool_size)}
        for name, figures in self.directions.items():
            metrics |= {f"{name}.recall_at_{k}": figure.value for k, figure in figures.recall.items()}
            metrics[f"{name}.median_rank"] = figures.median_rank.value
            metrics[f"{name}.mrr"] = figures.mrr.value
            metrics[f"{name}.mean_average_precision"] = figures.mean_average_precision.value
        return metrics


@dataclass(frozen=True, slots=True)
class _Problem:
    """A checked retrieval problem: unit vectors, and for each side the labels whose equality makes a pair."""

    music: Array
    video: Array
    music_keys: Array
    video_keys: Array
    pools: list[slice]


def evaluate_retrieval(
    music_emb: Array,
    video_emb: Array,
    ids: Sequence[str],
    groups: Sequence[str] | None = None,
    params: EvaluateParams | None = None,
) -> Evaluation:
    """Measure retrieval in both directions over paired embeddings.

    Without `params.pool_size` every query searches the whole gallery and every item counts. With it, consecutive
    pools of that size in the order given are searched on their own, ties go to the lower index, and the last
    incomplete pool is dropped: the protocol of the original code, whose mean over its mini-batches this equals.
    A set smaller than `pool_size` is searched whole, with a warning, rather than giving no figure at all.

    Args:
        music_emb: (n, dim) floating, rows of unit length; row i belongs to row i of `video_emb`.
        video_emb: (n, dim) floating, rows of unit length.
        ids: (n,) item ids; items of equal id are positives of each other.
        groups: (n,) group (song) of each item. Used as the unit of the bootstrap, and for positives by group.
        params: Settings; None takes the defaults.

    Raises:
        PairsError: Sides that do not fit together, too few items, NaN or infinity, rows not of unit length.
    """
    params = params or _default_params()
    problem, warnings = _pose_problem(music_emb, video_emb, ids, groups, params)
    ranked = {
        "music_to_video": _rank_pools(problem, params, turned=False),
        "video_to_music": _rank_pools(problem, params, turned=True),
    }
    kept = problem.pools[-1].stop
    units = groups if params.resample_by == "group" else None
    return Evaluation(
        n_items=kept,
        n_dropped=len(ids) - kept,
        n_groups=None if groups is None else len(set(groups[:kept])),
        pool_size=problem.pools[0].stop,
        n_pools=len(problem.pools),
        protocol="pools in file order" if params.pool_size else "whole gallery",
        ties="lower index" if params.pool_size else "mid-rank",
        positives=params.positives,
        max_positives=int(max(result.n_positives.max() for result in ranked.values())),
        shuffled=params.shuffle_pairs,
        resampled_by="query" if units is None else "group",
        n_resamples=params.n_resamples,
        confidence_level=params.confidence_level,
        seed=params.seed,
        warnings=tuple(warnings),
        directions={
            name: _summarise(name, result, problem.pools[0].stop, None if units is None else units[:kept], params)
            for name, result in ranked.items()
        },
        query_rows=[row for name, result in ranked.items() for row in _list_rows(name, result, ids, groups, problem)],
    )


def derange_pairs(groups: Sequence[object] | Array, seed: int) -> Array:
    """Seeded mismatching for control runs: a permutation without fixed point, (n,) int64.

    Partners come from other groups as long as no group holds more than half of the items.

    Raises:
        PairsError: Fewer than two items.
    """
    codes = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    if len(codes) < 2:
        raise PairsError("Mismatching pairs needs two or more items.")
    rng = np.random.default_rng(seed)
    sizes = np.bincount(codes)
    # Items in random order of groups, turned by the size of the largest: no item meets its own group.
    order = np.lexsort((rng.permutation(len(codes)), rng.permutation(len(sizes))[codes]))
    step = int(sizes.max()) if 2 * sizes.max() <= len(codes) else 1
    partner = np.empty(len(codes), dtype=np.int64)
    partner[order] = np.roll(order, -step)
    return partner


def _default_params() -> EvaluateParams:
    from vmnet_pipeline.params import EvaluateParams

    return EvaluateParams()


def _pose_problem(
    music_emb: Array, video_emb: Array, ids: Sequence[str], groups: Sequence[str] | None, params: EvaluateParams
) -> tuple[_Problem, list[str]]:
    music, video = check_side(music_emb, "Music embeddings", ids), check_side(video_emb, "Video embeddings", ids)
    _check_counts(music, video, ids, groups)
    for name, side in (("Music", music), ("Video", video)):
        _check_unit_length(side, name, ids)
    keys = _choose_keys(ids, groups, params)
    pools, warnings = _cut_pools(len(ids), params.pool_size)
    video_keys = keys.copy()
    if params.shuffle_pairs:
        warnings.append("Pairs were mismatched on purpose: these figures are a control and should be at chance.")
        units = keys if groups is None else np.asarray(groups)
        for number, pool in enumerate(pools):
            video_keys[pool.start + derange_pairs(units[pool], params.seed + number)] = keys[pool]
    for warning in warnings:
        logger.warning("%s", warning)
    return _Problem(music, video, keys, video_keys, pools), warnings


def _check_counts(music: Array, video: Array, ids: Sequence[str], groups: Sequence[str] | None) -> None:
    counts = {"music": len(music), "video": len(video), "ids": len(ids)}
    if groups is not None:
        counts["groups"] = len(groups)
    if len(set(counts.values())) != 1:
        raise PairsError(f"Sides are unequal: {counts}; give one row, id and group for each pair, in one order.")
    if music.shape[1] != video.shape[1]:
        raise PairsError(f"Music has {music.shape[1]} dimensions, video {video.shape[1]}; embed both with one model.")
    if len(ids) < 2:
        raise PairsError("Retrieval among one item says nothing; give two or more test pairs.")


def _check_unit_length(side: Array, name: str, ids: Sequence[str]) -> None:
    lengths = np.sqrt(np.einsum("ij,ij->i", side, side))
    bad = np.flatnonzero(np.abs(lengths - 1.0) > _UNIT_LENGTH_SLACK)
    if bad.size:
        shown = ", ".join(f"{ids[row]} ({lengths[row]:.3g})" for row in bad[:5])
        raise PairsError(f"{name} embeddings of {bad.size} item(s) are not of unit length: {shown}; L2-normalise them.")


def _choose_keys(ids: Sequence[str], groups: Sequence[str] | None, params: EvaluateParams) -> Array:
    if params.positives == "group" and groups is None:
        raise PairsError("positives: group needs the group of every item; give groups or use positives: id.")
    labels = groups if params.positives == "group" and groups is not None else ids
    return np.unique(np.asarray([str(label) for label in labels]), return_inverse=True)[1].reshape(-1)


def _cut_pools(n: int, pool_size: int | None) -> tuple[list[slice], list[str]]:
    if pool_size is None:
        return [slice(0, n)], []
    if n < pool_size:
        return [slice(0, n)], [f"Only {n} items for pools of {pool_size}: the whole set of {n} is one pool."]
    return [slice(first, first + pool_size) for first in range(0, n - pool_size + 1, pool_size)], []


def _rank_pools(problem: _Problem, params: EvaluateParams, *, turned: bool) -> RankedQueries:
    sides = [(problem.music, problem.music_keys), (problem.video, problem.video_keys)]
    (queries, query_keys), (gallery, gallery_keys) = reversed(sides) if turned else sides
    results = [
        rank_queries(
            queries[pool],
            gallery[pool],
            query_keys[pool],
            gallery_keys[pool],
            ties="lower_index" if params.pool_size else "mid",
            top_n=params.top_n,
            chunk_size=params.chunk_size,
        )
        for pool in problem.pools
    ]
    return RankedQueries(
        ranks=np.concatenate([result.ranks for result in results]),
        average_precision=np.concatenate([result.average_precision for result in results]),
        n_positives=np.concatenate([result.n_positives for result in results]),
        top=np.concatenate([result.top + pool.start for result, pool in zip(results, problem.pools, strict=True)]),
    )


def _summarise(
    name: str, result: RankedQueries, pool_size: int, units: Sequence[str] | None, params: EvaluateParams
) -> DirectionFigures:
    recall = recall_at_k(result.ranks, params.ks)
    chance = expect_chance(pool_size, result.n_positives, params.ks)
    spread = bootstrap_intervals(
        result.ranks,
        params.ks,
        params.n_resamples,
        params.confidence_level,
        params.seed,
        units,
        result.average_precision,
    )
    one_each = int(result.n_positives.max()) == 1
    return DirectionFigures(
        reference_name=DIRECTIONS[name],
        recall={str(k): _make_figure(recall[k], spread.recall[k], chance.recall[k]) for k in params.ks},
        median_rank=_make_figure(median_rank(result.ranks), spread.median_rank, chance.median_rank),
        mrr=_make_figure(mean_reciprocal_rank(result.ranks), spread.mrr, chance.mrr),
        mean_average_precision=_make_figure(
            float(result.average_precision.mean()), spread.mean_average_precision, chance.mrr if one_each else None
        ),
    )


def _make_figure(value: float, interval: Interval | None, chance: float | None) -> Figure:
    low, high = interval or (None, None)
    return Figure(value=value, low=low, high=high, chance=chance)


def _list_rows(
    direction: str, result: RankedQueries, ids: Sequence[str], groups: Sequence[str] | None, problem: _Problem
) -> list[dict[str, Any]]:
    pool_size = problem.pools[0].stop
    return [
        {
            "id": str(ids[row]),
            "group": None if groups is None else str(groups[row]),
            "direction": direction,
            "pool": row // pool_size,
            "rank": float(rank),
            "n_positives": int(result.n_positives[row]),
            "top_ids": [str(ids[answer]) for answer in result.top[row]],
        }
        for row, rank in enumerate(result.ranks)
    ]
