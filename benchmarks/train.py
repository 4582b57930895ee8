"""Speed and memory of training on synthetic pairs, beside a bare torch step of the same size.

    python benchmarks/train.py                                  # both variants, 10,000 and 100,000 pairs
    python benchmarks/train.py --pairs 1000000 --variants musicnn --folder DIR     # 10 GB on disk
    python benchmarks/train.py --pairs 10000 --protocols default reference best --precisions f32 bf16

Every size runs in a process of its own, so that peak memory is its own too. The features lie in memory-mapped files
as packed pairs do. Steps are timed in processor time, the thread that reads ahead included, so that other load on the
machine counts little; `waiting` is the share of wall time in which a step had no data yet. `anonymous` is the highest
memory while training without the pages of mapped files, which the system can drop.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SHAPES = {"musicnn": ((500,), (2048,)), "vggish": ((62, 512), (2048,))}
CHUNK = 4096


def write_features(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Noise; a block of it repeats, which changes neither speed nor memory."""
    block = np.random.default_rng(0).standard_normal((min(CHUNK, shape[0]), *shape[1:]), dtype=np.float32)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, shape[0], CHUNK):
        array[start : start + CHUNK] = block[: shape[0] - start]
    array.flush()
    del array
    return np.load(path, mmap_mode="r")


def anonymous_mib() -> float:
    """Memory of this process that is not pages of mapped files; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(float(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


class StepClock:
    """Wraps the functions that read a batch and that do a step, and notes when."""

    def __init__(self) -> None:
        from vmnet_pipeline.training import batches, trainer

        self.read_s, self.begins, self.ends, self.cpu, self.anonymous = 0.0, [], [], [], 0.0
        self._gather, self._step = batches.gather_rows, trainer.Trainer.train_step
        batches.gather_rows = self.gather
        trainer.Trainer.train_step = lambda *args: self.run(*args)

    def gather(self, *args: Any) -> Any:
        start = time.thread_time()
        try:
            return self._gather(*args)
        finally:
            self.read_s += time.thread_time() - start

    def run(self, *args: Any) -> Any:
        self.begins.append(time.perf_counter())
        try:
            return self._step(*args)
        finally:
            self.ends.append(time.perf_counter())
            self.cpu.append(time.process_time())
            self.anonymous = max(self.anonymous, anonymous_mib())

    def figures(self) -> dict[str, float]:
        """Without the first step, in which memory is taken for the first time."""
        waits = sum(begin - end for begin, end in zip(self.begins[1:], self.ends, strict=False))
        per_step = (self.cpu[-1] - self.cpu[0]) / (len(self.cpu) - 1)
        return {
            "cpu_s": per_step,
            "wall_s": (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1),
            "reading": self.read_s / len(self.cpu) / per_step,
            "waiting": waits / (self.ends[-1] - self.ends[0]),
            "anonymous_mib": self.anonymous,
        }


def time_bare_step(params: Any, pairs: Any, n_steps: int) -> float:
    """Processor seconds of a bare step: forward, loss, backward, optimiser, on one batch that is already in memory."""
    import torch

    from vmnet_pipeline.models.embed import gather_rows
    from vmnet_pipeline.models.factory import build_model
    from vmnet_pipeline.models.losses import build_loss
    from vmnet_pipeline.training.optim import build_optimiser
    from vmnet_pipeline.training.setup import model_config_of
    from vmnet_pipeline.training.validation import make_loss_inputs

    model = build_model(**model_config_of(params, pairs)).train()
    loss = build_loss(**params.loss.model_dump(), embedding_dim=params.model.embedding_dim)
    optimiser = build_optimiser(model, loss, learning_rate=params.learning_rate, epsilon=params.adam_epsilon)
    rows = np.arange(params.batch_size)
    music, video, codes = gather_rows(pairs.music, rows), gather_rows(pairs.video, rows), torch.from_numpy(rows)
    for step in range(n_steps + 1):
        if step == 1:
            start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=params.precision == "bf16"):
            output = model(music, video)
        total = loss(make_loss_inputs(output, codes))["total"]
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()
    return (time.process_time() - start) / n_steps


def measure(case: Case, n_threads: int, n_steps: int, folder: Path) -> dict[str, Any]:
    import torch

    from vmnet_pipeline.params import TrainParams
    from vmnet_pipeline.training import batches, train_model
    from vmnet_pipeline.types import PairArrays

    torch.set_num_threads(n_threads)
    music_shape, video_shape = SHAPES[case.variant]
    ids = tuple(map(str, range(case.n_pairs)))
    music = write_features(folder / "music.npy", (case.n_pairs, *music_shape))
    video = write_features(folder / "video.npy", (case.n_pairs, *video_shape))
    pairs = PairArrays(ids, ids, music, video)
    fixed = {"batch_size": 1024, "epochs": 1, "device": "cpu", "n_threads": n_threads, "warmup_epochs": 0}
    params = TrainParams(protocol=case.protocol, precision=case.precision, **fixed)  # type: ignore[arg-type]
    clock = StepClock()
    order = batches.order_epoch
    batches.order_epoch = lambda *args, **kwargs: list(order(*args, **kwargs))[: n_steps + 1]
    batches.TrainBatches.__len__ = lambda self: min(n_steps + 1, len(self.pairs) // self.batch_size)
    start = time.perf_counter()
    train_model(pairs, None, params, state_dir=folder / "state", progress=False)
    figures = clock.figures()
    return {
        **figures,
        "setup_s": clock.begins[0] - start,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "ratio_to_bare": time_bare_step(params, pairs, n_steps) / figures["cpu_s"],
        "samples_per_s": params.batch_size / figures["wall_s"],
    }


class Case(NamedTuple):
    variant: str
    protocol: str
    precision: str
    n_pairs: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--variants", nargs="+", choices=sorted(SHAPES), default=sorted(SHAPES))
    parser.add_argument("--protocols", nargs="+", choices=["default", "reference", "best"], default=["default"])
    parser.add_argument("--precisions", nargs="+", choices=["f32", "bf16"], default=["f32"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8, help="steps that are timed")
    parser.add_argument("--folder", type=Path, help="where the features are written; a temporary folder by default")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    choices = (options.variants, options.protocols, options.precisions, options.pairs)
    cases = [Case(*values) for values in itertools.product(*choices)]
    if options.one:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            print(json.dumps(measure(cases[0], options.threads, options.steps, Path(folder))))
        return
    print(
        "| variant | protocol | precision | pairs | CPU s/step | samples/s | reading | waiting | of a bare step ",
        end="",
    )
    print("| set-up s | peak MiB | anonymous MiB |\n|" + "---|" * 12)
    for case in cases:
        found = run_alone(case, options)
        print(
            f"| {case.variant} | {case.protocol} | {case.precision} | {case.n_pairs:,} | {found['cpu_s']:.3f} "
            f"| {found['samples_per_s']:.0f} | {found['reading']:.1%} | {found['waiting']:.1%} "
            f"| {found['ratio_to_bare']:.0%} | {found['setup_s']:.0f} | {found['peak_mib']:.0f} "
            f"| {found['anonymous_mib']:.0f} |",
            flush=True,
        )


def run_alone(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one case from a process of its own."""
    arguments = ["--one", "--variants", case.variant, "--protocols", case.protocol, "--precisions", case.precision]
    arguments += ["--pairs", str(case.n_pairs), "--threads", str(options.threads), "--steps", str(options.steps)]
    arguments += ["--folder", str(options.folder)] if options.folder else []
    command = [sys.executable, "-W", "ignore", __file__, *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


if __name__ == "__main__":
    main()
