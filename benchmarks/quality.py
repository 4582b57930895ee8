"""Retrieval quality of every variant beside the optimum, on pairs whose best possible ranking is known.

    python benchmarks/quality.py                          # everything, three seeds
    python benchmarks/quality.py --variants optimum cca best --seeds 0 1 2
    python benchmarks/quality.py --latent 16 --music-dim 200 --video-dim 1280 --variants optimum cca best
    python benchmarks/quality.py --frames 12 24 --clutter 0.4 --music-dim 64 --video-dim 128 --train 2048 \\
        --variants optimum cca contrastive sequence

Settings and epochs are chosen on validation pairs only. The one exception is in the name: `reference, peak on test`
watches the test pairs, as the reference code does; nothing else uses that figure.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from no_log import open_no_log
from paired_views import Design, Views, generate, optimal_scores

from vmnet_pipeline.experiments.baselines import fit_baseline
from vmnet_pipeline.params import BASELINES, TrainParams

if TYPE_CHECKING:
    from vmnet_pipeline.types import PairArrays

VMNET = {"batch_size": 512, "epochs": 30, "patience": 10}
PLAIN = {**VMNET, "lr_schedule": "cosine", "warmup_epochs": 2, "learning_rate": 1e-3}
CONTRASTIVE = {**PLAIN, "loss": {"name": "contrastive"}}
NOISE = {**CONTRASTIVE, "feature_noise": 1.0}
CANONICAL = {"protocol": "best", "members": {}}  # the canonical member of `best` alone
VARIANTS: dict[str, dict[str, Any]] = {
    "vmnet": VMNET,
    "vmnet-cosine": PLAIN,
    "vmnet-noise": {**PLAIN, "feature_noise": 1.0},
    "vmnet-semi-hard": {**VMNET, "loss": {"negatives": "semi_hard", "top_k": 64}},
    "vmnet-hardest": {**VMNET, "loss": {"top_k": 8}},
    "vmnet-sum": {**VMNET, "loss": {"hinge": "sum"}},
    "vmnet-sampled": {**VMNET, "loss": {"structure_triples": "sampled"}},
    "contrastive": CONTRASTIVE,
    "contrastive-memory": {**CONTRASTIVE, "loss": {"name": "contrastive", "memory_size": 1024}},
    "contrastive-noise": NOISE,
    "contrastive-mixup": {**CONTRASTIVE, "mixup_alpha": 1.0},
    "contrastive-decay": {**CONTRASTIVE, "weight_decay": 0.5},
    "contrastive-dropout": {**CONTRASTIVE, "model": {"dropout": 0.5}},
    "contrastive-average": {**CONTRASTIVE, "average_decay": 0.99},
    "contrastive-noise-average": {**NOISE, "average_decay": 0.99},
    "canonical-vmnet-loss": {**CANONICAL, "loss": {"name": "vmnet"}},
    "canonical-untrained": {**CANONICAL, "epochs": 1, "learning_rate": 1e-9, "warmup_epochs": 0},
    "canonical-noise": {**CANONICAL, "feature_noise": 0.5},
    "canonical-staircase": {**CANONICAL, "lr_schedule": "staircase", "warmup_epochs": 0},
    "canonical-no-average": {**CANONICAL, "average_decay": None},
    "canonical": CANONICAL,
    "best": {"protocol": "best"},
    "sequence": {**CONTRASTIVE, "model": {"music_tower": "sequence"}},
    "sequence-music": {**CONTRASTIVE, "model": {"music_tower": "sequence", "video_tower": "musicnn"}},
    "sequence-video": {**CONTRASTIVE, "model": {"video_tower": "sequence"}},
    "sequence-of-mean": {**CONTRASTIVE, "model": {"music_tower": "sequence"}},
    "transformer": {**CONTRASTIVE, "model": {"music_tower": "transformer"}},
}
Sides = tuple[Views, Views, Views]
OPTIMUM, REFERENCE = "optimum", "reference"


def cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, m) cosine similarities."""
    return (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T


def ranks_of(scores: np.ndarray) -> np.ndarray:
    """(2, n) ranks of the diagonal, along rows and along columns."""
    own = np.diag(scores)
    return np.stack([1 + (scores > own[:, None]).sum(axis=1), 1 + (scores > own[None, :]).sum(axis=0)])


def recall(ranks: np.ndarray, k: int = 10) -> float:
    """Recall at K in %, mean of both directions."""
    return 100.0 * float((ranks <= k).mean())


def measure(name: str, sides: Sides, design: Design, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Ranks of the test pairs under one variant."""
    train, val, test = sides
    start = time.perf_counter()
    extra: dict[str, Any] = {}
    if name == OPTIMUM:
        ranks = ranks_of(optimal_scores(test, design.correlations))
    elif name in BASELINES:
        embed = fit_baseline(name, train.pairs, val.pairs, seed)
        ranks = ranks_of(cosine(*embed(test.pairs)))
        extra = {"val": recall(ranks_of(cosine(*embed(val.pairs))))}
    else:
        ranks, extra = train_variant(name, sides, seed, options)
    return {"ranks": ranks, "seconds": time.perf_counter() - start, **extra}


def train_variant(name: str, sides: Sides, seed: int, options: argparse.Namespace) -> tuple[np.ndarray, dict[str, Any]]:
    """Test ranks of a trained variant, and its best epoch and validation recall."""
    from vmnet_pipeline.models.embed import embed_arrays
    from vmnet_pipeline.training import train_model
    from vmnet_pipeline.training.ensembles import train_ensemble

    train, val, test = (choose_form(side, name) for side in sides)
    fixed = {"seed": seed, "device": options.device, "n_threads": options.threads, "state_interval_s": 1e9}
    fixed["precision"] = options.precision
    if name == REFERENCE:
        params = TrainParams(protocol="reference", epochs=options.reference_epochs, eval_every=2, **fixed)
        watched = test
    else:
        params, watched = TrainParams(**{**VARIANTS[name], **fixed}), val
    with tempfile.TemporaryDirectory() as folder:
        if params.members:
            result = train_ensemble(train, watched, params, state_dir=Path(folder), open_log=open_no_log).network
        else:
            result = train_model(train, watched, params, state_dir=Path(folder), progress=False)
    model = result.build()
    ranks = ranks_of(cosine(embed_arrays(model, music=test.music), embed_arrays(model, video=test.video)))
    if params.members:
        return ranks, {"val": 50.0 * (result.metrics["recall_at_10_xy"] + result.metrics["recall_at_10_yx"])}
    curve = {r.epoch: 50.0 * (r.val["recall_at_10_xy"] + r.val["recall_at_10_yx"]) for r in result.history if r.val}
    if name == REFERENCE:
        epoch = max(curve, key=lambda e: curve[e])
        return ranks, {"peak_on_test": curve[epoch], "peak_epoch": epoch}
    return ranks, {"val": curve[result.best_epoch], "best_epoch": result.best_epoch}


def choose_form(side: Views, name: str) -> PairArrays:
    """Pairs as this variant's towers take them; `sequence-of-mean`, a control, has the mean as its only step."""
    if name == "sequence-of-mean":
        return replace(side.pairs, music=side.pairs.music[:, None], video=side.pairs.video[:, None])
    model = TrainParams(**VARIANTS.get(name, {})).model
    takes_frames = model.music_steps is not None, model.video_steps is not None
    if not any(takes_frames):
        return side.pairs
    if side.sequences is None:
        raise SystemExit("towers over sequences need frames: give --frames MUSIC VIDEO")
    music, video = ((side.pairs, side.sequences)[takes] for takes in takes_frames)
    return replace(side.pairs, music=music.music, video=video.video)


def compare(ranks: np.ndarray, other: np.ndarray, n_resamples: int = 2000) -> tuple[float, float, float]:
    """Paired bootstrap over test items: difference of R@10 in points and its 95 % interval.

    Args:
        ranks: (n_seeds, 2, n) of one variant.
        other: The same of another one, on the same items.
    """
    difference = 100.0 * ((ranks <= 10).astype(float) - (other <= 10)).mean(axis=1)  # (n_seeds, n)
    rng = np.random.default_rng(0)
    flat = difference.ravel()
    draws = [flat[rng.integers(0, len(flat), len(flat))].mean() for _ in range(n_resamples)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(flat.mean()), float(low), float(high)


def report(results: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown table: mean over seeds with the 95 % interval of that mean, and the paired difference to `best`."""
    lines = [
        "| variant | R@1 | R@10 music->video | R@10 video->music | R@10 | 95 % interval | per seed | val R@10 "
        "| against best | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    best = np.stack([item["ranks"] for item in results["best"]]) if "best" in results else None
    for name, items in results.items():
        ranks = np.stack([item["ranks"] for item in items])
        _, low, high = compare(ranks, np.full_like(ranks, 10**9))
        seeds = " ".join(f"{recall(r):.1f}" for r in ranks)
        val = [item["val"] for item in items if item.get("val") is not None]
        gap = ""
        if best is not None and name != "best":
            gap = "{:+.1f} ({:+.1f} to {:+.1f})".format(*compare(ranks, best))
        seconds = np.mean([item["seconds"] for item in items])
        lines.append(
            f"| {name} | {recall(ranks, 1):.1f} | {recall(ranks[:, 0]):.1f} | {recall(ranks[:, 1]):.1f} "
            f"| {recall(ranks):.1f} | {low:.1f} to {high:.1f} | {seeds} | {f'{np.mean(val):.1f}' if val else ''} "
            f"| {gap} | {seconds:.0f} |"
        )
        if name == REFERENCE:
            peaks = [item["peak_on_test"] for item in items]
            text = " ".join(f"{p:.1f} (epoch {i['peak_epoch']})" for p, i in zip(peaks, items, strict=True))
            lines.append(f"| reference, peak on test | | | | {np.mean(peaks):.1f} | | {text} | | | |")
    return "\n".join(lines)


def main() -> None:
    names = [OPTIMUM, *BASELINES, REFERENCE, *VARIANTS]
    usual = [name for name in names if not name.startswith(("sequence", "transformer"))]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=names, default=usual, metavar="NAME", help=", ".join(names))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--train", type=int, default=4096)
    parser.add_argument("--latent", type=int, default=10)
    parser.add_argument("--music-dim", type=int, default=500)
    parser.add_argument("--video-dim", type=int, default=2048)
    parser.add_argument("--slope", type=float, default=Design.slope, help="1 makes the lift linear")
    parser.add_argument("--nuisance", type=float, default=Design.nuisance)
    parser.add_argument("--frames", nargs=2, type=int, metavar=("MUSIC", "VIDEO"), help="most frames; keeps them all")
    parser.add_argument("--clutter", type=float, default=Design.clutter, help="share of frames that show another thing")
    parser.add_argument("--reference-epochs", type=int, default=202)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["auto", "f32", "bf16"], default="auto")
    parser.add_argument("--output", type=Path, help="JSON file for the ranks")
    options = parser.parse_args()
    design = replace(
        Design(),
        n_train=options.train,
        n_latent=options.latent,
        music_shape=(options.frames[0] if options.frames else 20, options.music_dim),
        video_shape=(options.frames[1] if options.frames else 60, options.video_dim),
        slope=options.slope,
        nuisance=options.nuisance,
        clutter=options.clutter,
        keeps_frames=options.frames is not None,
    )
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in options.variants}
    for seed in options.seeds:
        sides = generate(design, seed)
        for name in options.variants:
            item = measure(name, sides, design, seed, options)
            results[name].append(item)
            rest = " ".join(f"{k}={v}" for k, v in item.items() if k not in {"ranks", "seconds"})
            found = recall(item["ranks"])
            print(f"seed {seed} {name}: R@10 {found:.1f} % in {item['seconds']:.0f} s {rest}", flush=True)
    print("\n" + report(results))
    if options.output:
        content = {
            name: [{**item, "ranks": item["ranks"].tolist()} for item in items] for name, items in results.items()
        }
        options.output.write_text(json.dumps(content))


if __name__ == "__main__":
    main()
