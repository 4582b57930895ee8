"""Several networks as one: each is trained, killed and resumed on its own, and they are joined at the end.

Networks of different kinds know different things. Their weights in the joint cosine are those of a grid that rank
validation pairs best; with few pairs, whose validation pairs would be noise, members are fitted in closed form on all
pairs, and weights come from pairs that cross-validation holds out by group.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from vmnet_pipeline.models.checkpoints import split_checkpoint
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.models.ensemble import join_tensors
from vmnet_pipeline.models.kernel_cca import MAX_PAIRS, assign_folds
from vmnet_pipeline.params.training import CLOSED_FORM_TOWERS, SEQUENCE_TOWERS, KernelParams
from vmnet_pipeline.training.data import derive_seed, encode_matches
from vmnet_pipeline.training.few_pairs import find_finite, list_faults
from vmnet_pipeline.training.fusion import has_few_pairs, take_vectors, weigh_parts
from vmnet_pipeline.training.joint_weights import (
    choose_few_weights,
    choose_weights,
    measure_folds,
    rank_held_out,
    weigh_members,
)
from vmnet_pipeline.training.setup import fit_closed_form, train_model
from vmnet_pipeline.training.trainer import HeldOut, TrainingResult
from vmnet_pipeline.training.validation import measure_network
from vmnet_pipeline.training.whitening import settle_whitening
from vmnet_pipeline.types import PairArrays, Sequences

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import TypeAlias

    from torch import Tensor

    from vmnet_pipeline.models.checkpoints import Checkpoint, StartPoint
    from vmnet_pipeline.params import TrainParams
    from vmnet_pipeline.training.trainer import StepCallback
    from vmnet_pipeline.types import EpochRecord, FeatureArray

    OpenMemberLog: TypeAlias = "Callable[[int, str, TrainParams], AbstractContextManager[EpochLog]]"

logger = logging.getLogger(__name__)

N_FOLDS = 5
POOLED_ROWS = 1024


class EpochLog(Protocol):
    """Destination of the curves of one training."""

    def add(self, record: EpochRecord) -> None:
        """Log one epoch as soon as it is done."""
        ...

    def finish(self, history: Sequence[EpochRecord]) -> None:
        """Log the whole history, epochs of interrupted runs included."""
        ...


def list_members(params: TrainParams) -> dict[str, TrainParams]:
    """Settings of each network by name, in the order of training; those of further seeds have a number.

    The first one of a kind has the seed itself, so that more of them can be added to it later.
    """
    listed = {}
    for name, one in params.kinds.items():
        for number in range(1 if one.model.is_closed_form else one.n_members):
            seed = derive_seed(one.seed, number) if number else one.seed
            title = f"{name or 'member'} {number + 1}" if number else name
            listed[title] = one.model_copy(update={"seed": seed, "n_members": 1, "members": {}})
    return listed


def member_folder(folder: Path, number: int) -> Path:
    """Folder of the state of a member; the first one's is that of a network alone."""
    return folder if number == 0 else folder / f"member_{number + 1}"


@dataclass(frozen=True)
class Ensemble:
    """What a training gives.

    Attributes:
        network: All members as one; a member alone as it is.
        members: Each on its own.
    """

    network: TrainingResult
    members: tuple[TrainingResult, ...]


def train_ensemble(
    train: PairArrays,
    val: PairArrays | None,
    params: TrainParams,
    *,
    state_dir: Path,
    open_log: OpenMemberLog,
    watch: Callable[[int], StepCallback | None] = lambda _: None,
    start: StartPoint | None = None,
) -> Ensemble:
    """Train all networks of the settings, one after the other; a rerun after a kill goes on where it was.

    Args:
        train: Training pairs.
        val: Validation pairs.
        params: Settings.
        state_dir: Folder of the states.
        open_log: Number, name and settings of a member to where its curves go.
        watch: Number of a member to what is called after each of its steps.
        start: What `params.start_from` names, read; what comes out is not worse than it on the validation pairs.

    Raises:
        TrainingError: As `train_model`.
        ParameterError: As `train_model`.
    """
    train = train if start else weigh_parts(train, val, params)
    members, few = list_members(params), _list_few(params)
    starts = [] if start is None else split_checkpoint(start.checkpoint)
    is_fitted = all(part.model_config["music_tower"] in CLOSED_FORM_TOWERS for part in starts)
    if few and is_fitted and has_few_pairs(train, val, params):
        n_pairs = len(train) + (0 if val is None else len(val))
        logger.info("%d pairs are few: networks are fitted in closed form on all, weights by cross-validation", n_pairs)
        logger.info("no step is trained, so train.epochs and train.loss do not count; train.protocol=default trains")
        fitted = _fit_few(_concatenate(train, val), few, params.positives_by, state_dir, open_log)
        return fitted if start is None else _keep_better(fitted, start.checkpoint)
    if start is None:
        params = settle_whitening(train, params)
        members = list_members(params)
    if params.members and not is_fitted and not any(_match_start(starts, member) for member in members.values()):
        params = params.model_copy(update={"members": {}})  # a network of another kind is trained on as it is
        members = {"": params}
    trained = []
    for number, (name, member) in enumerate(members.items()):
        begin = start
        if params.members and start is not None:
            part = None if member.model.is_closed_form else _match_start(starts, member)
            begin = None if part is None else replace(start, checkpoint=part)
        settings = member if begin is not None else member.model_copy(update={"start_from": None})
        usable = None if val is None else _in_form(val, member)
        with open_log(number, name, settings) as log:
            result = train_model(
                _in_form(train, member), usable, settings, state_dir=member_folder(state_dir, number),
                on_epoch=log.add, on_step=watch(number), start=begin,
            )  # fmt: skip
            log.finish(result.history)
        trained.append(result)
    if not params.members:
        return Ensemble(join_results(trained, val, params), tuple(trained))
    joint = _join_kinds(trained, train, val, params, state_dir)
    return Ensemble(joint if start is None else _not_worse(joint, start.checkpoint, val, params), tuple(trained))


def join_results(results: Sequence[TrainingResult], val: PairArrays | None, params: TrainParams) -> TrainingResult:
    """Join trained networks of one kind: their weights, and histories one after the other; best epoch 0."""
    if len(results) == 1:
        return results[0]
    config = {**results[0].model_config, "n_members": len(results)}
    joint = _join(results, join_tensors([result.tensors for result in results]), config)
    if val is not None and len(val) >= 2:
        joint.metrics.update(measure_network(joint.build(), val, params.positives_by))
    return joint


def _join_kinds(
    results: Sequence[TrainingResult], train: PairArrays, val: PairArrays | None, params: TrainParams, state_dir: Path
) -> TrainingResult:
    """Join networks of different kinds by weights that validation pairs choose; then those can be learnt from, too."""
    names, members = list(list_members(params)), list_members(params).values()
    if val is None or len(val) < 2:
        return _join_weighted(results, np.full(len(results), 1.0 / len(results)), names)
    codes = encode_matches(val, params.positives_by)
    each = zip(results, members, strict=True)
    held_out = [_hold_out(result, _in_form(val, member), codes) for result, member in each]
    weights = choose_weights([held_out])
    whole = weigh_members(held_out, weights)
    joint = _join_weighted(_fit_on_all(results, train, val, params, state_dir), weights, names)
    return replace(joint, metrics=measure_folds([whole]), held_out=(whole,))


def _fit_on_all(
    results: Sequence[TrainingResult], train: PairArrays, val: PairArrays | None, params: TrainParams, state_dir: Path
) -> list[TrainingResult]:
    """Members in closed form again, with their settings, on training and validation pairs; others as they are."""
    again = list(results)
    if val is None or not len(val):
        return again
    for number, member in enumerate(list_members(params).values()):
        if member.model.is_closed_form:
            losses = results[number].history[0].losses
            chosen = KernelParams(width=losses.get("width"), ridge=losses.get("ridge"))
            settled = member.model_copy(update={"kernel": chosen, "start_from": None})
            folder = state_dir / f"all_{number + 1}"
            again[number] = train_model(_in_form(_concatenate(train, val), settled), None, settled, state_dir=folder)
    return again


def _join(results: Sequence[TrainingResult], tensors: dict[str, Tensor], config: dict[str, Any]) -> TrainingResult:
    history = tuple(record for result in results for record in result.history)
    return TrainingResult(tensors, config, history, best_epoch=0, metrics={}, resumed_from=0)


def _join_weighted(results: Sequence[TrainingResult], weights: np.ndarray, names: Sequence[str]) -> TrainingResult:
    """One network of those that have a weight; it takes sequences if one of them does."""
    described = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, weights, strict=True))
    logger.info("weights of the members: %s", described)
    kept = [(result, float(weight)) for result, weight in zip(results, weights, strict=True) if weight > 0]
    if len(kept) == 1:
        return replace(
            kept[0][0],
            metrics={},
            best_epoch=0,
            history=tuple(record for result in results for record in result.history),
        )
    configs = [result.model_config for result, _ in kept]
    leading = max(configs, key=lambda config: config["music_tower"] in SEQUENCE_TOWERS)
    tensors = join_tensors([result.tensors for result, _ in kept], [weight for _, weight in kept])
    return _join(results, tensors, {**leading, "members": configs})


def _hold_out(result: TrainingResult, pairs: PairArrays, codes: np.ndarray) -> HeldOut:
    model = result.build()
    music, video = embed_arrays(model, music=pairs.music), embed_arrays(model, video=pairs.video)
    return HeldOut(music, video, codes, pairs.groups)


# --- few pairs

CAUTIOUS = {"music_tower": "reduced", "video_tower": "reduced"}
MAX_FEW_DIM = 64  # of kernel towers: a few hundred pairs determine no more variates


def _has_closed_form(params: TrainParams) -> bool:
    return params.model.is_closed_form or params.model.music_tower == params.model.video_tower == "canonical"


def _list_few(params: TrainParams) -> dict[str, TrainParams]:
    """Members that few pairs are enough for: the one that chooses nothing, and those of the settings in closed form."""
    closed = {name: member for name, member in list_members(params).items() if _has_closed_form(member)}
    if not closed:
        return {}
    first = next(iter(closed.values()))
    cautious = first.override({"model": CAUTIOUS})
    listed = {"reduced": cautious, **closed} if "reduced" not in closed else closed
    return {name: _limit(member) for name, member in listed.items()}


def _limit(member: TrainParams) -> TrainParams:
    dim = min(member.model.embedding_dim, MAX_FEW_DIM) if member.model.is_closed_form else member.model.embedding_dim
    model = member.model.model_copy(update={"embedding_dim": dim})
    return member.model_copy(update={"epochs": 0, "start_from": None, "model": model})


def _fit_few(
    pairs: PairArrays,
    members: Mapping[str, TrainParams],
    positives_by: Literal["id", "group", "position"],
    state_dir: Path,
    open_log: OpenMemberLog,
) -> Ensemble:
    """Closed forms on all usable pairs; weights and figures from pairs that cross-validation holds out."""
    finite = find_finite(pairs)
    for fault in list_faults(pairs, finite):
        logger.warning("%s", fault)
    pairs = pairs if finite.all() else _take(pairs, finite)
    held_out = _hold_out_folds(pairs, members, positives_by)
    weights = choose_few_weights(held_out) if held_out else np.eye(len(members))[0]
    trained = []
    for number, (name, member) in enumerate(members.items()):
        with open_log(number, name, member) as log:
            result = train_model(_in_form(pairs, member), None, member, state_dir=member_folder(state_dir, number))
            log.finish(result.history)
        trained.append(result)
    whole = _join_weighted(trained, weights, list(members))
    joint = tuple(weigh_members(fold, weights) for fold in held_out)
    return Ensemble(replace(whole, held_out=joint, metrics=measure_folds(joint) if joint else {}), tuple(trained))


def _hold_out_folds(
    pairs: PairArrays, members: Mapping[str, TrainParams], positives_by: Literal["id", "group", "position"]
) -> list[list[HeldOut]]:
    """What members make of the pairs of every fold that they are not fitted to."""
    rng = np.random.default_rng((next(iter(members.values())).seed, 2))
    folds, codes = assign_folds(encode_matches(pairs, "group"), N_FOLDS, rng), encode_matches(pairs, positives_by)
    usable = [folds == fold for fold in range(int(folds.max()) + 1)]
    usable = [is_out for is_out in usable if is_out.sum() >= 2 and (~is_out).sum() >= 2]
    forms = [(member, _in_form(pairs, member)) for member in members.values()]
    return [
        [
            _hold_out(fit_closed_form(_take(form, ~is_out), member), _take(form, is_out), codes[is_out])
            for member, form in forms
        ]
        for is_out in usable
    ]


def _concatenate(train: PairArrays, val: PairArrays | None) -> PairArrays:
    """Training and validation pairs together, in memory; as many as closed forms use."""
    if val is None or not len(val):
        return train
    kept = max(1, MAX_PAIRS - len(val))
    if len(train) > kept:
        pooled = replace(train, music=_pool(train.music), video=_pool(train.video))
        train = _take(pooled, _spaced(len(train), kept))
    return replace(
        train,
        ids=(*train.ids, *val.ids),
        groups=(*train.groups, *val.groups),
        music=_stack(train.music, val.music),
        video=_stack(train.video, val.video),
    )


def _stack(first: FeatureArray, second: FeatureArray) -> np.ndarray:
    return np.concatenate([np.asarray(_pool(part), dtype=np.float32) for part in (first, second)])


def _spaced(n: int, kept: int) -> np.ndarray:
    chosen = np.zeros(n, dtype=bool)
    chosen[np.arange(kept) * n // kept] = True
    return chosen


def _take(pairs: PairArrays, chosen: np.ndarray) -> PairArrays:
    rows = np.flatnonzero(chosen)
    return replace(
        pairs,
        ids=tuple(pairs.ids[row] for row in rows),
        groups=tuple(pairs.groups[row] for row in rows),
        music=pairs.music[rows],  # type: ignore[index]
        video=pairs.video[rows],  # type: ignore[index]
    )


# --- forms and starts


def _in_form(pairs: PairArrays, params: TrainParams) -> PairArrays:
    """Pairs as a member takes them: sequences are averaged for towers that take pooled features."""
    music = pairs.music if params.model.music_steps else _pool(pairs.music)
    video = pairs.video if params.model.video_steps else _pool(pairs.video)
    return replace(pairs, music=music, video=video)


def _pool(features: FeatureArray) -> np.ndarray:
    if not isinstance(features, Sequences):
        return features
    starts = range(0, len(features), POOLED_ROWS)
    blocks = (np.arange(start, min(start + POOLED_ROWS, len(features))) for start in starts)
    return np.concatenate([take_vectors(features, rows) for rows in blocks])


def _match_start(starts: Sequence[Checkpoint], params: TrainParams) -> Checkpoint | None:
    """The part of a start that a member goes on from: that of the same towers."""
    towers = (params.model.music_tower, params.model.video_tower)
    for part in starts:
        if towers == (part.model_config["music_tower"], part.model_config["video_tower"]):
            return part
    return None


def _keep_better(fitted: Ensemble, start: Checkpoint) -> Ensemble:
    """What was fitted to few pairs, or the start where that was better on those held out from it, relative to chance.

    The start may have been fitted to some of these pairs, so its figures are those that it was saved with.
    """
    network, known = fitted.network, start.calibration
    if known is None or not network.held_out:
        return fitted
    ranked = [rank_held_out(fold) for fold in network.held_out]
    chance = np.average([(1.0 / np.arange(1, len(part) + 1)).mean() for part in ranked], weights=[*map(len, ranked)])
    if known.mrr / known.mrr_chance <= np.concatenate(ranked).mean() / chance:
        return fitted
    logger.info("the checkpoint of start_from did better on pairs held out from it than what was fitted, and is kept")
    kept = replace(network, tensors=start.tensors, model_config=start.model_config, metrics=dict(start.metrics))
    return replace(fitted, network=replace(kept, held_out=(), best_epoch=0))


def _not_worse(joint: TrainingResult, start: Checkpoint, val: PairArrays | None, params: TrainParams) -> TrainingResult:
    """What was trained, or the start where that ranks validation pairs better.

    A start with a closed form has learnt from validation pairs, so that the figure it was saved with counts instead.
    """
    if val is None or len(val) < 2 or not joint.metrics:
        return joint
    before = replace(joint, tensors=start.tensors, model_config=start.model_config, held_out=())
    has_seen_val = any(part.model_config["music_tower"] in CLOSED_FORM_TOWERS for part in split_checkpoint(start))
    metrics = dict(start.metrics) if has_seen_val else measure_network(before.build(), val, params.positives_by)
    if metrics.get("mrr", 0.0) <= joint.metrics["mrr"]:
        return joint
    logger.info("the checkpoint of start_from ranks the validation pairs better than what was trained, and is kept")
    return replace(before, metrics=metrics)
