"""Time to embed one pooled pair with an `Embedder`, both variants at the sizes of the original code.

python benchmarks/embed.py [--calls 1000]
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from vmnet_pipeline import Embedder
from vmnet_pipeline.models.checkpoints import Checkpoint
from vmnet_pipeline.models.factory import build_model

MUSIC_SHAPES = {"musicnn": [500], "vggish": [62, 512]}


def make_embedder(tower: str) -> Embedder:
    config = {
        "music_tower": tower, "video_tower": tower, "music_shape": MUSIC_SHAPES[tower], "video_shape": [2048],
        "embedding_dim": 512, "dropout": 0.1, "standardise": False,
    }  # fmt: skip
    return Embedder(Checkpoint(config, dict(build_model(**config).state_dict())))


def measure(embedder: Embedder, n_calls: int) -> np.ndarray:
    """(n_calls,) seconds."""
    rng = np.random.default_rng(0)
    pair = [rng.random((1, *shape), dtype=np.float32) for shape in (embedder.music_shape, embedder.video_shape)]
    times_s = np.empty(n_calls)
    for call in range(n_calls):
        started = time.perf_counter()
        embedder(pair, pooled=True)
        times_s[call] = time.perf_counter() - started
    return times_s[n_calls // 10 :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args()
    for tower in MUSIC_SHAPES:
        embedder, cpu = make_embedder(tower), time.process_time()
        least, p50, p99 = 1e3 * np.percentile(measure(embedder, options.calls), [0, 50, 99])
        cpu = 1e3 * (time.process_time() - cpu) / options.calls
        print(f"vmnet_{tower:<8} least {least:.2f} ms   p50 {p50:.2f} ms   p99 {p99:.2f} ms   processor {cpu:.2f} ms")


if __name__ == "__main__":
    main()
