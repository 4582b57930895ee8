"""Compare variants of training: the same pairs, the same seeds, the same bootstrap draws.

Nothing here is chosen on the test pairs: epochs and the baselines' settings are chosen on validation pairs, and the
test pairs are only measured. Every training has its own folder of state, so that repeating a comparison trains nothing
again.
"""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
import torch

from vmnet_pipeline.errors import ParameterError, TrainingError, describe_validation
from vmnet_pipeline.evaluation.bootstrap import bootstrap_means, bound_constant, find_intervals
from vmnet_pipeline.evaluation.ranks import rank_both
from vmnet_pipeline.evaluation.results import DIRECTIONS
from vmnet_pipeline.experiments.baselines import fit_baseline
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.progress import track
from vmnet_pipeline.training.ensembles import EpochLog, train_ensemble
from vmnet_pipeline.training.setup import model_config_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.params import CompareParams, TrainParams
    from vmnet_pipeline.progress import Progress
    from vmnet_pipeline.training import TrainingResult
    from vmnet_pipeline.types import Array, PairArrays

Sides: TypeAlias = "tuple[Array, Array]"
Kind = Literal["baseline", "variant", "ensemble"]

logger = logging.getLogger(__name__)

ZERO_SHOT = "zero-shot"
"""Name of the row of the network without training."""


class RunLog(EpochLog, Protocol):
    """Destination of the curves and metrics of one training."""

    def metrics(self, metrics: Mapping[str, float]) -> None:
        """Log results by name."""
        ...


OpenLog: TypeAlias = "Callable[[str, Mapping[str, Any]], AbstractContextManager[RunLog]]"


@dataclass(frozen=True)
class Row:
    """One line of a comparison.

    Attributes:
        name: Of the variant or baseline.
        kind: What it is; `ensemble` joins the networks of all seeds of a variant.
        values: (n_seeds, n_metrics, n_queries) float64, what each test query contributes to each metric.
        median_ranks: (n_seeds, 2) per direction.
        val_mrr: Mean reciprocal rank of both directions on the validation pairs, per seed; empty where a network has
            learnt from them.
        seeds: Of the trainings; empty for what does not depend on a seed.
        best_epochs: Kept epoch, per seed.
        seconds: Training time, per seed.
    """

    name: str
    kind: Kind
    values: Array
    median_ranks: Array
    val_mrr: tuple[float, ...]
    seeds: tuple[int, ...] = ()
    best_epochs: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()


@dataclass
class _Trained:
    """Embeddings by the networks of one variant, one entry per seed."""

    val: list[Sides] = field(default_factory=list)
    test: list[Sides] = field(default_factory=list)
    best_epochs: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def plan_variants(params: CompareParams, train_params: TrainParams, train: PairArrays) -> dict[str, list[TrainParams]]:
    """List the settings of every training by variant, and check them before anything is trained.

    Raises:
        ParameterError: The settings of a variant cannot be used, on these pairs.
    """
    from pydantic import ValidationError

    plan = {}
    for name, settings in params.variants.items():
        try:
            plan[name] = [train_params.override({**settings, "seed": seed}) for seed in params.seeds]
            with torch.device("meta"):
                build_model(**model_config_of(plan[name][0], train))
        except ParameterError as error:
            raise ParameterError(f"compare.variants.{name}: {error}") from error
        except ValidationError as error:
            raise ParameterError(f"compare.variants.{name}: {describe_validation(error)}") from error
    return plan


def compare_variants(
    subsets: Mapping[str, PairArrays],
    train_params: TrainParams,
    params: CompareParams,
    *,
    state_dir: Path,
    open_log: OpenLog,
    zero_shot: VMNet | None = None,
) -> dict[str, Any]:
    """Train every variant with every seed; measure them and the baselines on the test pairs.

    Args:
        subsets: Pairs of `train`, `val` and `test`.
        train_params: Settings that the variants change.
        params: What is compared.
        state_dir: Folder of the states, with one folder per variant and seed.
        open_log: Opens the log of a training, given its name and settings.
        zero_shot: The network of the backends without training, a baseline of its own; None where there is none.

    Returns:
        JSON-able: how it was measured, and one row per variant, ensemble and baseline, see `summarise_rows`.

    Raises:
        ParameterError: The settings of a variant cannot be used.
        TrainingError: A subset has fewer than two pairs, or a training fails; the message names the variant.
    """
    for name in ("train", "val", "test"):
        if (n := len(subsets[name])) < 2:
            raise TrainingError(f"A comparison needs at least 2 pairs in {name}, not {n}; give it a larger share.")
    plan = plan_variants(params, train_params, subsets["train"])
    rows = []
    with track("comparison", sum(map(len, plan.values())), log_every_s=0.0) as progress:
        counted = _count_trainings(open_log, progress)
        for name, trainings in plan.items():
            rows += measure_variant(name, trainings, subsets, params, state_dir=state_dir, open_log=counted)
    for name in params.baselines:
        logger.info("baseline %s", name)
        rows.append(measure_baseline(name, subsets, params))
    if zero_shot is not None:
        rows.append(measure_zero_shot(zero_shot, subsets, params))
    return summarise_rows(rows, subsets["test"], params) | {
        "sizes": {name: len(pairs) for name, pairs in subsets.items()},
        "settings": {name: trainings[0].model_dump(mode="json") for name, trainings in plan.items()},
    }


def _count_trainings(open_log: OpenLog, progress: Progress) -> OpenLog:
    """Count every training when its log closes; those of members are part of one."""

    @contextmanager
    def open_counted(title: str, settings: Mapping[str, Any]) -> Iterator[RunLog]:
        with open_log(title, settings) as log:
            yield log
        if "variant" in settings:
            progress.advance()

    return open_counted


def measure_variant(
    name: str,
    trainings: Sequence[TrainParams],
    subsets: Mapping[str, PairArrays],
    params: CompareParams,
    *,
    state_dir: Path,
    open_log: OpenLog,
) -> list[Row]:
    """Train a variant with the seeds of `params`, one of `trainings` each; measure it, and the ensemble of its seeds.

    Raises:
        ParameterError: Its settings cannot be used.
        TrainingError: A training fails; the message names the variant.
    """
    return _list_rows(name, _train_variant(name, trainings, subsets, state_dir, params.ks, open_log), subsets, params)


def _train_variant(
    name: str,
    trainings: Sequence[TrainParams],
    subsets: Mapping[str, PairArrays],
    state_dir: Path,
    ks: Sequence[int],
    open_log: OpenLog,
) -> _Trained:
    trained = _Trained()
    for params in trainings:
        title, folder = f"{name}, seed {params.seed}", state_dir / name / f"seed_{params.seed}"
        logger.info("variant %s", title)
        with open_log(title, {"variant": name, "train": params}) as log:
            try:
                result = _train_once(title, params, subsets, folder, log, open_log)
            except (TrainingError, ParameterError) as error:
                raise type(error)(f"variant {title}: {error}") from error
            _embed_subsets(trained, result, subsets)
            values = list_contributions(rank_pairs(*trained.test[-1], subsets["test"]), ks)
            log.metrics(dict(zip(list_metrics(ks), values.mean(axis=1).tolist(), strict=True)))
    return trained


def _train_once(
    title: str, params: TrainParams, subsets: Mapping[str, PairArrays], folder: Path, log: RunLog, open_log: OpenLog
) -> TrainingResult:
    def open_member(number: int, name: str, member: TrainParams) -> AbstractContextManager[RunLog]:
        return open_log(f"{title}, {name or f'member {number + 1}'}", {"train": member}) if number else nullcontext(log)

    train, val = subsets["train"], subsets["val"]
    return train_ensemble(train, val, params, state_dir=folder, open_log=open_member).network


def _embed_subsets(trained: _Trained, result: TrainingResult, subsets: Mapping[str, PairArrays]) -> None:
    model, learnt_from_val = result.build(), len(result.held_out) > 1
    for name, embedded in (("val", trained.val), ("test", trained.test)):
        pairs = subsets[name]
        if name == "val" and learnt_from_val:  # its figures are those of cross-validation
            continue
        if name == "val" and len(result.held_out) == 1:  # the network itself has learnt from these pairs
            embedded.append((result.held_out[0].music, result.held_out[0].video))
            continue
        embedded.append((embed_arrays(model, music=pairs.music), embed_arrays(model, video=pairs.video)))
    trained.best_epochs.append(result.best_epoch)
    trained.seconds.append(sum(record.seconds for record in result.history))


def _list_rows(name: str, trained: _Trained, subsets: Mapping[str, PairArrays], params: CompareParams) -> list[Row]:
    """Measure a variant, and the ensemble of its seeds."""
    details: dict[str, Any] = {"best_epochs": tuple(trained.best_epochs), "seconds": tuple(trained.seconds)}
    row = _make_row(name, "variant", trained.val, trained.test, subsets, params.ks, seeds=params.seeds, **details)
    if len(params.seeds) < 2:
        return [row]
    joint = [_join_embeddings(trained.val)] if trained.val else [], [_join_embeddings(trained.test)]
    together: dict[str, Any] = {"seeds": params.seeds, "seconds": (math.fsum(trained.seconds),)}
    return [row, _make_row(f"{name} x{len(params.seeds)}", "ensemble", *joint, subsets, params.ks, **together)]


def _join_embeddings(members: Sequence[Sides]) -> Sides:
    """As `models.ensemble` does it: the product of joint embeddings is the mean of the members' products."""
    scale = 1.0 / math.sqrt(len(members))
    music, video = (np.concatenate([pair[side] for pair in members], axis=1) * np.float32(scale) for side in (0, 1))
    return music, video


def measure_baseline(name: str, subsets: Mapping[str, PairArrays], params: CompareParams) -> Row:
    """Fit a baseline and measure it; chance with every seed of `params`.

    Raises:
        PairsError: There are fewer than two training or validation pairs.
    """
    seeds = params.seeds if name == "chance" else ()
    embedders = [fit_baseline(name, subsets["train"], subsets["val"], seed) for seed in seeds or (0,)]
    val = [embed(subsets["val"]) for embed in embedders]
    test = [embed(subsets["test"]) for embed in embedders]
    return _make_row(name, "baseline", val, test, subsets, params.ks, seeds=seeds)


def measure_zero_shot(network: VMNet, subsets: Mapping[str, PairArrays], params: CompareParams) -> Row:
    """Measure a network that nothing was fitted for."""
    val, test = (
        (embed_arrays(network, music=pairs.music), embed_arrays(network, video=pairs.video))
        for pairs in (subsets["val"], subsets["test"])
    )
    return _make_row(ZERO_SHOT, "baseline", [val], [test], subsets, params.ks)


def _make_row(
    name: str,
    kind: Kind,
    val: Sequence[Sides],
    test: Sequence[Sides],
    subsets: Mapping[str, PairArrays],
    ks: Sequence[int],
    **details: Any,
) -> Row:
    on_val = [1.0 / rank_pairs(*pair, subsets["val"]) for pair in val]
    ranks = [rank_pairs(*pair, subsets["test"]) for pair in test]
    return Row(
        name,
        kind,
        values=np.stack([list_contributions(item, ks) for item in ranks]),
        median_ranks=np.stack([np.median(item, axis=1) for item in ranks]),
        val_mrr=tuple(float(item.mean()) for item in on_val),
        **details,
    )


def rank_pairs(music: Array, video: Array, pairs: PairArrays) -> Array:
    """(2, n) ranks in the whole gallery, ties by mid-rank: music -> video and video -> music."""
    return np.stack([result.ranks for result in rank_both(music, video, pairs.ids, pairs.ids)])


def list_contributions(ranks: Array, ks: Sequence[int]) -> Array:
    """(n_metrics, n) float64: what each query adds to each of `list_metrics`, from (2, n) ranks."""
    per_direction = [np.stack([*(ranks[side] <= k for k in ks), 1.0 / ranks[side]]) for side in (0, 1)]
    return np.concatenate([*per_direction, np.mean(per_direction, axis=0)]).astype(np.float64)


def list_metrics(ks: Sequence[int]) -> list[str]:
    """Names of the metrics: per direction and for their mean, Recall@K and MRR."""
    names = [*(f"recall_at_{k}" for k in ks), "mrr"]
    return [f"{direction}/{name}" for direction in (*DIRECTIONS, "both") for name in names]


def summarise_rows(rows: Sequence[Row], test: PairArrays, params: CompareParams) -> dict[str, Any]:
    """Compute means with intervals, and the paired difference of every row to `params.against`.

    All rows are measured on the same test pairs, whose groups the bootstrap draws.

    Returns:
        `metrics` and `rows`; each row has `figures` (metric to `value`, `low`, `high`), the same as `difference` to the
        row `against`, `per_seed` (metric to values), `median_rank` per direction and `val_mrr`. Shares are in [0, 1].
    """
    metrics = list_metrics(params.ks)
    against = params.against or next(iter(params.variants))
    place = next(index for index, row in enumerate(rows) if row.name == against)
    draws = bootstrap_means([row.values for row in rows], test.groups, params.n_resamples, params.seed)
    means = np.stack([row.values.mean(axis=(0, 2)) for row in rows])  # (rows, metrics)
    n_groups, base = len(set(test.groups)), rows[place]

    def estimate(row: Row, mean: Array, draw: Array, *, against: Row | None = None) -> dict[str, Any]:
        bounds = _bound_estimates(row, against, n_groups, params)
        return _list_estimates(metrics, mean, draw, bounds, params.confidence_level)

    return {
        "n_groups": n_groups,
        "seeds": list(params.seeds),
        "against": against,
        "n_resamples": params.n_resamples,
        "confidence_level": params.confidence_level,
        "ks": list(params.ks),
        "rows": [
            {
                "name": row.name,
                "kind": row.kind,
                "seeds": list(row.seeds),
                "best_epochs": list(row.best_epochs),
                "seconds": list(row.seconds),
                "val_mrr": list(row.val_mrr),
                "median_rank": dict(zip(DIRECTIONS, row.median_ranks.mean(axis=0).tolist(), strict=True)),
                "per_seed": dict(zip(metrics, row.values.mean(axis=2).T.tolist(), strict=True)),
                "figures": estimate(row, mean, draw),
                "difference": estimate(row, mean - means[place], draw - draws[:, place], against=base),
            }
            for row, mean, draw in zip(rows, means, draws.swapaxes(0, 1), strict=True)
        ],
    }


def _bound_estimates(
    row: Row, against: Row | None, n_groups: int, params: CompareParams
) -> dict[str, tuple[float, float]]:
    """Intervals where all draws are alike: no hit or only hits, or the same for every query as another row has."""
    bounds: dict[str, tuple[float, float]] = {}
    certain = tuple(f"/recall_at_{k}" for k in params.ks if k >= row.values.shape[-1])  # 1 by definition
    for place, name in enumerate(list_metrics(params.ks)):
        values = row.values[:, place].mean(axis=0)
        if against is not None:
            values = np.abs(values - against.values[:, place].mean(axis=0))
        found = (
            None
            if row is against or name.endswith(certain)
            else bound_constant(values, n_groups, params.confidence_level)
        )
        if found is not None and (against is None or found[0] == 0.0):
            bounds[name] = found if against is None else (-found[1], found[1])
    return bounds


def _list_estimates(
    metrics: Sequence[str], values: Array, draws: Array, bounds: Mapping[str, tuple[float, float]], level: float
) -> dict[str, Any]:
    """List value and interval of each metric, that of `bounds` where it has one; no interval without draws."""
    intervals = find_intervals(draws, level) if len(draws) else [(None, None)] * len(metrics)
    found = {**dict(zip(metrics, intervals, strict=True)), **(bounds if len(draws) else {})}
    return {
        name: {"value": float(value), "low": found[name][0], "high": found[name][1]}
        for name, value in zip(metrics, values, strict=True)
    }
