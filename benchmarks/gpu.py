"""Extraction and training on a CUDA device: do they agree with the processor, and how fast are they?

    python benchmarks/gpu.py                        # both; some two minutes
    python benchmarks/gpu.py extract --networks musicnn
    python benchmarks/gpu.py train --steps 64

`extract`: the same files through torch on the processor in f32, the reference, and on the device in every precision.
`cosine` is the lowest one between an item's pooled vectors there and here; `network` the rate of the bare network in
inputs/s with the inputs on the processor as extraction has them; `end to end` that of whole files as `kedro run`
extracts them: decoding and front end in as many child processes as there are cores, network, storing. Networks that no
package carries weights for get random ones.

`train`: wall time of a step with everything that belongs to it, on memory-mapped features, the first epoch left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]
WEIGHTS = ROOT / "data" / "06_models" / "weights"
NETWORKS: dict[str, dict[str, Any]] = {
    "vggish": {"backend": "vggish", "weights": "random"},
    "musicnn": {"backend": "musicnn", "max_duration_s": 60.0},
    "efficientnet-lite0": {"backend": "efficientnet", "model": "lite0"},
}
REPEATS = 8  # how often each file is extracted in the run that is timed


def make_media(folder: Path, n_files: int) -> dict[str, list[str]]:
    """Sound of 60 s and films of 640x360 and 20 s, synthesised."""
    from vmnet_pipeline.demo import make_clip

    sounds = [folder / f"{index}.wav" for index in range(n_files)]
    films = [folder / f"{index}.mp4" for index in range(n_files)]
    with ProcessPoolExecutor() as pool:
        size = {"width": 640, "height": 360, "frame_rate_hz": 25, "duration_s": 20.0}
        made = [pool.submit(make_clip, path, seed=index, **size) for index, path in enumerate(films)]
        made += [pool.submit(make_clip, path, seed=index, duration_s=60.1) for index, path in enumerate(sounds)]
        for clip in made:
            clip.result()
    return {"audio": [str(path) for path in sounds], "video": [str(path) for path in films]}


def load_backend(params: dict[str, Any], **settings: Any) -> Any:
    from vmnet_pipeline.backends.registry import get_backend

    own = {**params, **settings}
    backend = get_backend(own.pop("backend"), own, weights_dir=WEIGHTS)
    backend.load()
    return backend


def measure_extraction(names: list[str], n_files: int, batch_sizes: list[int]) -> None:
    from vmnet_pipeline.backends import engine

    print("| network | precision | batch | lowest cosine to f32 on the processor ", end="")
    print("| network, inputs/s | end to end, items/s |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        media = make_media(Path(folder), n_files)
        for name in names:
            has_cuda, engine.has_cuda = engine.has_cuda, lambda *_: False  # type: ignore[assignment]
            reference = load_backend(NETWORKS[name], engine="torch", precision="f32")
            engine.has_cuda = has_cuda
            paths = media[reference.modality]
            inputs = [reference.prepare(path).inputs for path in paths]
            expected = [reference.pool(reference.infer(item)) for item in inputs]
            for precision in ("f32", "bf16"):
                for batch_size in batch_sizes:
                    backend = load_backend(NETWORKS[name], engine="torch", precision=precision, batch_size=batch_size)
                    assert backend.fingerprint().settings["device"] == "cuda"
                    pooled = [backend.pool(backend.infer(item)) for item in inputs]
                    cosine = min(map(lowest_cosine, expected, pooled))
                    rate = time_network(backend, np.concatenate(inputs * 4))
                    items_s = time_files(backend, paths, Path(folder) / f"{name}-{precision}-{batch_size}")
                    print(
                        f"| {name} | {precision} | {batch_size} | {cosine:.6f} | {rate:.0f} | {items_s:.1f} |",
                        flush=True,
                    )


def lowest_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of VGGish every patch has one."""
    a, b = (np.asarray(x, np.float64).reshape(-1, x.shape[-1]) for x in (a, b))
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def time_network(backend: Any, inputs: np.ndarray) -> float:
    backend.infer(inputs)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        backend.infer(inputs)
        seconds.append(time.perf_counter() - started)
    return len(inputs) / float(np.median(seconds))


def time_files(backend: Any, paths: list[str], folder: Path) -> float:
    from vmnet_pipeline.extraction.batching import extract_items
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.media.sandbox import Sandbox
    from vmnet_pipeline.params import LimitParams
    from vmnet_pipeline.types import MediaItem

    sandbox = Sandbox(LimitParams())
    items = [MediaItem(f"{Path(path).stem}-{k}", path, f"{path} {k}") for k in range(REPEATS) for path in paths]
    store = FeatureStore(folder)
    store.set_fingerprint(backend.fingerprint())
    for _ in extract_items(backend, items[: 2 * (os.cpu_count() or 1)], sandbox=sandbox):  # starts the children
        pass
    started = time.perf_counter()
    for _ in store.add_all(extract_items(backend, items, batch_size=512, sandbox=sandbox)):
        pass
    seconds = time.perf_counter() - started
    if len(store.done_ids()) != len(items):
        raise SystemExit(f"items failed: {[row.error for row in store.rows.values()][:3]}")
    return len(items) / seconds


def measure_training(n_pairs: int, n_steps: int) -> None:
    import train as training_benchmark

    print("| variant | protocol | device, precision | ms per step | waiting for data | peak MiB on the device |")
    print("|---|---|---|---|---|---|")
    for variant, (music_shape, video_shape) in training_benchmark.SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            write = partial(training_benchmark.write_features)
            music = write(Path(folder) / "music.npy", (n_pairs, *music_shape))
            video = write(Path(folder) / "video.npy", (n_pairs, *video_shape))
            for protocol in ("default", "best"):
                for device, precision, compiled in (
                    ("cpu", "f32", False),
                    ("cuda", "f32", False),
                    ("cuda", "bf16", False),
                    ("cuda", "bf16", True),
                ):
                    if protocol == "best" and (variant, device) != ("musicnn", "cuda"):
                        continue
                    label = f"{device} {precision}{', compiled' if compiled else ''}"
                    settings = {"device": device, "precision": precision, "compile": compiled, "protocol": protocol}
                    ms, waiting, peak = time_steps(music, video, settings, n_steps)
                    print(f"| {variant} | {protocol} | {label} | {ms:.1f} | {waiting:.0%} | {peak:.0f} |", flush=True)


def time_steps(
    music: np.ndarray, video: np.ndarray, settings: dict[str, Any], n_steps: int
) -> tuple[float, float, float]:
    """Milliseconds a step, share of waiting, device memory; `n_steps` steps after as many that warm up."""
    import torch
    import train as training_benchmark

    from vmnet_pipeline.params import TrainParams
    from vmnet_pipeline.training import batches, train_model
    from vmnet_pipeline.training.trainer import Trainer
    from vmnet_pipeline.types import PairArrays

    n_steps = n_steps if settings["device"] == "cuda" else 4
    ids = tuple(map(str, range(len(music))))
    params = TrainParams.model_validate({**settings, "batch_size": 1024, "epochs": 2, "warmup_epochs": 0})
    kept = batches.order_epoch, batches.gather_rows, Trainer.train_step, batches.TrainBatches.__len__
    clock = training_benchmark.StepClock()
    batches.order_epoch = lambda *args, **kwargs: list(kept[0](*args, **kwargs))[:n_steps]
    batches.TrainBatches.__len__ = lambda self: min(n_steps, len(self.pairs) // self.batch_size)
    torch.cuda.reset_peak_memory_stats()
    try:
        with tempfile.TemporaryDirectory() as folder:
            pairs = PairArrays(ids, ids, music, video)
            result = train_model(pairs, None, params, state_dir=Path(folder), progress=False)
    finally:
        batches.order_epoch, batches.gather_rows, Trainer.train_step, batches.TrainBatches.__len__ = kept
    begins, ends = clock.begins[n_steps:], clock.ends[n_steps:]
    waits = sum(begin - end for begin, end in zip(begins[1:], ends, strict=False))
    seconds = result.history[1].seconds  # the losses are fetched within it, so the device has finished
    return 1e3 * seconds / n_steps, waits / seconds, torch.cuda.max_memory_allocated() / 2**20


def describe_machine() -> str:
    import torch

    device = torch.cuda.get_device_name()
    return f"{device}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["extract", "train"], help="both by default")
    parser.add_argument("--networks", nargs="+", choices=sorted(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--files", type=int, default=12)
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[32, 256])
    parser.add_argument("--pairs", type=int, default=70_000)
    parser.add_argument("--steps", type=int, default=64)
    options = parser.parse_args()
    print(describe_machine())
    if options.what != "train":
        measure_extraction(options.networks, options.files, options.batch_sizes)
    if options.what != "extract":
        measure_training(options.pairs, options.steps)


if __name__ == "__main__":
    main()
