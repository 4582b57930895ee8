"""Results of an evaluation: metrics with intervals and chance levels, and how they were measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# our name of a direction -> its name in the original code
DIRECTIONS = {"music_to_video": "recall_xy", "video_to_music": "recall_yx"}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured metric with its interval and its value under random order.

    Attributes:
        value: As measured.
        low: Lower end of the bootstrap interval; None with fewer than two independent units.
        high: Upper end; None together with `low`.
        chance: Expected value under random order; None where it is not defined.
    """

    value: float
    low: float | None
    high: float | None
    chance: float | None


@dataclass(frozen=True, slots=True)
class PoolMetrics:
    """Metrics expected in a random part of the gallery that holds the relevant item.

    Attributes:
        recall: K (as text, for JSON) to recall, the mean over all pools of that size.
        median_rank: Smallest K with a recall of at least one half; without interval.
    """

    recall: dict[str, Estimate]
    median_rank: Estimate


@dataclass(frozen=True, slots=True)
class DirectionMetrics:
    """Metrics of one direction.

    Attributes:
        reference_name: What the original code calls this recall.
        recall: K (as text, for JSON) to recall, in [0, 1]. For K >= pool size it is 1 by definition.
        median_rank: >= 1.
        mrr: Mean reciprocal rank, in (0, 1].
        mean_average_precision: In (0, 1]; the same as `mrr` when every query has one positive.
        ndcg: Normalised discounted cumulative gain at 10, in [0, 1]; every relevant item counts 1.
        hubness: `k`, how often the most frequent answer is among the first k (`max`), the `skewness` of these counts,
            and the share of items that are there for no query (`unreached`).
        pools: Pool size (as text) to the metrics expected in random pools of that size.
    """

    reference_name: str
    recall: dict[str, Estimate]
    median_rank: Estimate
    mrr: Estimate
    mean_average_precision: Estimate
    ndcg: Estimate
    hubness: dict[str, float]
    pools: dict[str, PoolMetrics]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Both directions, how they were measured, and the rank of every query.

    Attributes:
        n_items: Pairs that were evaluated.
        n_dropped: Pairs left out because they did not fill a pool.
        n_groups: Independent groups among the evaluated pairs; None without groups.
        pool_size: Gallery size that every rank refers to.
        n_pools: Number of pools; 1 for the whole gallery.
        similarity: `cosine`, `csls` or `centred`.
        csls_neighbours: Neighbours of the correction; None without it.
        protocol: `whole gallery` or `pools in file order`.
        ties: `mid-rank` or `lower index`.
        positives: What makes an item relevant: `id` or `group`.
        max_positives: Most relevant items of a query in its pool.
        shuffled: True when pairs were mismatched on purpose (control: everything should be at chance).
        resampled_by: Unit of the bootstrap: `group` or `query`.
        n_resamples: Bootstrap draws.
        confidence_level: Of the intervals, in (0, 1).
        seed: Of the bootstrap and of the mismatching.
        warnings: What a reader must know about these metrics.
        directions: Metrics by direction, keys of `DIRECTIONS`.
        query_rows: One row for each query and direction: id, group, direction, pool, rank, n_positives, top_ids.
    """

    n_items: int
    n_dropped: int
    n_groups: int | None
    pool_size: int
    n_pools: int
    similarity: str
    csls_neighbours: int | None
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
    directions: dict[str, DirectionMetrics]
    query_rows: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form of everything but the rows of the queries."""
        names = [name for name in self.__slots__ if name not in ("directions", "query_rows", "warnings")]
        content: dict[str, Any] = {name: getattr(self, name) for name in names}
        content["warnings"] = list(self.warnings)
        content["directions"] = {name: asdict(metrics) for name, metrics in self.directions.items()}
        return content
