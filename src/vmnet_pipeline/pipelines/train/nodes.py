"""Nodes of the `train` pipeline."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import ParameterError, TrainingError
from vmnet_pipeline.features.store import FeatureStore
from vmnet_pipeline.pairs.packing import FeatureSide, PairFiles, PairPlan
from vmnet_pipeline.params import SplitParams, TrainParams
from vmnet_pipeline.pipelines.side_features import SideFeatures, take_side
from vmnet_pipeline.reference.layout import ReferenceLayout
from vmnet_pipeline.types import EpochRecord, PairArrays

if TYPE_CHECKING:
    from pandas import DataFrame

    from vmnet_pipeline.models.checkpoints import Checkpoint, StartPoint
    from vmnet_pipeline.pipelines.train.step_log import StepLog
    from vmnet_pipeline.training import TrainingResult
    from vmnet_pipeline.training.ensembles import EpochLog
else:  # Kedro evaluates annotations; these are slow to import
    DataFrame = Checkpoint = StartPoint = StepLog = Any

logger = logging.getLogger(__name__)

Ids = tuple[str, ...]


def pack_pairs(
    manifest: DataFrame,
    train_ids: Ids,
    val_ids: Ids,
    test_ids: Ids,
    train_params: TrainParams,
    *features: FeatureStore | dict[str, Any],
) -> PairPlan:
    """Choose the ids that have all features; saving the result pools, joins and packs them one by one.

    Features keep their time where the towers take sequences.

    Args:
        features: The store of every backend, each followed by the parameters of the backend.

    Raises:
        PairsError: Nothing is left for training, or not two pairs for testing.
        ParameterError: A tower takes sequences, and its side has several backends.
    """
    from vmnet_pipeline.ingestion.splits import Split
    from vmnet_pipeline.pairs.packing import check_testable, plan_pairs

    pairs = plan_pairs(
        _describe_side(take_side("music", features), train_params.music_steps),
        _describe_side(take_side("video", features), train_params.video_steps),
        Split(train_ids, val_ids, test_ids),
        dict(zip(manifest["id"], manifest["group"], strict=True)),
    )
    for backend, ids in _list_missing(pairs).items():
        logger.warning("%d id(s) of the split have no %s features and are skipped: %s", len(ids), backend, ids[:5])
    check_testable(pairs.split.test)
    return pairs


def _describe_side(features: SideFeatures, max_steps: int | None) -> FeatureSide:
    from vmnet_pipeline.backends.joint import JointBackend

    backend = features.backend
    if not isinstance(backend, JointBackend):
        return FeatureSide(backend.name, features.store, backend.pool, max_steps=max_steps)
    if max_steps:
        raise ParameterError(
            f"a tower over sequences takes the features of one backend, and this variant joins {backend.name}; use "
            "another tower, or a variant with one backend on this side, as variant=vmnet_musicnn"
        )
    return FeatureSide(backend.name, features.store, backend.pool, measure=backend.measure)


def _list_missing(pairs: PairPlan) -> dict[str, list[str]]:
    """Backend to the ids that have no feature of it."""
    missing: dict[str, list[str]] = {}
    for item_id, backends in pairs.left_out.items():
        for backend in backends:
            missing.setdefault(backend, []).append(item_id)
    return missing


def pack_reference_pairs(
    reference_files: ReferenceLayout, split_params: SplitParams, train_params: TrainParams
) -> PairPlan:
    """Plan the packing of the user's own feature files; saving the result reads, checks and packs them.

    Without a val.csv some training groups are held out for model selection, except under `protocol: reference`.

    Raises:
        PairsError: The files cannot be used, or there is one test pair.
    """
    from vmnet_pipeline.pairs.packing import check_testable
    from vmnet_pipeline.reference.planning import plan_reference_pairs

    pairs = plan_reference_pairs(
        reference_files,
        music_steps=train_params.music_steps,
        video_steps=train_params.video_steps,
        val_share=split_params.val_share / max(split_params.train_share + split_params.val_share, 1e-9),
        seed=split_params.seed,
        holds_out_val=train_params.protocol != "reference",
        allows_repeats=train_params.protocol == "reference",
    )
    check_testable(pairs.split.test)
    return pairs


def train_network(
    pairs: PairFiles, training_state: Path, params: TrainParams
) -> tuple[Checkpoint, list[dict[str, Any]]]:
    """Train on the train subset, keep the epoch that is best on the val subset; several members make one network.

    Args:
        training_state: Folder that an interrupted run continues from.

    Returns:
        The checkpoint, and one row per epoch (and member).

    Raises:
        TrainingError: Too few pairs (less than a batch, under `protocol: reference`), or the loss is not finite.
        CheckpointError: The checkpoint of `start_from` is missing, or takes other features.
    """
    from vmnet_pipeline.models.checkpoints import Checkpoint, read_git_revision, read_versions
    from vmnet_pipeline.storage.paths import is_remote
    from vmnet_pipeline.training.calibration import calibrate_result
    from vmnet_pipeline.training.ensembles import list_members, train_ensemble
    from vmnet_pipeline.training.fusion import weigh_parts
    from vmnet_pipeline.training.terms import measure_terms

    train, val = pairs.subset("train"), pairs.subset("val")
    _check_sizes(train, params)
    start = _open_start(pairs, params)
    train = replace(train, parts=start.checkpoint.parts) if start else weigh_parts(train, val, params)
    template = Checkpoint(
        model_config={},
        tensors={},
        fingerprints=pairs.fingerprints,
        params=params.model_dump(mode="json"),
        git_revision=read_git_revision(Path() if is_remote(training_state) else training_state),
        versions=read_versions(),
        parts=train.parts,
    )
    ensemble = train_ensemble(
        train,
        val,
        params,
        state_dir=training_state,
        open_log=partial(_log_member, training_state.with_name("logs"), len(list_members(params))),
        watch=partial(_watch_steps, training_state.parent, params, pairs.subset("test"), template),
        start=start,
    )
    result = ensemble.network
    checkpoint = replace(
        template,
        model_config=result.model_config,
        tensors=result.tensors,
        best_epoch=result.best_epoch,
        metrics=result.metrics,
        calibration=calibrate_result(result, val, params, train=train),
        terms=measure_terms(result.build(), train, pairs.fingerprints, params.seed),
    )
    return checkpoint, _list_epochs(ensemble.members)


def make_untrained(*backend_params: dict[str, Any]) -> tuple[Checkpoint, list[dict[str, Any]]]:
    """The network of backends that share a space, or text; nothing is trained, and no pairs are needed.

    Args:
        backend_params: Parameters of one backend of each side, in any order.

    Returns:
        The checkpoint, and a history without epochs.

    Raises:
        ParameterError: A side has several backends, or one without a joint space.
        WeightsError: The weights of a text tower are not available.
    """
    from vmnet_pipeline.backends.registry import make_backend
    from vmnet_pipeline.inference.zero_shot import make_zero_shot
    from vmnet_pipeline.types import MODALITY_OF

    made = [make_backend(params) for params in backend_params]
    by_side = {side: [own for own in made if own.modality == modality] for side, modality in MODALITY_OF.items()}
    for side, own in by_side.items():
        if len(own) != 1:
            names = ", ".join(backend.name for backend in own)
            raise ParameterError(f"zero_shot takes one backend of each side, and {side} has {names}; name one")
    return make_zero_shot({side: own[0] for side, own in by_side.items()}), []


def _open_start(pairs: PairFiles, params: TrainParams) -> StartPoint | None:
    if params.start_from is None:
        return None
    from vmnet_pipeline.inference.embedder import open_start
    from vmnet_pipeline.models.checkpoints import check_fingerprints

    start = open_start(params.start_from)
    check_fingerprints(start.checkpoint, pairs.fingerprints)
    return start


def _watch_steps(
    folder: Path, params: TrainParams, test: PairArrays, template: Checkpoint, number: int
) -> StepLog | None:
    """The step log of a member; None if nothing is logged between steps."""
    if params.curve_every_steps is None and params.keep_every_steps is None:
        return None
    from vmnet_pipeline.pipelines.train.step_log import StepLog
    from vmnet_pipeline.training.ensembles import list_members

    place = folder if len(list_members(params)) == 1 else folder / f"member_{number + 1}"
    return StepLog(place, params, test, template)


@contextmanager
def _log_member(logs: Path, n_members: int, number: int, name: str, params: TrainParams) -> Iterator[_MemberLog]:
    """Open the log of a network: the run itself, or a child run per member of an ensemble."""
    from vmnet_pipeline.tracking.runs import EventLog, RunLog, child_run

    if n_members == 1:
        yield _MemberLog(RunLog(), EventLog(logs))
        return
    name = name or f"member {number + 1}"
    with child_run(name, {"train": params}) as run_log:
        yield _MemberLog(run_log, EventLog(logs / name.replace(" ", "_")))


class _MemberLog:
    def __init__(self, *logs: EpochLog) -> None:
        self._logs = logs

    def add(self, record: EpochRecord) -> None:
        for log in self._logs:
            log.add(record)

    def finish(self, history: Sequence[EpochRecord]) -> None:
        for log in self._logs:
            log.finish(history)


def _list_epochs(members: Sequence[TrainingResult]) -> list[dict[str, Any]]:
    """One row per epoch; for an ensemble with the number of the member."""
    if len(members) == 1:
        return [record.to_row() for record in members[0].history]
    numbered = enumerate(members, start=1)
    return [{"member": number, **record.to_row()} for number, member in numbered for record in member.history]


def _check_sizes(train: PairArrays, params: TrainParams) -> None:
    if not len(train):
        raise TrainingError("No training items: give a train.csv with ids and their features.")
    if params.protocol == "reference" and len(train) < params.batch_size:
        raise TrainingError(
            f"{len(train)} training items do not fill one batch of {params.batch_size}, and protocol 'reference' drops "
            f"the last partial batch, so nothing would be trained on. Pass train.batch_size={len(train)} or less."
        )
