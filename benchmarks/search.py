"""Search indexes: recall against exact search, time per query, build time, memory.

    python benchmarks/search.py                                   # 10^4 items of a trained tower, all kinds
    python benchmarks/search.py --n 100000 1000000 --kinds hnsw ivfpq
    python benchmarks/search.py --data tower mixture gaussian --json search.json

Data, all of 512 dimensions:

- `tower`: VM-NET is trained here on pairs of known correlation (`paired_views`); the gallery is its embeddings of
  fresh music, and a query is the embedding of the video that belongs to some item. As in use, queries are of another
  kind than what is searched.
- `mixture`: 1,000 Gaussian clusters in 36 dimensions, turned into 512 with a little noise in all; queries likewise.
- `gaussian`: independent Gaussians; no real embedding is like that, and only an exact index searches it well.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from paired_views import Design, Lift

from vmnet_pipeline.params import IndexParams, TrainParams
from vmnet_pipeline.search.vector_index import VectorIndex, import_faiss
from vmnet_pipeline.types import PairArrays

DIM, N_CLUSTERS, N_INTRINSIC = 512, 1000, 36
CHUNK = 16_384
WIDTHS = {"flat": (0,), "hnsw": (32, 64, 96, 128, 192, 256), "ivfpq": (16, 48, 128)}
SETTING = {"hnsw": "hnsw_search_width", "ivfpq": "ivf_probes"}


def normalise(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_gaussian(n: int, n_queries: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = normalise(rng.standard_normal((n + n_queries, DIM), dtype=np.float32))
    return rows[:n], rows[n:]


def make_mixture(n: int, n_queries: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((N_CLUSTERS, N_INTRINSIC))
    turn = np.linalg.qr(rng.standard_normal((DIM, N_INTRINSIC)))[0].T
    rows = np.empty((n + n_queries, DIM), np.float32)
    for start in range(0, len(rows), CHUNK):
        size = min(CHUNK, len(rows) - start)
        latent = centres[rng.integers(N_CLUSTERS, size=size)] + 0.7 * rng.standard_normal((size, N_INTRINSIC))
        noise = 0.02 * rng.standard_normal((size, DIM))
        rows[start : start + size] = normalise(latent @ turn + noise)
    return rows[:n], rows[n:]


class Tower:
    """VM-NET trained on correlated pairs, and the world that they come from."""

    def __init__(self, seed: int, n_train: int = 2048, epochs: int = 12) -> None:
        from vmnet_pipeline.models.checkpoints import Checkpoint, build_from_checkpoint
        from vmnet_pipeline.training import train_model

        self.design = Design()
        self.rng = np.random.default_rng(seed)
        self.music_lift = Lift(self.design, self.design.music_shape, self.rng)
        self.video_lift = Lift(self.design, self.design.video_shape, self.rng)
        train, val = self.draw_pairs(n_train), self.draw_pairs(256)
        params = TrainParams.model_validate({"epochs": epochs, "batch_size": 512, "patience": None, "seed": seed})
        with tempfile.TemporaryDirectory() as folder:
            result = train_model(train, val, params, state_dir=Path(folder))
        self.model = build_from_checkpoint(Checkpoint(result.model_config, result.tensors))
        self.recall = result.metrics.get("recall_at_10_yx", float("nan"))

    def draw_pairs(self, n: int) -> PairArrays:
        u = self.rng.normal(size=(n, self.design.n_latent))
        r = self.design.correlations
        v = r * u + np.sqrt(1 - r**2) * self.rng.normal(size=u.shape)
        ids = tuple(str(i) for i in range(n))
        return PairArrays(ids, ids, self.music_lift.pooled(u, self.rng), self.video_lift.pooled(v, self.rng))

    def make(self, n: int, n_queries: int) -> tuple[np.ndarray, np.ndarray]:
        from vmnet_pipeline.models.embed import embed_arrays

        pairs = self.draw_pairs(n_queries)
        gallery = np.empty((n, DIM), np.float32)
        gallery[:n_queries] = embed_arrays(self.model, music=pairs.music)[:n]
        for start in range(n_queries, n, CHUNK):
            u = self.rng.normal(size=(min(CHUNK, n - start), self.design.n_latent))
            gallery[start : start + len(u)] = embed_arrays(self.model, music=self.music_lift.pooled(u, self.rng))
        return gallery, embed_arrays(self.model, video=pairs.video)


def measure_dimension(rows: np.ndarray) -> float:
    """Effective dimension: (sum of variances)^2 / sum of squared variances of the principal directions."""
    variances = np.linalg.eigvalsh(np.cov(rows[:20_000], rowvar=False))
    return float(variances.sum() ** 2 / (variances**2).sum())


def read_memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def search_exactly(gallery: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """(q, k) positions of the best, by plain products in float32; equal scores in order of position."""
    best_scores = np.full((len(queries), 0), 0, np.float32)
    best = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(gallery), CHUNK):
        scores = queries @ gallery[start : start + CHUNK].T
        best_scores = np.hstack([best_scores, scores])
        best = np.hstack([best, np.broadcast_to(np.arange(start, start + scores.shape[1]), scores.shape)])
        order = np.argsort(-best_scores, axis=1, kind="stable")[:, :k]
        best_scores, best = (np.take_along_axis(part, order, axis=1) for part in (best_scores, best))
    return best


def measure_search(index: VectorIndex, queries: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Recall@10 of all queries, and the time of each one on its own."""
    k = exact.shape[1]
    found = [[hit.position for hit in hits] for hits in index.search(queries, k)]
    recall = float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(found, exact, strict=True)]))
    times_s = []
    for query in queries:
        started = time.perf_counter()
        index.search(query, k)
        times_s.append(time.perf_counter() - started)
    p50, p99 = np.percentile(times_s, [50, 99])
    return {"recall_at_10": round(recall, 4), "p50_ms": round(1e3 * p50, 3), "p99_ms": round(1e3 * p99, 3)}


def measure_kind(kind: str, gallery: np.ndarray, queries: np.ndarray, exact: np.ndarray) -> list[dict[str, Any]]:
    items = pd.DataFrame({"id": [f"{i:07d}" for i in range(len(gallery))]}, dtype="str")
    before_mb, started = read_memory_mb(), time.perf_counter()
    index = VectorIndex.build(gallery, items, IndexParams.model_validate({"kind": kind}))
    build_s, memory_mb = time.perf_counter() - started, read_memory_mb() - before_mb
    rows = []
    for width in WIDTHS[index.kind]:
        if width:
            index.params = index.params.model_copy(update={SETTING[index.kind]: width})
        rows.append(
            {
                "n": len(gallery), "kind": index.kind, "width": width, **measure_search(index, queries, exact),
                "build_s": round(build_s, 1), "memory_mb": round(memory_mb),
            }
        )  # fmt: skip
    return rows


def print_row(row: dict[str, Any]) -> None:
    print(
        f"{row['data']:<9}{row['n']:>9,}  {row['kind']:<6}{row['width'] or '':>5}  {row['recall_at_10']:>9.3f}"
        f"{row['p50_ms']:>9.2f}{row['p99_ms']:>9.2f}{row['build_s']:>9.1f}{row['memory_mb']:>8,}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[10_000])
    parser.add_argument("--kinds", nargs="+", default=["flat", "hnsw", "ivfpq"], choices=list(WIDTHS))
    parser.add_argument("--data", nargs="+", default=["tower"], choices=["tower", "mixture", "gaussian"])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=None, help="Of faiss; all cores by default.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None, help="File for the rows.")
    options = parser.parse_args()
    if options.threads:
        import_faiss().omp_set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    tower = Tower(options.seed) if "tower" in options.data else None
    for data in options.data:
        for n in options.n:
            if data == "tower" and tower is not None:
                gallery, queries = tower.make(n, options.queries)
            else:
                make = make_mixture if data == "mixture" else make_gaussian
                gallery, queries = make(n, options.queries, options.seed)
            exact = search_exactly(gallery, queries, 10)
            print(f"\n{data}: effective dimension {measure_dimension(gallery):.1f} of {DIM}")
            print("data             n  kind  width  recall@10   p50 ms   p99 ms  build s      MB")
            for kind in options.kinds:
                for row in measure_kind(kind, gallery, queries, exact):
                    rows.append({"data": data, **row})
                    print_row(rows[-1])
            del gallery
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
