"""Speed and memory of training on synthetic pairs, beside a bare torch step of the same size.

    python benchmarks/train.py                                  # both variants, 10,000 and 100,000 pairs
    python benchmarks/train.py --pairs 1000000 --variants musicnn
    python benchmarks/train.py --pairs 10000 --protocols default reference best --threads 2

Every size runs in a process of its own, so that peak memory is its own too. The features lie in memory-mapped files
as packed pairs do. Peak memory counts the pages of those files that happen to be in memory; `anonymous` does not.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {"musicnn": ((500,), (2048,)), "vggish": ((62, 512), (2048,))}
CHUNK = 4096


def write_features(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(0)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, shape[0], CHUNK):
        array[start : start + CHUNK] = rng.standard_normal(array[start : start + CHUNK].shape, dtype=np.float32)
    array.flush()
    del array
    return np.load(path, mmap_mode="r")


def anonymous_mib() -> float:
    """Memory of this process that is not pages of mapped files; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(float(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


class Stopwatch:
    """Wraps a function and sums up the time spent in it."""

    def __init__(self, function: Any) -> None:
        self.function, self.seconds, self.calls = function, 0.0, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return self.function(*args, **kwargs)
        finally:
            self.seconds += time.perf_counter() - start
            self.calls += 1


def time_bare_step(params: Any, pairs: Any, n_steps: int) -> float:
    """Seconds of a bare step: forward, loss, backward, optimiser, on one batch that is already in memory."""
    import torch

    from vmnet_pipeline.models.embedding import gather_rows
    from vmnet_pipeline.models.losses import build_loss
    from vmnet_pipeline.models.towers import build_model
    from vmnet_pipeline.training.loop import model_config_of
    from vmnet_pipeline.training.optimise import build_optimiser
    from vmnet_pipeline.training.validation import make_loss_inputs

    model = build_model(**model_config_of(params, pairs)).train()
    loss = build_loss(**params.loss.model_dump(), embedding_dim=params.model.embedding_dim)
    optimiser = build_optimiser(model, loss, params)
    rows = np.arange(params.batch_size)
    music, video, codes = gather_rows(pairs.music, rows), gather_rows(pairs.video, rows), torch.from_numpy(rows)
    for step in range(n_steps + 1):
        if step == 1:
            start = time.perf_counter()
        total = loss(make_loss_inputs(model(music, video), codes))["total"]
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()
    return (time.perf_counter() - start) / n_steps


def measure(variant: str, protocol: str, n_pairs: int, n_threads: int, n_steps: int, folder: Path) -> dict[str, Any]:
    import torch

    from vmnet_pipeline.params import TrainParams
    from vmnet_pipeline.records import PairArrays
    from vmnet_pipeline.training import loop

    torch.set_num_threads(n_threads)
    music_shape, video_shape = SHAPES[variant]
    ids = tuple(map(str, range(n_pairs)))
    music = write_features(folder / "music.npy", (n_pairs, *music_shape))
    video = write_features(folder / "video.npy", (n_pairs, *video_shape))
    pairs = PairArrays(ids, ids, music, video)
    fixed = {"batch_size": 1024, "epochs": 1, "device": "cpu", "n_threads": n_threads, "warmup_epochs": 0}
    params = TrainParams(protocol=protocol, **fixed)  # type: ignore[arg-type]
    gather, step = Stopwatch(loop.gather_rows), Stopwatch(loop._run_step)
    order = loop.order_epoch
    loop.gather_rows, loop._run_step = gather, step
    loop.order_epoch = lambda *args, **kwargs: list(order(*args, **kwargs))[: n_steps + 1]
    start = time.perf_counter()
    loop._run_epochs = Stopwatch(loop._run_epochs)
    loop.train_model(pairs, None, params, state_dir=folder / "state", progress=False)
    total, epochs = time.perf_counter() - start, loop._run_epochs
    bare = time_bare_step(params, pairs, max(2, n_steps // 2))
    per_step = step.seconds / step.calls
    return {
        "samples_per_s": params.batch_size / per_step,
        "loading_share": gather.seconds / step.seconds,
        "ratio_to_bare": bare / per_step,
        "setup_s": total - epochs.seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "anonymous_mib": anonymous_mib(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--variants", nargs="+", choices=sorted(SHAPES), default=sorted(SHAPES))
    parser.add_argument("--protocols", nargs="+", choices=["default", "reference", "best"], default=["default"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8, help="steps that are timed")
    parser.add_argument("--folder", type=Path, help="where the features are written; a temporary folder by default")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            case = (options.variants[0], options.protocols[0], options.pairs[0])
            print(json.dumps(measure(*case, options.threads, options.steps, Path(folder))))
        return
    print("| variant | protocol | pairs | samples/s | loading | of a bare step | set-up s | peak MiB | anonymous MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for variant in options.variants:
        for protocol in options.protocols:
            for n_pairs in options.pairs:
                arguments = ["--one", "--variants", variant, "--protocols", protocol, "--pairs", str(n_pairs)]
                arguments += ["--threads", str(options.threads), "--steps", str(options.steps)]
                arguments += ["--folder", str(options.folder)] if options.folder else []
                command = [sys.executable, "-W", "ignore", __file__, *arguments]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found = json.loads(output.splitlines()[-1])
                print(
                    f"| {variant} | {protocol} | {n_pairs:,} | {found['samples_per_s']:.0f} "
                    f"| {found['loading_share']:.1%} | {found['ratio_to_bare']:.0%} | {found['setup_s']:.0f} "
                    f"| {found['peak_mib']:.0f} | {found['anonymous_mib']:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
