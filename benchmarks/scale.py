"""How extraction scales: items per second, share of the processors used, and memory, by executor and workers.

    python benchmarks/scale.py                                         # all: some ten minutes on two cores
    python benchmarks/scale.py --kinds processes --workers 1 2 --items 200 2000

Clips are WAV files of a few seconds made here, the same few again and again under other names; the backend is musicnn
with random weights, so nothing is fetched. Every run is a process of its own with its workers below it. Rate and
processor share are those between the first finished item and the last, so without starting up, which is a column of
its own. Memory is the proportional set size of the whole tree of processes, sampled; at its peak. `1 core` is a run
that may use one core only: what one worker is worth by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
N_CLIPS = 8
CLOCK_HZ = os.sysconf("SC_CLK_TCK")
SAMPLE_S = 0.2


# --- one run, in a process of its own


def run(task: dict[str, Any]) -> None:
    """Extract `task["items"]` items and print when each was finished."""
    if task["cores"] is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: task["cores"]])
    from vmnet_pipeline.backends.registry import get_backend
    from vmnet_pipeline.extraction.driver import extract_missing
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.params import ExtractParams
    from vmnet_pipeline.types import MediaItem

    clips = sorted(Path(task["media"]).glob("*.wav"))
    items = [MediaItem(f"{k:06d}", str(clips[k % len(clips)]), f"made here: {k}") for k in range(task["items"])]
    backend = get_backend("musicnn", {"weights": "random"}, weights_dir=task["weights"])
    store, params = FeatureStore(task["store"]), ExtractParams.model_validate(task["params"])
    for row in extract_missing(backend, items, store, params):
        if row.status != "done":
            raise SystemExit(f"{row.id}: {row.error}")
        print(time.monotonic(), flush=True)


class Sampler(threading.Thread):
    """Processor seconds and memory of a tree of processes while it lives."""

    def __init__(self, pids: list[int]) -> None:
        super().__init__(daemon=True)
        self.roots, self.ended = pids, threading.Event()
        self.cpu_s: dict[int, float] = {}
        self.samples: list[tuple[float, float, int]] = []

    def run(self) -> None:
        while not self.ended.wait(SAMPLE_S):
            tree = list_tree(self.roots)
            memory = sum(read_pss_bytes(pid) for pid in tree)
            self.cpu_s.update({pid: seconds for pid in tree if (seconds := read_cpu_s(pid)) is not None})
            self.samples.append((time.monotonic(), sum(self.cpu_s.values()), memory))

    def share_between(self, start: float, end: float) -> float:
        inside = [sample for sample in self.samples if start <= sample[0] <= end]
        if len(inside) < 2:
            return float("nan")
        (first, used_first, _), (last, used_last, _) = inside[0], inside[-1]
        return (used_last - used_first) / (last - first)

    def peak_mb(self) -> float:
        return max((memory for _, _, memory in self.samples), default=0) / 1e6


def list_tree(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        found.append(pid)
        try:
            tasks = [(path / "children").read_text().split() for path in Path(f"/proc/{pid}/task").iterdir()]
        except OSError:
            continue
        found += list_tree([int(child) for children in tasks for child in children])
    return found


def read_cpu_s(pid: int) -> float | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / CLOCK_HZ


def read_pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


# --- runs


def measure(task: dict[str, Any], others: list[int]) -> dict[str, float]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryDirectory() as store, tempfile.TemporaryFile("w+") as errors:
        command = [sys.executable, __file__, "--run", json.dumps({**task, "store": store})]
        pipe = subprocess.PIPE
        cpu_before = sum(read_cpu_s(pid) or 0.0 for pid in list_tree(others))
        started = time.monotonic()
        process = subprocess.Popen(command, env=environment, stdout=pipe, stderr=errors, text=True)
        sampler = Sampler([process.pid, *others])
        sampler.start()
        finished = [float(line) for line in process.stdout or ()]
        if process.wait():
            errors.seek(0)
            raise SystemExit(f"{task} failed:\n{errors.read()[-3000:]}")
        seconds = time.monotonic() - started
        sampler.ended.set()
        sampler.join()
    cores = task["cores"] or len(os.sched_getaffinity(0))
    return {
        "rate": (len(finished) - 1) / (finished[-1] - finished[0]),
        "start_s": finished[0] - started,
        "seconds": seconds,
        "busy": sampler.share_between(finished[0], finished[-1]) / cores,
        "cpu_s": sum(sampler.cpu_s.values()) - cpu_before,
        "peak_mb": sampler.peak_mb(),
    }


@contextmanager
def run_cluster(folder: Path, n_workers: int) -> Iterator[tuple[str, list[int]]]:
    """A Dask scheduler with workers of one thread each, on loopback."""
    from distributed import Client

    place = folder / "scheduler.json"
    place.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    common = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(place)]
    commands = [["dask_scheduler", "--port", "0", *common]]
    commands += [
        ["dask_worker", "--nthreads", "1", "--no-nanny", "--local-directory", str(folder), *common]
    ] * n_workers
    processes = []
    try:
        for module, *options in commands:
            command = [sys.executable, "-m", f"distributed.cli.{module}", *options]
            quiet = subprocess.DEVNULL
            processes.append(subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet))
        while not place.exists():
            time.sleep(0.05)
        with Client(scheduler_file=str(place), set_as_default=False) as client:
            client.wait_for_workers(n_workers, timeout=120)
            address = client.scheduler.address
        yield address, [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure_kind(kind: str, n_workers: int, task: dict[str, Any], folder: Path) -> dict[str, float]:
    if kind != "dask":
        return measure({**task, "params": {"executor": {"kind": kind}, "n_workers": n_workers}}, [])
    with run_cluster(folder, n_workers) as (address, pids):
        return measure({**task, "params": {"executor": {"kind": kind, "address": address}}}, pids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=["serial", "processes", "dask"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--items", nargs="+", type=int, default=[200, 2000])
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a clip")
    parser.add_argument("--rounds", type=int, default=1, help="the fastest of so many counts")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT / "src"))
    if args.run:
        run(json.loads(args.run))
        return
    from vmnet_pipeline.demo import make_clip

    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}; clips of {args.seconds:g} s")
    print("| executor | workers | items | items/s | processor busy | CPU s/item | start s | peak PSS MB |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for k in range(N_CLIPS):
            make_clip(folder / "media" / f"{k}.wav", seed=k, duration_s=args.seconds, with_video=False)
        common = {"media": str(folder / "media"), "weights": str(folder / "weights")}
        measure_kind("serial", 1, {**common, "items": 2, "cores": None}, folder)  # converts the network once
        cases = [("serial", 1, 1)] if "serial" in args.kinds else []
        cases += [(kind, n_workers, None) for kind in args.kinds for n_workers in args.workers]
        for kind, n_workers, cores in cases:
            for n_items in args.items:
                task = {**common, "items": n_items, "cores": cores}
                results = [measure_kind(kind, n_workers, task, folder) for _ in range(args.rounds)]
                best = max(results, key=lambda result: result["rate"])
                label = f"{kind}, 1 core" if cores else kind
                figures = f"{best['rate']:.1f} | {best['busy']:.0%} | {best['cpu_s'] / n_items:.4f}"
                print(
                    f"| {label} | {n_workers} | {n_items} | {figures} | {best['start_s']:.1f} | {best['peak_mb']:.0f} |"
                )


if __name__ == "__main__":
    main()
