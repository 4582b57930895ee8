"""Evaluate cross-modal retrieval in both directions, music -> video and video -> music."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.evaluation.bootstrap import Interval, bootstrap_intervals
from vmnet_pipeline.evaluation.chance import expect_chance, expect_ndcg
from vmnet_pipeline.evaluation.hubness import HUB_K, centre_both, correct_both, measure_hubness
from vmnet_pipeline.evaluation.metrics import mean_reciprocal_rank, median_rank, recall_at_k
from vmnet_pipeline.evaluation.pools import median_rank_in_pools, reach_in_pools
from vmnet_pipeline.evaluation.positives import check_embeddings
from vmnet_pipeline.evaluation.ranks import RankedQueries, rank_both
from vmnet_pipeline.evaluation.results import DIRECTIONS, DirectionMetrics, Estimate, Evaluation, PoolMetrics
from vmnet_pipeline.params import EvaluateParams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmnet_pipeline.evaluation.positives import Ties
    from vmnet_pipeline.types import Array

logger = logging.getLogger(__name__)

_UNIT_LENGTH_SLACK = 1e-2


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
    A set smaller than `pool_size` is searched whole, with a warning, rather than giving no result.

    Args:
        music_emb: (n, dim) floating, rows of unit length; row i belongs to row i of `video_emb`.
        video_emb: (n, dim) floating, rows of unit length.
        ids: (n,) item ids; items of equal id are positives of each other.
        groups: (n,) group (song) of each item. Used as the unit of the bootstrap, and for positives by group.
        params: Settings; None takes the defaults.

    Raises:
        PairsError: Sides that do not fit together, too few items, NaN or infinity, rows not of unit length.

    Example:
        >>> music = np.eye(4)
        >>> video = music[[0, 1, 3, 2]]  # the last two are mixed up
        >>> evaluation = evaluate_retrieval(music, video, ["a", "b", "c", "d"])
        >>> evaluation.directions["music_to_video"].recall["1"].value
        0.5
        >>> evaluation.query_rows[0]["top_ids"][0]
        'a'
    """
    params = params or EvaluateParams()
    problem, warnings = _pose_problem(music_emb, video_emb, ids, groups, params)
    ranked = _rank_pools(problem, params)
    kept = problem.pools[-1].stop
    units = groups if params.resample_by == "group" else None
    return Evaluation(
        n_items=kept,
        n_dropped=len(ids) - kept,
        n_groups=None if groups is None else len(set(groups[:kept])),
        pool_size=problem.pools[0].stop,
        n_pools=len(problem.pools),
        similarity=params.similarity,
        csls_neighbours=params.csls_neighbours if params.similarity == "csls" else None,
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
        query_rows=[
            row
            for name, result in ranked.items()
            for row in _list_rows(name, result, ids, groups, problem.pools[0].stop, params.top_n)
        ],
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


def _pose_problem(
    music_emb: Array, video_emb: Array, ids: Sequence[str], groups: Sequence[str] | None, params: EvaluateParams
) -> tuple[_Problem, list[str]]:
    music = check_embeddings(music_emb, "Music embeddings", ids)
    video = check_embeddings(video_emb, "Video embeddings", ids)
    _check_counts(music, video, ids, groups)
    _check_unit_length(music, "Music", ids)
    _check_unit_length(video, "Video", ids)
    keys = _choose_keys(ids, groups, params)
    pools, warnings = _cut_pools(len(ids), params.pool_size)
    video_keys = keys.copy()
    if params.shuffle_pairs:
        warnings.append("Pairs were mismatched on purpose: these results are a control and should be at chance.")
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
        raise PairsError("Retrieval needs two or more test pairs: one pair always has rank 1.")


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


def _rank_pools(problem: _Problem, params: EvaluateParams) -> dict[str, RankedQueries]:
    """Rank both directions, each pool on its own."""
    pools = [_rank_pool(problem, pool, params) for pool in problem.pools]
    return {name: RankedQueries.join(parts) for name, parts in zip(DIRECTIONS, zip(*pools, strict=True), strict=True)}


def _rank_pool(problem: _Problem, pool: slice, params: EvaluateParams) -> list[RankedQueries]:
    music, video = problem.music[pool], problem.video[pool]
    if params.similarity == "csls":
        music, video = correct_both(music, video, k=params.csls_neighbours, chunk_size=params.chunk_size)
    elif params.similarity == "centred":
        music, video = centre_both(music, video)
    keys = problem.music_keys[pool], problem.video_keys[pool]
    ties: Ties = "lower_index" if params.pool_size else "mid"
    top_n = max(params.top_n, HUB_K)
    both = rank_both(music, video, *keys, ties=ties, top_n=top_n, chunk_size=params.chunk_size)
    return [replace(result, top=result.top + pool.start) for result in both]


def _summarise(
    name: str, result: RankedQueries, pool_size: int, units: Sequence[str] | None, params: EvaluateParams
) -> DirectionMetrics:
    recall = recall_at_k(result.ranks, params.ks)
    chance = expect_chance(pool_size, result.n_positives, params.ks)
    pools = _reach_pools(result, pool_size, params)
    precision, other_values = result.average_precision, np.column_stack([result.ndcg, *pools.values()])
    draws = params.n_resamples, params.confidence_level, params.seed
    spread = bootstrap_intervals(result.ranks, params.ks, *draws, units, precision, other_values)
    map_chance = chance.mrr if int(result.n_positives.max()) == 1 else None
    return DirectionMetrics(
        reference_name=DIRECTIONS[name],
        recall={
            str(k): _make_estimate(recall[k], _bound_recall(spread.recall[k], k, pool_size), chance.recall[k])
            for k in params.ks
        },
        median_rank=_make_estimate(median_rank(result.ranks), spread.median_rank, chance.median_rank),
        mrr=_make_estimate(mean_reciprocal_rank(result.ranks), spread.mrr, chance.mrr),
        mean_average_precision=_make_estimate(float(precision.mean()), spread.mean_average_precision, map_chance),
        ndcg=_make_estimate(float(result.ndcg.mean()), spread.others[0], expect_ndcg(pool_size, result.n_positives)),
        hubness=_measure_hubs(result.top, pool_size),
        pools=_summarise_pools(result, pool_size, pools, spread.others[1:], params.ks),
    )


def _measure_hubs(top: Array, pool_size: int) -> dict[str, float]:
    """Measure hubness among the first `HUB_K` hits; every item of every pool is a gallery item once."""
    counts = np.bincount(top[:, :HUB_K].reshape(-1), minlength=len(top))
    return {"k": float(min(HUB_K, pool_size)), **measure_hubness(counts)}


def _reach_pools(result: RankedQueries, n_gallery: int, params: EvaluateParams) -> dict[int, Array]:
    """Map the size of random pools to the (n, len(ks)) expected hits in them; empty under the pool protocol.

    Empty for several relevant items, too: a pool with some of them is an easier or a harder task, depending on how
    they are drawn.
    """
    if params.pool_size is not None or int(result.n_positives.max()) > 1:
        return {}
    return {
        size: reach_in_pools(result.ranks, n_gallery, size, params.ks)
        for size in sorted(set(params.pool_sizes))
        if size < n_gallery
    }


def _summarise_pools(
    result: RankedQueries, n_gallery: int, pools: dict[int, Array], spread: Sequence[Interval | None], ks: Sequence[int]
) -> dict[str, PoolMetrics]:
    """Summarise every size of random pools; `spread` has the intervals of their recalls, one after the other."""
    intervals, metrics = iter(spread), {}
    for size, reached in pools.items():
        chance = expect_chance(size, [1], ks)
        found = [_bound_recall(interval, k, size) for k, interval in zip(ks, intervals, strict=False)]
        metrics[str(size)] = PoolMetrics(
            recall={
                str(k): _make_estimate(float(share), interval, chance.recall[k])
                for k, share, interval in zip(ks, reached.mean(axis=0), found, strict=True)
            },
            median_rank=_make_estimate(median_rank_in_pools(result.ranks, n_gallery, size), None, chance.median_rank),
        )
    return metrics


def _bound_recall(interval: Interval | None, k: int, pool_size: int) -> Interval | None:
    """The interval, of no width where K reaches the pool size and recall is 1 by definition."""
    return (1.0, 1.0) if interval is not None and k >= pool_size else interval


def _make_estimate(value: float, interval: Interval | None, chance: float | None) -> Estimate:
    low, high = interval or (None, None)
    return Estimate(value=value, low=low, high=high, chance=chance)


def _list_rows(
    direction: str, result: RankedQueries, ids: Sequence[str], groups: Sequence[str] | None, pool_size: int, top_n: int
) -> list[dict[str, Any]]:
    return [
        {
            "id": str(ids[row]),
            "group": None if groups is None else str(groups[row]),
            "direction": direction,
            "pool": row // pool_size,
            "rank": float(rank),
            "n_positives": int(result.n_positives[row]),
            "top_ids": [str(ids[answer]) for answer in result.top[row, :top_n]],
        }
        for row, rank in enumerate(result.ranks)
    ]
