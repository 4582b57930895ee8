"""Fit the starter model that comes with the package.

    python tools/fit_starter.py                   # from the descriptors in tools/starter, a part of the repository
    python tools/fit_starter.py --media FOLDER    # first describe the clips of a folder again

The folder has `manifest.tsv` with the columns file, kind, package, source (the work) and offset_s: clips of freely
licensed works that public packages carry, cut at these offsets; tools/starter/clips.tsv names all, with a checksum of
each file. No clip is part of the repository, only its descriptors. Of each clip the first 17 s count, as clips of one
kind are of one length, which would tell kinds apart.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.backends.registry import make_backend
from vmnet_pipeline.evaluation.bootstrap import bootstrap_intervals
from vmnet_pipeline.evaluation.ranks import rank_both
from vmnet_pipeline.inference.starter import STARTER_BACKENDS, STARTER_FOLDER, describe_features
from vmnet_pipeline.models.checkpoints import Checkpoint, save_checkpoint
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.models.kernel_cca import assign_folds
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training.calibration import calibrate_result
from vmnet_pipeline.training.joint_weights import measure_folds
from vmnet_pipeline.training.setup import fit_closed_form
from vmnet_pipeline.training.terms import measure_terms
from vmnet_pipeline.training.trainer import HeldOut
from vmnet_pipeline.types import MODALITY_OF, SIDES, FeaturePart, PairArrays, Side

if TYPE_CHECKING:
    from collections.abc import Sequence

PLACE = Path(__file__).with_name("starter")
TABLE, CLIPS = "descriptors.npz", "clips.tsv"
COLUMNS = ("file", "kind", "package", "licence", "source", "offset_s", "sha256")
LENGTH_S = 17.0
REDUCED = {"music_tower": "reduced", "video_tower": "reduced"}
PARAMS = TrainParams(model=REDUCED, n_threads=1)
N_HALVINGS, N_FOLDS = 10, 3
LICENCES = {  # a note for the table; the packages have the full texts
    "moviepy": "CC-BY 3.0, (c) Blender Foundation",
    "flight-of-the-amazon-queen": "freeware, Debian main",
    "lure-of-the-temptress": "freeware, Debian main",
    "hedgewars-data": "GPL-2 and free art, Debian main",
    "wesnoth-1.16-music": "GPL or CC, Debian main",
    "warzone2100-music": "GPL or CC, Debian main",
    "planetblupi-music-ogg": "GPL or CC, Debian main",
    "singularity-music": "GPL or CC, Debian main",
}


# --- from clips to descriptors


def describe_clips(folder: Path, place: Path) -> None:
    """Write the descriptors of all clips of a folder, and the table that names them."""
    with (folder / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["kind"] != "music"]
    arrays: dict[str, list[np.ndarray]] = {}
    for number, row in enumerate(rows, start=1):
        path = folder / row["file"]
        for names in STARTER_BACKENDS.values():
            for name in names:
                arrays.setdefault(name, []).append(_describe(name, path))
        row["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        row["licence"] = LICENCES[row["package"].partition("==")[0]]
        print(f"{number} of {len(rows)}: {row['file']}", flush=True)
    place.mkdir(exist_ok=True)
    np.savez_compressed(place / TABLE, **{name: np.stack(values).astype(np.float16) for name, values in arrays.items()})
    with (place / CLIPS).open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _describe(name: str, path: Path) -> np.ndarray:
    backend = make_backend({"backend": name, "weights_dir": "none", "max_duration_s": LENGTH_S})
    backend.load()
    return np.asarray(backend.finish(backend.infer(backend.prepare(str(path)).inputs)), np.float32)


# --- from descriptors to the model


def read_pairs(place: Path = PLACE) -> PairArrays:
    """The clips as pairs; those of one work are one group."""
    with (place / CLIPS).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    with np.load(place / TABLE, allow_pickle=False) as table:
        arrays = {name: np.asarray(table[name], np.float32) for name in table.files}
    sides: dict[Side, list[str]] = {side: list(STARTER_BACKENDS[MODALITY_OF[side]]) for side in SIDES}
    music, video = (np.concatenate([arrays[name] for name in sides[side]], axis=1) for side in SIDES)
    parts = {side: tuple(FeaturePart(n, arrays[n].shape[1]) for n in names) for side, names in sides.items()}
    several = {side: own for side, own in parts.items() if len(own) > 1}
    ids, groups = (tuple(row[column] for row in rows) for column in ("file", "source"))
    return PairArrays(ids, groups, music, video, parts=several)


def fit_starter(pairs: PairArrays) -> Checkpoint:
    """The model of these pairs, with what works held out from it say of its scores."""
    fitted = fit_closed_form(pairs, PARAMS)
    folds = assign_folds(_encode_works(pairs), N_FOLDS, np.random.default_rng(PARAMS.seed))
    held_out = tuple(_hold_out(pairs, folds == fold) for fold in range(N_FOLDS))
    fitted = replace(fitted, held_out=held_out, metrics=measure_folds(held_out))
    fingerprints = {modality: describe_features(modality) for modality in STARTER_BACKENDS}
    weighed = {side: tuple(replace(p, weight=1.0) for p in own) for side, own in pairs.parts.items()}
    return Checkpoint(
        fitted.model_config,
        fitted.tensors,
        fingerprints,
        params={"starter": True, "n_clips": len(pairs), "n_works": len(set(pairs.groups)), "length_s": LENGTH_S},
        metrics=fitted.metrics,
        parts=weighed,
        calibration=calibrate_result(fitted, None, PARAMS),
        terms=measure_terms(fitted.build(), pairs, fingerprints, PARAMS.seed),
    )


def _encode_works(pairs: PairArrays) -> np.ndarray:
    return np.unique(np.asarray(pairs.groups), return_inverse=True)[1]


def _hold_out(pairs: PairArrays, is_out: np.ndarray) -> HeldOut:
    """Some pairs as a model of the others embeds them."""
    model, test = fit_closed_form(_take(pairs, ~is_out), PARAMS).build(), _take(pairs, is_out)
    sides = embed_arrays(model, music=test.music), embed_arrays(model, video=test.video)
    return HeldOut(*sides, np.arange(len(test)), test.groups)


# --- what it knows of works that it never saw


@dataclass(frozen=True)
class Figures:
    """Recall@10 on works held out, with its 95 % interval over works, and that of chance; shares."""

    recall: float
    low: float
    high: float
    chance: float
    n_tested: float


def measure_unseen(pairs: PairArrays) -> Figures:
    """Fit on half of the works, rank the clips of the others, ten times."""
    ranked, groups, sizes = [], [], []
    for seed in range(N_HALVINGS):
        halves = assign_folds(_encode_works(pairs), 2, np.random.default_rng(seed))
        for half in (0, 1):
            held_out = _hold_out(pairs, halves == half)
            for direction in rank_both(held_out.music, held_out.video):
                ranked.append(direction.ranks)
                groups += held_out.groups
            sizes.append(len(held_out.codes))
    ranks = np.concatenate(ranked)
    ranks = np.concatenate(ranked)
    interval = bootstrap_intervals(ranks, [10], 2000, 0.95, groups=groups).recall[10]
    low, high = interval or (float("nan"), float("nan"))
    chance = float(np.average(10 / np.array(sizes), weights=sizes))
    return Figures(float((ranks <= 10).mean()), low, high, chance, float(np.mean(sizes)))


def _take(pairs: PairArrays, chosen: np.ndarray) -> PairArrays:
    rows = np.flatnonzero(chosen)
    ids, groups = (tuple(names[row] for row in rows) for names in (pairs.ids, pairs.groups))
    return replace(pairs, ids=ids, groups=groups, music=pairs.music[rows], video=pairs.video[rows])


def write_card(folder: Path, checkpoint: Checkpoint, figures: Figures, place: Path = PLACE) -> None:
    """The card: what it is, what it was fitted to, what it knows, and what it does not."""
    with (place / CLIPS).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    lines = [
        f"| {package} | {', '.join(sorted({r['kind'].partition(':')[0] for r in own}))} | {len(own)} | "
        f"{len({r['source'] for r in own})} | {own[0]['licence']} |"
        for package in dict.fromkeys(row["package"] for row in rows)
        for own in [[row for row in rows if row["package"] == package]]
    ]
    recall, low, high, chance = (
        f"{100 * value:.1f}" for value in (figures.recall, figures.low, figures.high, figures.chance)
    )
    calibration = checkpoint.calibration
    assert calibration is not None  # noqa: S101 - as many pairs as here always have one
    text = CARD.format(
        n_clips=len(rows), n_works=len({row["source"] for row in rows}), table="\n".join(lines), recall=recall, low=low,
        high=high, chance=chance, n_tested=round(figures.n_tested), mrr=f"{calibration.mrr:.3f}",
        mrr_chance=f"{calibration.mrr_chance:.3f}",
    )  # fmt: skip
    (folder / "card.md").write_text(text, encoding="utf-8")


CARD = """# Starter model

A small model from descriptors of audio to descriptors of frames, for those who have trained none. It needs no weights.

- **Inputs**: `descriptors_audio` (47 numbers with names), `vmnet2017` (1,140 numbers of the original VM-NET), and
  `descriptors_video` (31 numbers).
- **Method**: tower `reduced`, see "Few pairs" in docs/quality.md. Nothing in it was chosen on these clips.
- **Fitted to** the first 17 s of {n_clips} clips of {n_works} works, which public packages carry. No clip is part of
  this package, only what was fitted.

| package | kind | clips | works | licence |
|---|---|---|---|---|
{table}

- **On works it never saw**: fitted to half of the works and tested on the clips of the others, ten times: Recall@10
  {recall} % (95 % interval over works {low} to {high}) where chance is {chance} %, with about {n_tested} clips to
  choose from. MRR in three folds {mrr}, chance {mrr_chance}.
- **Limits**: animation, games and music visualisers alone, and few of them; no live action, no speech, no songs. Scenes
  and visualisers were drawn for their music. Expect little more than chance on other material, and train your own as
  soon as you have pairs.
- **Made by** `python tools/fit_starter.py` from tools/starter in the repository.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Describe clips if asked to, fit, save, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, help="folder of clips with manifest.tsv: describe them again")
    parser.add_argument("--output", type=Path, default=STARTER_FOLDER, help="folder of the model")
    options = parser.parse_args(arguments)
    if options.media:
        describe_clips(options.media, PLACE)
    pairs = read_pairs()
    checkpoint = fit_starter(pairs)
    save_checkpoint(options.output, checkpoint)
    figures = measure_unseen(pairs)
    write_card(options.output, checkpoint, figures)
    size = sum(path.stat().st_size for path in options.output.iterdir())
    print(f"{options.output}: {size:,} bytes; {figures}")


if __name__ == "__main__":
    main()
