"""Time and memory of evaluating a whole gallery in both directions, and agreement with a plain loop on a small one.

    python benchmarks/ranking.py                  # 200,000 x 200,000 at 512 dimensions
    python benchmarks/ranking.py --items 20000 --groups

Embeddings are generated with a shared part, so that ranks spread from the first place to chance. Every product is
float32; ties and near ties are decided in float64.
"""

from __future__ import annotations

import argparse
import resource
import time
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.evaluation import evaluate as metrics
from vmnet_pipeline.evaluation.ranks import rank_both
from vmnet_pipeline.params import EvaluateParams

if TYPE_CHECKING:
    from collections.abc import Callable

N_LATENT = 48
CHUNK = 8192


class Stopwatch:
    """Wraps a function and sums up the time spent in it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return self.function(*args, **kwargs)
        finally:
            self.seconds += time.perf_counter() - start


def generate(n: int, dim: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two (n, dim) float32 sides of unit rows whose shared part lies in `N_LATENT` directions."""
    rng = np.random.default_rng(seed)
    lift = rng.standard_normal((N_LATENT, dim), dtype=np.float32)
    sides = [np.empty((n, dim), dtype=np.float32) for _ in range(2)]
    for first in range(0, n, CHUNK):
        size = min(CHUNK, n - first)
        common = rng.standard_normal((size, N_LATENT), dtype=np.float32)
        for side in sides:
            rows = (common + noise * rng.standard_normal(common.shape, dtype=np.float32)) @ lift
            side[first : first + size] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return sides[0], sides[1]


def rank_naively(queries: np.ndarray, gallery: np.ndarray) -> list[float]:
    """Mid-ranks of row i among all rows: every score compared with that of the pair, one after the other."""
    ranks = []
    for i, query in enumerate(queries):
        scores = [float(np.multiply(query, row, dtype=np.float64).sum()) for row in gallery]
        above = sum(score > scores[i] for score in scores)
        level = sum(score == scores[i] for score in scores) - 1
        ranks.append(float(1 + above + Fraction(level, 2)))
    return ranks


def check_small(n: int, dim: int, noise: float) -> str:
    """How many ranks of both directions equal those of the loop; every fifth item is a copy of another."""
    music, video = generate(n, dim, noise, seed=1)
    music[::5], video[::5] = music[1::5], video[1::5]
    there, back = rank_both(music, video)
    agree = np.concatenate([there.ranks == rank_naively(music, video), back.ranks == rank_naively(video, music)])
    halves = int((np.concatenate([there.ranks, back.ranks]) % 1 != 0).sum())
    return f"{n:,} items: {agree.sum():,} of {agree.size:,} ranks equal those of a plain loop, {halves:,} of them tied"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--chunk-size", type=int, default=EvaluateParams().chunk_size)
    parser.add_argument("--similarity", choices=["cosine", "csls"], default="cosine")
    parser.add_argument("--groups", action="store_true", help="two items in each group, both relevant")
    parser.add_argument("--check", type=int, default=500, help="items of the comparison with a plain loop")
    options = parser.parse_args()
    print(check_small(options.check - options.check % 5, options.dim, options.noise), flush=True)
    music, video = generate(options.items, options.dim, options.noise)
    ids = [str(i) for i in range(options.items)]
    groups = [str(i // 2) for i in range(options.items)] if options.groups else None
    params = EvaluateParams(
        chunk_size=options.chunk_size,
        similarity=options.similarity,
        positives="group" if groups else "id",
    )
    clock = Stopwatch(metrics.rank_both)
    metrics.rank_both = clock
    start = time.perf_counter()
    evaluation = metrics.evaluate_retrieval(music, video, ids, groups, params)
    seconds = time.perf_counter() - start
    operations = 2.0 * options.items**2 * options.dim
    print(
        f"{options.items:,} x {options.items:,} at {options.dim} dimensions: ranks of both directions "
        f"{clock.seconds:.0f} s ({operations / clock.seconds / 1e9:.0f} GFLOP/s of scores), whole evaluation "
        f"{seconds:.0f} s"
    )
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    for name, figures in evaluation.directions.items():
        recalls = ", ".join(f"R@{k} {figure.value:.4f}" for k, figure in figures.recall.items())
        print(f"  {name}: {recalls}, median rank {figures.median_rank.value:.1f}, MRR {figures.mrr.value:.4f}")


if __name__ == "__main__":
    main()
