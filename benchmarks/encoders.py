"""How fast encoders extract, by architecture: published sizes with random weights, on files that are made here.

    python benchmarks/encoders.py                     # all presets that build their architecture; some minutes
    python benchmarks/encoders.py clip --items 8

Files last 60 s. `bare` is the network alone on inputs that are ready; `share` is its part of a whole extraction, by
wall time and by processor time: decoding, processor, network, with the confined processes of a real run. The load of
the model and the start of those processes are not timed. On a busy machine only the share of processor time says much.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from vmnet_pipeline.backends.encoders.presets import PRESETS
from vmnet_pipeline.backends.registry import get_backend
from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.extraction.batching import extract_items
from vmnet_pipeline.media.sandbox import Sandbox
from vmnet_pipeline.params import LimitParams
from vmnet_pipeline.types import MediaItem

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 60.0
HEAD = ("backend", "engine", "extraction", "bare, s per entry", "share, wall", "share, processor")


def make_files(folder: Path, n_items: int) -> list[MediaItem]:
    places = [make_clip(folder / f"{k}.mp4", seed=k, duration_s=SECONDS, width=640, height=360) for k in range(n_items)]
    return [MediaItem(place.stem, str(place), f"sha256:{place.stem}") for place in places]


def spend(call: Callable[[], object]) -> tuple[float, float]:
    """Wall time, and processor time of this process and its children, in seconds."""
    wall_s, cpu_s = time.perf_counter(), measure_cpu()
    call()
    return time.perf_counter() - wall_s, measure_cpu() - cpu_s


def measure_cpu() -> float:
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (own, *own.children(recursive=True)))


def measure(name: str, items: list[MediaItem], folder: Path, engine: str, batch_size: int) -> str:
    backend = get_backend(name, {"weights": "random", "engine": engine}, weights_dir=folder)
    backend.load()
    inputs = backend.prepare(items[0].path).inputs
    backend.infer(inputs[:2])
    bare_s, bare_cpu_s = (spent * len(items) for spent in spend(lambda: backend.infer(inputs)))
    with Sandbox(LimitParams()) as sandbox:
        warmed = [*extract_items(backend, items[:2], batch_size=batch_size, sandbox=sandbox)]
        results = []
        run = extract_items(backend, items, batch_size=batch_size, sandbox=sandbox)
        whole_s, whole_cpu_s = spend(lambda: results.extend(run))
    assert all(result.row.status == "done" for result in (*warmed, *results)), results
    n_entries, n_frames = len(inputs) * len(items), getattr(backend, "n_frames", 0)
    speed = f"{n_entries * n_frames / whole_s:.1f} frames/s" if n_frames else f"{whole_s / len(items):.2f} s per minute"
    chosen = backend.fingerprint().settings["engine"]
    return (
        f"| `{name}` | {chosen} | {speed} | {bare_s / n_entries:.4f} | "
        f"{min(bare_s / whole_s, 1.0):.0%} | {min(bare_cpu_s / whole_cpu_s, 1.0):.0%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = [name for name, preset in PRESETS.items() if preset.config]
    parser.add_argument("names", nargs="*", choices=[*known, []], help="presets; by default all")
    parser.add_argument("--items", type=int, default=4)
    parser.add_argument("--engine", default="auto", choices=["auto", "torch", "openvino"])
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    print(f"| {' | '.join(HEAD)} |\n{'|---' * len(HEAD)}|")
    with tempfile.TemporaryDirectory() as folder:
        items = make_files(Path(folder), options.items)
        for name in options.names or known:
            print(measure(name, items, Path(folder) / "weights", options.engine, options.batch_size), flush=True)


if __name__ == "__main__":
    main()
