"""Retrieval on real pairs: every variant beside every baseline, on repeated splits by group.

    python benchmarks/real.py --pairs FOLDER --test 1000     # audio.* (or music.*) and video.*: npy, npz, h5, pt
    python benchmarks/real.py --media FOLDER                 # clips; groups by manifest.tsv, media.csv or folder
    python benchmarks/real.py --pairs FOLDER --variants vmnet best --splits 1 --markdown table.md

Items with equal audio or video are one group, and no group is in two of training, validation and test. Everything is
chosen on training and validation pairs; test pairs are only ranked, in one pool. Baselines see features standardised on
the training pairs. Each split and row has its own file in the folder of results, so that a killed run goes on where it
was; features of clips are kept there, too. Intervals are of a bootstrap over groups, the same draws for all rows: a
group that is tested in several splits counts in all of them together. They do not cover the choice of training pairs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from no_log import open_no_log
from real_pairs import FEATURE_SETS, describe_backend, draw_split, load_arrays, load_clips, take_rows, tie_equal_rows
from real_report import KS, VMNET, lay_out, summarise

from vmnet_pipeline.errors import ParameterError, VmnetError, WeightsError
from vmnet_pipeline.evaluation.results import DIRECTIONS
from vmnet_pipeline.experiments.comparison import (
    Row,
    measure_baseline,
    measure_variant,
    plan_variants,
)
from vmnet_pipeline.params import BASELINES, CompareParams, TrainParams
from vmnet_pipeline.storage.atomic import write_text_atomically
from vmnet_pipeline.types import SIDES, FeaturePart, PairArrays

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VARIANTS: dict[str, dict[str, Any]] = {
    VMNET: {},
    "best": {"protocol": "best"},
    "kernel_cca": {"model": {"music_tower": "kernel", "video_tower": "kernel", "embedding_dim": 256}},
    "contrastive": {"loss": {"name": "contrastive"}},
}
"""Name to settings laid over those of `kedro run`."""


@dataclass(frozen=True)
class Problem:
    """One set of features to be measured.

    Attributes:
        title: Its name.
        pairs: All pairs.
        splits: Rows of `train`, `val` and `test` of each split.
        folder: Of the results.
    """

    title: str
    pairs: PairArrays
    splits: Sequence[Mapping[str, np.ndarray]]
    folder: Path


# --- measuring


def measure(problem: Problem, number: int, name: str, settings: Mapping[str, Any], base: TrainParams) -> dict[str, Any]:
    """Ranks of the test pairs of a split under a baseline or variant; read where they are known already."""
    key, place = describe(problem, number, name, settings, base), problem.folder / f"split_{number}"
    path = place / f"{name}.json"
    if (known := read_result(path)) and known["key"] == key:
        return known
    subsets = {subset: take_rows(problem.pairs, rows) for subset, rows in problem.splits[number].items()}
    start = time.perf_counter()
    row = measure_row(name, settings, base.override({"seed": number}), subsets, place / "state" / key)
    ranks = 1.0 / row.values[0, [index * (len(KS) + 1) + len(KS) for index in range(len(DIRECTIONS))]]
    result = {
        "key": key,
        "ranks": ranks.round(1).tolist(),
        "seconds": round(time.perf_counter() - start, 1),
        "val_mrr": row.val_mrr[0] if row.val_mrr else None,
        "sizes": {subset: len(pairs) for subset, pairs in subsets.items()},
    }
    place.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, json.dumps(result))
    shutil.rmtree(place / "state" / key, ignore_errors=True)
    found = 100.0 * (ranks <= KS[-1]).mean()
    print(f"{problem.title} split {number} {name}: R@10 {found:.1f} % in {result['seconds']:.0f} s", flush=True)
    return result


def measure_row(
    name: str, settings: Mapping[str, Any], params: TrainParams, subsets: Mapping[str, PairArrays], state: Path
) -> Row:
    if name in BASELINES:
        one = CompareParams(variants={"none": {}}, seeds=(params.seed,), ks=KS)
        return measure_baseline(name, {subset: name_parts(pairs) for subset, pairs in subsets.items()}, one)
    one = CompareParams(variants={name: dict(settings)}, seeds=(params.seed,), baselines=(), ks=KS)
    trainings = plan_variants(one, params, subsets["train"])[name]
    return measure_variant(name, trainings, subsets, one, state_dir=state, open_log=open_no_log)[0]


def name_parts(pairs: PairArrays) -> PairArrays:
    """Sides as parts of a joint vector, which baselines standardise; else they see little but the widest features."""
    parts = {side: pairs.parts.get(side) or (FeaturePart(side, getattr(pairs, side).shape[1]),) for side in SIDES}
    return replace(pairs, parts=parts)


def _sides(pairs: PairArrays) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(pairs.music), np.asarray(pairs.video)


def describe(problem: Problem, number: int, name: str, settings: Mapping[str, Any], base: TrainParams) -> str:
    """Digest of what decides a result: features, split, settings."""
    common = base.model_dump(mode="json", exclude={"device", "n_threads"})
    digest = hashlib.sha256(json.dumps([name, settings, common], sort_keys=True).encode())
    for side in _sides(problem.pairs):
        digest.update(np.ascontiguousarray(side).tobytes())
    for subset, rows in problem.splits[number].items():
        digest.update(subset.encode() + rows.astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def read_result(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


# --- the command


def choose_sets(names: Sequence[str] | None) -> list[str]:
    """The sets asked for, or all of whose networks there are weights."""
    from vmnet_pipeline.backends.registry import make_backend

    chosen = []
    for name in names or FEATURE_SETS:
        one = FEATURE_SETS[name]
        try:
            for backend, own in [*one.music.items(), *one.video.items()]:
                make_backend(describe_backend(backend, own)).fingerprint()
        except WeightsError as error:
            if names:
                raise
            print(f"features {name} are left out: {error}", flush=True)
            continue
        chosen.append(name)
    return chosen


def read_variants(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Settings of the variants that are wanted, by name."""
    wanted = {name: VARIANTS[name] for name in options.variants}
    for text in options.add:
        name, _, settings = text.partition("=")
        try:
            wanted[name] = dict(json.loads(settings))
        except (ValueError, TypeError) as error:
            raise ParameterError(f"--add {text}: give NAME=JSON, settings of `train` ({error})") from error
    return wanted


def load(options: argparse.Namespace) -> dict[str, PairArrays]:
    if options.pairs:
        sets = {options.pairs.resolve().name: load_arrays(options.pairs)}
    else:
        sets = load_clips(
            options.media, options.output, {name: FEATURE_SETS[name] for name in choose_sets(options.features)}
        )
    tied, n_groups = tie_equal_rows(sets)
    first = next(iter(sets.values()))
    given = {group or key for key, group in zip(first.ids, first.groups, strict=True)}
    print(f"{len(first):,} pairs; equal audio or video ties {len(given):,} groups to {n_groups:,}", flush=True)
    return tied


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = {**{name: {} for name in options.baselines}, **read_variants(options)}
    sets = load(options)
    first = next(iter(sets.values()))
    n_test = int(options.test) if options.test >= 1 else round(options.test * len(first))
    splits = [draw_split(first.groups, n_test, options.val, seed) for seed in range(options.splits)]
    base = TrainParams(device=options.device, n_threads=options.threads)
    problems = [Problem(name, pairs, splits, options.output / "results" / name) for name, pairs in sets.items()]
    summaries = []
    for problem in problems:
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in rows}
        for number in range(options.splits):
            for name, settings in rows.items():
                results[name].append(measure(problem, number, name, settings, base))
        summaries.append(summarise(problem.title, problem.pairs, problem.splits, results))
        write_text_atomically(problem.folder / "summary.json", json.dumps(summaries[-1], indent=1))
    return summaries


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--pairs", type=Path, help="folder with paired arrays")
    source.add_argument("--media", type=Path, help="folder with clips")
    parser.add_argument("--features", nargs="+", choices=FEATURE_SETS, help="of clips; all by default")
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument(
        "--add", nargs="+", default=[], metavar="NAME=JSON", help="variants: settings laid over `train`"
    )
    parser.add_argument("--baselines", nargs="*", choices=BASELINES, default=list(BASELINES), metavar="NAME")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--test", type=float, default=0.25, help="test items, or below 1 their share")
    parser.add_argument(
        "--val", type=float, default=0.2, help="share of the training items that choose epochs and settings"
    )
    parser.add_argument("--output", type=Path, default=Path("data/08_reporting/real"), help="features and results")
    parser.add_argument("--markdown", type=Path, help="file for the table")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    try:
        text = "\n\n".join(map(lay_out, run(options)))
    except VmnetError as error:
        raise SystemExit(str(error)) from error
    print(f"\n{text}")
    if options.markdown:
        write_text_atomically(options.markdown, f"{text}\n")


if __name__ == "__main__":
    main()
