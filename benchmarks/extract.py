"""How fast features are extracted, beside the original implementations on the same files, and whether both agree.

    pip install --no-deps --require-hashes --target .peers -r requirements-peers.txt
    python benchmarks/extract.py                      # all; about ten minutes on two cores
    python benchmarks/extract.py vggish --rounds 5    # some of vggish, musicnn, efficientnet-b5, sizes, start

Every side runs in a process of its own, ours and the peer's by turns, so that both meet the same load; the best round
of each counts. Loading the model is outside the timed part and stated by itself. Files are made here: 60 s of
stereo WAV at 44.1 kHz, and H.264 at 25 frames/s. Networks that no package carries weights for get the
same random ones on both sides. A ratio counts only where the lowest cosine between pooled vectors is at least 0.999.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "data" / "06_models" / "weights"
DURATION_S = 60.0
AGREEMENT = 0.999
CASES: dict[str, dict[str, Any]] = {
    "vggish": {"backend": "vggish", "params": {"weights": "random"}, "suffix": "wav", "wanted": 8.0},
    "musicnn": {
        "backend": "musicnn",
        "params": {"max_duration_s": 60.0, "layer": "max_pool"},
        "suffix": "wav",
        "wanted": 10.0,
    },
    "efficientnet-b5": {
        "backend": "efficientnet",
        "params": {"weights": "random", "model": "b5"},
        "suffix": "mp4",
        "wanted": 2.0,
    },
}
VIDEO_SIZES = ((640, 360), (1280, 720), (1920, 1080))


# --- files


def make_files(folder: Path, suffix: str, n_files: int, size: tuple[int, int] = (640, 360)) -> list[Path]:
    paths = [folder / f"{size[1]}p-{index}.{suffix}" for index in range(n_files)]
    for index, path in enumerate(paths):
        make_sound(path, index) if suffix == "wav" else make_film(path, index, size)
    return paths


def make_sound(path: Path, seed: int) -> None:
    """Music at 44.1 kHz in stereo, quiet: the musicnn package overflows on loud sound (float16 times 10,000)."""
    import wave

    from vmnet_pipeline.demo import make_clip

    source = make_clip(path.with_name(f"loud-{path.name}"), seed=seed, duration_s=DURATION_S + 0.1)
    with wave.open(str(source)) as loud, wave.open(str(path), "wb") as quiet:
        quiet.setparams(loud.getparams())
        samples = np.frombuffer(loud.readframes(round(DURATION_S * loud.getframerate())), "<i2")
        quiet.writeframes((samples // 10).astype("<i2").tobytes())


def make_film(path: Path, seed: int, size: tuple[int, int]) -> None:
    from vmnet_pipeline.demo import make_clip

    width, height = size
    small = make_clip(
        path.with_suffix(".mkv"), seed=seed, duration_s=DURATION_S / 4, width=640, height=360, frame_rate_hz=25
    )
    repeat_film(small, path, width, height)


def repeat_film(source: Path, target: Path, width: int, height: int) -> None:
    """The pictures of a film four times over, with grain, at another size: about as hard to decode as a camera's."""
    import av

    rng = np.random.default_rng(0)
    with av.open(str(source)) as film:
        frames = [frame.to_ndarray(format="gray") for frame in film.decode(video=0)]
    with av.open(str(target), "w") as sink:
        stream = sink.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in [frame for _ in range(4) for frame in frames]:
            grain = rng.integers(-6, 7, picture.shape)
            frame = av.VideoFrame.from_ndarray((picture + grain).clip(0, 255).astype(np.uint8), format="gray")
            sink.mux(stream.encode(frame.reformat(width, height, "yuv420p")))
        sink.mux(stream.encode())


# --- ours


class StageClock:
    """Seconds spent in each stage when one item goes through after the other."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def time(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds[stage] += time.perf_counter() - started

        return timed

    def time_iterator(self, stage: str, call: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def timed(*args: Any, **kwargs: Any) -> Iterator[Any]:
            take = self.time(stage, call(*args, **kwargs).__next__)
            while True:
                try:
                    yield take()
                except StopIteration:
                    return

        return timed


def load_ours(case: dict[str, Any]) -> Any:
    from vmnet_pipeline.backends.registry import get_backend

    backend = get_backend(case["backend"], case["params"], weights_dir=WEIGHTS)
    backend.load()
    return backend


def run_ours(case: dict[str, Any], paths: list[str], folder: Path) -> dict[str, Any]:
    started = time.perf_counter()
    backend = load_ours(case)
    load_s = time.perf_counter() - started
    extract_all(backend, paths[:1], folder / "warm")
    started, cpu_started = time.perf_counter(), time.process_time()
    extract_all(backend, paths, folder / "run")
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    pooled = [backend.pool(np.load(folder / "run" / f"{Path(path).stem}.npy")) for path in paths]
    result = {"load_s": load_s, "seconds": seconds, "cpu_s": cpu_s, "pooled": pooled}
    return {**result, **profile(backend, paths[0], folder)}


def extract_all(backend: Any, paths: list[str], folder: Path) -> None:
    from vmnet_pipeline.extraction.batching import extract_items
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.types import MediaItem

    store = FeatureStore(folder)
    items = [MediaItem(Path(path).stem, path, f"made here: {path}") for path in paths]
    store.set_fingerprint(backend.fingerprint())
    for _ in store.add_all(extract_items(backend, items)):
        pass
    if len(store.done_ids()) != len(paths):
        raise SystemExit(f"items failed: {[row.error for row in store.rows.values()]}")


def profile(backend: Any, path: str, folder: Path) -> dict[str, Any]:
    """Seconds per stage of one file with nothing beside it, and the rate of the bare network."""
    module, clock = sys.modules[type(backend).__module__], StageClock()
    is_sound = hasattr(module, "decode_audio")
    name, wrap = ("decode_audio", clock.time) if is_sound else ("sample_frames", clock.time_iterator)
    original = getattr(module, name)
    setattr(module, name, wrap("decode", original))
    started = time.perf_counter()
    item = backend.prepare(path)
    clock.seconds["front end"] = time.perf_counter() - started - clock.seconds["decode"]
    setattr(module, name, original)
    feature = backend.finish(clock.time("network", backend.infer)(item.inputs))
    clock.time("write", np.save)(folder / "profile.npy", feature)
    return {"stages": dict(clock.seconds), "entries_per_s": len(item.inputs) / clock.seconds["network"]}


# --- the peers


def run_vggish_peer(case: dict[str, Any], paths: list[str], peers: Path) -> dict[str, Any]:
    """The package `torchvggish` as its README uses it; the convolutions' output is taken on its way through."""
    started = time.perf_counter()
    import torch

    sys.path.insert(0, str(peers))
    from torchvggish import vggish_input
    from torchvggish.torchvggish import VGG, make_layers

    network = VGG(make_layers(), postprocess=False).eval()
    backend = get_unloaded(case)
    network.load_state_dict(backend.build_network().state_dict(), strict=False)
    load_s = time.perf_counter() - started
    taken: list[np.ndarray] = []
    network.features.register_forward_hook(lambda _module, _inputs, output: taken.append(output.detach().numpy()))

    def extract(path: str) -> np.ndarray:
        taken.clear()
        network.forward(vggish_input.wavfile_to_examples(path))
        return backend.pool(taken[0])

    def extract_narrow(path: str) -> None:
        with torch.inference_mode():
            network.features(vggish_input.wavfile_to_examples(path))

    result = time_peer(extract, paths, load_s)
    narrow = time_peer(extract_narrow, paths, load_s)["seconds"]
    return {**result, "narrow": ["its convolutions alone, without gradients", narrow]}


def get_unloaded(case: dict[str, Any]) -> Any:
    from vmnet_pipeline.backends.registry import get_backend

    return get_backend(case["backend"], case["params"], weights_dir=WEIGHTS)


def run_musicnn_peer(case: dict[str, Any], paths: list[str], peers: Path) -> dict[str, Any]:
    """The package `musicnn`: its own `extractor`, which loads the model at every call before it reads the sound."""
    import contextlib

    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # its graph is made of layers that Keras 3 no longer has
    sys.path.insert(0, str(peers))
    from musicnn import extractor as package

    called_at: list[float] = []
    loads_s: list[float] = []
    read_sound = package.batch_data

    def read_after_loading(*args: Any) -> Any:
        loads_s.append(time.perf_counter() - called_at[-1])
        return read_sound(*args)

    package.batch_data = read_after_loading

    def extract(path: str) -> np.ndarray:
        called_at.append(time.perf_counter())
        with contextlib.redirect_stdout(None):
            _, _, features = package.extractor(path, model="MSD_musicnn")
        # Not its "penultimate", of which it repeats the first patch.
        return np.asarray(features["max_pool"]).reshape(-1, 753).mean(axis=0)

    result = time_peer(extract, paths, 0.0)
    whole, load_s = result["seconds"], sum(loads_s[-len(paths) :])
    result |= {"seconds": whole - load_s, "load_s": load_s / len(paths)}
    return {**result, "narrow": ["with its model load, which is part of every call", whole]}


def run_efficientnet_peer(case: dict[str, Any], paths: list[str], peers: Path) -> dict[str, Any]:
    """Keras's B5 in f32 as a tf.function; pictures decoded and cropped as ours are, one file after the other."""
    started = time.perf_counter()
    backend = get_unloaded(case)
    network = backend.build_network()
    import tensorflow as tf

    call = tf.function(lambda pictures: network(pictures, training=False), reduce_retracing=True)
    load_s = time.perf_counter() - started

    def extract(path: str) -> np.ndarray:
        pictures = backend.prepare(path).inputs.astype(np.float32)
        starts = range(0, len(pictures), 8)
        return np.concatenate([call(tf.constant(pictures[start : start + 8])).numpy() for start in starts]).mean(axis=0)

    return time_peer(extract, paths, load_s)


def time_peer(extract: Callable[[str], np.ndarray], paths: list[str], load_s: float) -> dict[str, Any]:
    extract(paths[0])
    started, cpu_started = time.perf_counter(), time.process_time()
    pooled = [extract(path) for path in paths]
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    return {"load_s": load_s, "seconds": seconds, "cpu_s": cpu_s, "pooled": pooled}


PEERS = {"vggish": run_vggish_peer, "musicnn": run_musicnn_peer, "efficientnet-b5": run_efficientnet_peer}


# --- processes


def run_worker(task: dict[str, Any]) -> None:
    """One side of one case, in a process of its own; writes its result to `task["out"]`."""
    case, folder = task["case"], Path(task["folder"])
    if task["side"] == "ours":
        result = run_ours(case, task["paths"], folder)
    else:
        result = PEERS[task["name"]](case, task["paths"], Path(task["peers"]))
    pooled = result.pop("pooled")
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    np.save(folder / "pooled.npy", np.stack(pooled))
    Path(task["out"]).write_text(json.dumps(result))


def start_worker(**task: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        task |= {"folder": folder, "out": f"{folder}/result.json"}
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT / "src")}
        started = time.perf_counter()
        command = [sys.executable, __file__, "--worker", json.dumps(task)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{task['name']} {task['side']} failed:\n{done.stderr[-3000:]}")
        result: dict[str, Any] = json.loads(Path(task["out"]).read_text())
        result["process_s"] = time.perf_counter() - started
        result["pooled"] = np.load(Path(folder) / "pooled.npy")
    return result


# --- tables


def compare(name: str, case: dict[str, Any], args: argparse.Namespace, folder: Path) -> None:
    case = {**case, "params": {**case["params"], "precision": args.precision}}
    paths = [str(path) for path in make_files(folder, case["suffix"], args.files)]
    start_worker(name=name, case=case, side="ours", paths=paths[:1])  # converts the network once, as a first run does
    rounds: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
    for _ in range(args.rounds):
        for side, results in rounds.items():
            results.append(start_worker(name=name, case=case, side=side, paths=paths, peers=str(args.peers)))
    best = {side: min(results, key=lambda result: result["seconds"]) for side, results in rounds.items()}
    head = f"{args.files} files of {DURATION_S:g} s, {args.rounds} rounds, best of each"
    print(f"\n{name}, precision {args.precision}: {head}; load {load()}")
    for side, result in best.items():
        print_side(side, result, args.files)
    print_stages(best["ours"], args.files)
    cosine = measure_agreement(best["ours"]["pooled"], best["peer"]["pooled"])
    ratio = best["peer"]["seconds"] / best["ours"]["seconds"]
    verdict = f"wanted {case['wanted']:g}" if cosine >= AGREEMENT else "does not count: the outputs disagree"
    if "narrow" in best["peer"]:
        what, seconds = best["peer"]["narrow"]
        print(f"  peer, {what}: {seconds / args.files:.3f} s/item, ratio {seconds / best['ours']['seconds']:.1f}")
    cpu_ratio = best["peer"]["cpu_s"] / best["ours"]["cpu_s"]
    print(f"  ratio of processor time, which other load on the machine touches less: {cpu_ratio:.1f}")
    print(f"  ratio {ratio:.1f} ({verdict}); lowest cosine between pooled vectors {cosine:.5f}")


def measure_agreement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Lowest cosine between pooled vectors; of VGGish every patch has one."""
    a, b = (np.asarray(x, np.float64).reshape(-1, x.shape[-1]) for x in (ours, theirs))
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def print_side(side: str, result: dict[str, Any], n_files: int) -> None:
    per_item_s = result["seconds"] / n_files
    speed = f"{1 / per_item_s:6.2f} items/s  {per_item_s:6.3f} s/item  {DURATION_S / per_item_s:6.1f} x real time"
    cost = f"{result['cpu_s'] / n_files:6.3f} CPU s/item  peak {result['peak_mb']:5.0f} MB"
    print(f"  {side:<5} {speed}  {cost}  model load {result['load_s']:5.2f} s")


def print_stages(result: dict[str, Any], n_files: int) -> None:
    total = sum(result["stages"].values())
    shares = "  ".join(f"{stage} {seconds / total:.0%}" for stage, seconds in result["stages"].items())
    n_entries = result["stages"]["network"] * result["entries_per_s"]
    share = n_entries * n_files / result["seconds"] / result["entries_per_s"]
    print(f"  stages of ours one after the other: {shares}")
    print(f"  bare network {result['entries_per_s']:.1f} inputs/s; end to end {share:.0%} of that")


def measure_sizes(args: argparse.Namespace, folder: Path) -> None:
    """B5 from films of several sizes: the larger they are, the more decoding weighs."""
    for precision in ("f32", "bf16"):
        case = CASES["efficientnet-b5"]
        case = {**case, "params": {**case["params"], "precision": precision}}
        for size in VIDEO_SIZES:
            paths = [str(path) for path in make_files(folder, "mp4", 1, size)]
            results = [start_worker(name="sizes", case=case, side="ours", paths=paths) for _ in range(args.rounds)]
            best = min(results, key=lambda result: result["seconds"])
            print(f"\nefficientnet-b5 {precision}, {size[0]}x{size[1]}: {DURATION_S / best['seconds']:.2f} frames/s")
            print_stages(best, 1)


def measure_start(args: argparse.Namespace) -> None:
    """Seconds from starting Python to a loaded model: at the first run, which converts, and later."""
    program = (
        "import sys, json; from vmnet_pipeline.backends.registry import get_backend\n"
        "get_backend(sys.argv[1], json.loads(sys.argv[2]), weights_dir=sys.argv[3]).load()"
    )
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT / "src")}
    cases = {**CASES, "efficientnet-lite0": {"backend": "efficientnet", "params": {"weights": "random"}}}
    cases["musicnn"] = {"backend": "musicnn", "params": {"weights": "random"}}
    for name, case in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", program, case["backend"], json.dumps(case["params"]), folder]
            seconds = []
            for _ in range(2):
                started = time.perf_counter()
                subprocess.run(command, env=environment, check=True, capture_output=True)
                seconds.append(time.perf_counter() - started)
        print(f"start of {name}: first {seconds[0]:.1f} s, later {seconds[1]:.1f} s")


def load() -> str:
    return "{:.1f} {:.1f} {:.1f}".format(*os.getloadavg()) if hasattr(os, "getloadavg") else "?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=[*CASES, "sizes", "start"], help="cases; all by default")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, default=ROOT / ".peers")
    parser.add_argument("--precision", choices=["auto", "f32", "bf16"], default="auto", help="of ours")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        run_worker(json.loads(args.worker))
        return
    sys.path.insert(0, str(ROOT / "src"))
    with tempfile.TemporaryDirectory() as folder:
        for name in args.what:
            if name in CASES:
                compare(name, CASES[name], args, Path(folder))
            elif name == "sizes":
                measure_sizes(args, Path(folder))
            elif name == "start":
                measure_start(args)
            else:
                parser.error(f"{name}: choose from {', '.join([*CASES, 'sizes', 'start'])}")


if __name__ == "__main__":
    main()
