"""Measure the gain of re-ranking by agreement over time: choose the weight on validation pairs, measure on test."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.evaluation.bootstrap import bootstrap_means, find_intervals
from vmnet_pipeline.evaluation.metrics import mean_reciprocal_rank
from vmnet_pipeline.evaluation.ranks import rank_both
from vmnet_pipeline.evaluation.results import DIRECTIONS
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.search.dtw import align_sequences, mix_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmnet_pipeline.features.joint import JointStore
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.inference.pieces import PieceEmbedder
    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.params import EvaluateParams
    from vmnet_pipeline.types import Array, PairArrays

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
GAIN_KS = (1, 5, 10)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PieceSource:
    """Features of one side over time, and the embedder of their pieces."""

    store: FeatureStore | JointStore
    pieces: PieceEmbedder

    def embed(self, ids: Sequence[str]) -> list[Array]:
        """(n, E) pieces of every item."""
        return [self.pieces.embed(self.store.load(item_id)) for item_id in ids]


@dataclass(frozen=True, slots=True)
class _Task:
    """One direction of one set of pairs; query i belongs to gallery item i.

    Attributes:
        ranks: (n,) mid-ranks without re-ranking.
        own: (n,) place of the relevant item among the candidates, -1 where it is none of them.
        scores: (n, k) cosines of the candidates.
        agreements: (n, k) agreement over time.
    """

    ranks: Array
    own: Array
    scores: Array
    agreements: Array

    def rerank(self, weight: float) -> Array:
        """(n,) mid-ranks with a weight; those of items that are not candidates stay."""
        mixed = mix_scores(self.scores, self.agreements, weight)
        score = np.take_along_axis(mixed, np.maximum(self.own, 0)[:, None], axis=1)
        ranks = 1.0 + (mixed > score).sum(axis=1) + ((mixed == score).sum(axis=1) - 1) / 2.0
        return np.asarray(np.where(self.own >= 0, ranks, self.ranks))


def measure_reranking(
    model: VMNet, val: PairArrays, test: PairArrays, music: PieceSource, video: PieceSource, params: EvaluateParams
) -> dict[str, Any]:
    """Choose the weight with the highest mean reciprocal rank on `val`, the smaller of equals; compare on `test`.

    Only the item itself is relevant, and ties take the mean of their places. Differences have paired
    bootstrap intervals over groups.

    Raises:
        ParameterError: There are no validation pairs.
        FeatureStoreError: The feature of an item is not available.
    """
    if not len(val):
        raise ParameterError("re-ranking chooses its weight on validation pairs, and there are none; see `split`")
    rerank = params.rerank
    tasks = _compare_side(model, val, music, video, rerank.n_candidates)
    by_weight = {
        weight: float(np.mean([mean_reciprocal_rank(task.rerank(weight)) for task in tasks])) for weight in WEIGHTS
    }
    weight = max(WEIGHTS, key=lambda one: (by_weight[one], -one))
    tasks = _compare_side(model, test, music, video, rerank.n_candidates)
    return {
        "n_candidates": rerank.n_candidates,
        "piece_s": rerank.piece_s,
        "weight": weight,
        "validation_mrr": {str(one): value for one, value in by_weight.items()},
        "n_items": len(test),
        "directions": {
            name: _measure_gain(name, task, weight, test.groups, params)
            for name, task in zip(DIRECTIONS, tasks, strict=True)
        },
    }


def _compare_side(
    model: VMNet, pairs: PairArrays, music: PieceSource, video: PieceSource, n_candidates: int
) -> tuple[_Task, _Task]:
    whole = embed_arrays(model, music=pairs.music), embed_arrays(model, video=pairs.video)
    pieces = music.embed(pairs.ids), video.embed(pairs.ids)
    there, back = (result.ranks for result in rank_both(*whole))
    return (
        _compare(whole[0], whole[1], pieces[0], pieces[1], there, n_candidates),
        _compare(whole[1], whole[0], pieces[1], pieces[0], back, n_candidates),
    )


def _compare(
    queries: Array, gallery: Array, parts: list[Array], gallery_parts: list[Array], ranks: Array, n_candidates: int
) -> _Task:
    n, k = len(queries), min(n_candidates, len(gallery))
    task = _Task(ranks, np.full(n, -1), np.empty((n, k)), np.empty((n, k)))
    for i in range(n):
        row = gallery @ queries[i]
        best = np.argsort(-row, kind="stable")[:k]
        task.own[i] = np.flatnonzero(best == i)[0] if i in best else -1
        task.scores[i] = row[best]
        task.agreements[i] = align_sequences(parts[i], [gallery_parts[j] for j in best])
    return task


def _measure_gain(
    direction: str, task: _Task, weight: float, groups: Sequence[str], params: EvaluateParams
) -> dict[str, Any]:
    """Measure every metric without and with re-ranking, and the difference with its interval."""
    names = ["mrr", *(f"recall_at_{k}" for k in GAIN_KS)]
    before, after = (  # (metrics, queries)
        np.stack([1.0 / ranks, *(ranks <= k for k in GAIN_KS)]) for ranks in (task.ranks, task.rerank(weight))
    )
    units = groups if params.resample_by == "group" else np.arange(len(task.ranks))
    draws = bootstrap_means([before[None], after[None]], units, params.n_resamples, params.seed)
    gains = draws[:, 1] - draws[:, 0]
    intervals = find_intervals(gains, params.confidence_level) if len(draws) else [(None, None)] * len(names)
    metrics = {
        name: {"without": float(old), "with": float(new), "difference": float(new - old), "low": low, "high": high}
        for name, old, new, (low, high) in zip(names, before.mean(axis=1), after.mean(axis=1), intervals, strict=True)
    }
    mrr = metrics["mrr"]
    span = "" if mrr["low"] is None else f" [{mrr['low']:+.4f}, {mrr['high']:+.4f}]"
    change = f"MRR {mrr['without']:.4f} -> {mrr['with']:.4f}, difference {mrr['difference']:+.4f}{span}"
    logger.info("re-ranking, %s: weight %g, %s", direction, weight, change)
    return metrics
