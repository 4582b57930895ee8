"""Losses that spare pairs which are nearly alike, each alone against InfoNCE on real pairs.

    python benchmarks/false_negatives.py --pairs FOLDER --splits 101 102
    python benchmarks/false_negatives.py --pairs FOLDER --losses infonce sigmoid --epochs 40

A track or a film that is nearly the same as another is no negative. `soft` gives part of the target to what is similar
within a side (arXiv:2407.19415 uses such similarities beside the contrastive term), `sigmoid` judges every pair on its
own (arXiv:2303.15343), `margin` asks of each video a distance between its track and those that are not near copies.
Towers, optimiser, epochs and splits are the same for all. Epochs are chosen on validation pairs; intervals are of a
paired bootstrap over test items.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from quality import compare, cosine, ranks_of, recall
from real_pairs import draw_split, load_arrays, take_rows, tie_equal_rows
from torch import Tensor, nn
from torch.nn import functional

from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.models.losses import ContrastiveLoss
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training import setup, train_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmnet_pipeline.models.losses import LossInputs
    from vmnet_pipeline.types import PairArrays

SETTINGS: dict[str, Any] = {
    "protocol": "best", "members": {}, "epochs": 20, "patience": None, "feature_noise": 0.7,
    "loss": {"name": "contrastive"},
    "model": {"music_tower": "musicnn", "video_tower": "musicnn", "embedding_dim": 256}, "state_interval_s": 1e9,
}  # fmt: skip
SOFT_SHARE, SOFT_TEMPERATURE = 0.2, 0.05
MARGIN, NEAR_COPY = 0.2, 0.95


def compare_within(features: Tensor) -> Tensor:
    """(B, B) cosines of the inputs of one side."""
    unit = functional.normalize(features, dim=1)
    return unit @ unit.T


class SoftTargets(nn.Module):
    """InfoNCE whose targets go partly to items that are similar within either side."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(1.0 / 0.07).log())

    def forward(self, batch: LossInputs) -> dict[str, Tensor]:
        logits = self.log_scale.clamp(0.0, 6.9).exp() * batch.music @ batch.video.T
        within = (compare_within(batch.music_structure) + compare_within(batch.video_structure)) / 2.0
        own = torch.eye(len(logits), device=logits.device)
        targets = (1.0 - SOFT_SHARE) * own + SOFT_SHARE * functional.softmax(within / SOFT_TEMPERATURE, dim=1)
        terms = [-(targets * functional.log_softmax(part, dim=1)).sum(dim=1).mean() for part in (logits, logits.T)]
        return {"total": (terms[0] + terms[1]) / 2.0}


class Sigmoid(nn.Module):
    """A logistic term for every pair of the batch, with a learned scale and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale, self.bias = nn.Parameter(torch.tensor(10.0).log()), nn.Parameter(torch.tensor(-10.0))

    def forward(self, batch: LossInputs) -> dict[str, Tensor]:
        logits = self.log_scale.clamp(0.0, 6.9).exp() * batch.music @ batch.video.T + self.bias
        signs = 2.0 * torch.eye(len(logits), device=logits.device) - 1.0
        return {"total": -functional.logsigmoid(signs * logits).sum(dim=1).mean()}


class ManyToOne(nn.Module):
    """Hinge of each video between its track and the others, those that are near copies of its own left out."""

    def forward(self, batch: LossInputs) -> dict[str, Tensor]:
        scores = batch.video @ batch.music.T
        costs = functional.relu(MARGIN + scores - scores.diag()[:, None])
        kept = compare_within(batch.music_structure) < NEAR_COPY
        return {"total": (costs * kept).sum(dim=1).mean()}


LOSSES = {
    "infonce": lambda: ContrastiveLoss(embedding_dim=256), "soft": SoftTargets, "sigmoid": Sigmoid, "margin": ManyToOne,
}  # fmt: skip


def measure(name: str, subsets: Mapping[str, PairArrays], seed: int, options: argparse.Namespace) -> np.ndarray:
    """(2, n) ranks of the test pairs."""
    setup.build_loss = lambda *_args, **_settings: LOSSES[name]()  # type: ignore[assignment]
    given = {"epochs": options.epochs, "n_threads": options.threads, "device": "cpu", "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        params = TrainParams(**{**SETTINGS, **given})
        result = train_model(subsets["train"], subsets["val"], params, state_dir=Path(folder), progress=False)
    model, test = result.build(), subsets["test"]
    return ranks_of(cosine(embed_arrays(model, music=test.music), embed_arrays(model, video=test.video)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--splits", nargs="+", type=int, default=[101, 102], help="seeds of the splits")
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=SETTINGS["epochs"])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    pairs = tie_equal_rows({"pairs": load_arrays(options.pairs)})[0]["pairs"]
    found: dict[str, list[np.ndarray]] = {name: [] for name in options.losses}
    for seed in options.splits:
        rows = draw_split(pairs.groups, options.test, 0.2, seed)
        subsets = {subset: take_rows(pairs, own) for subset, own in rows.items()}
        for name in options.losses:
            started = time.process_time()
            found[name].append(measure(name, subsets, seed, options))
            took = time.process_time() - started
            print(f"split {seed} {name}: R@10 {recall(found[name][-1]):.1f} %, {took:.0f} processor s", flush=True)
    print("\n| loss | R@10 | median rank | MRR | against the first |\n|---|---|---|---|---|")
    first = np.concatenate(next(iter(found.values())), axis=1)[None]
    for name, each in found.items():
        ranks = np.concatenate(each, axis=1)[None]
        gain = "{:+.1f} ({:+.1f} to {:+.1f})".format(*compare(ranks, first))
        print(f"| {name} | {recall(ranks):.1f} | {np.median(ranks):.0f} | {100 * (1 / ranks).mean():.1f} | {gain} |")


if __name__ == "__main__":
    main()
