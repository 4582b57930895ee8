"""Search for training settings with Optuna: resumable, pruned, judged on validation pairs only.

The study is an SQLite file. A killed search resumes: its unfinished trial is repeated with the same values, from the
last finished epoch. The values of a trial depend only on the seed and on the trials before it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import ParameterError, TuningError, VmnetError, describe_validation
from vmnet_pipeline.training import train_model
from vmnet_pipeline.training.data import digest_pairs
from vmnet_pipeline.training.state import NEUTRAL_PARAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

    from vmnet_pipeline.experiments.comparison import OpenLog, RunLog
    from vmnet_pipeline.params import SearchDimension, TrainParams, TuneParams
    from vmnet_pipeline.types import EpochRecord, PairArrays

STUDY_FILE = "study.db"
STUDY_NAME = "tune"
# What can go wrong in one trial because of its settings; anything else, such as a full disk, ends the run.
TRIAL_ERRORS = (VmnetError, ArithmeticError, MemoryError, RuntimeError, ValueError)

logger = logging.getLogger(__name__)


def search_settings(
    train: PairArrays,
    val: PairArrays,
    train_params: TrainParams,
    params: TuneParams,
    *,
    folder: Path,
    open_log: OpenLog,
) -> dict[str, Any]:
    """Run the missing trials; the objective is the MRR of both directions on the validation pairs.

    Each trial trains one network, with settings that change `train_params`. `folder` holds the study and the state of
    the running trial; `open_log` opens the log of a trial, given its name and settings.

    Returns:
        JSON-able: `trials`, one row each (number, state, value, epochs, ...); `best`, the best row; `train`, the
        settings of the best trial as they can be given.

    Raises:
        ParameterError: A setting of the space is unknown or has a value that it cannot have.
        TuningError: The study belongs to other data or settings, another process works on it, or too many trials fail.
    """
    if len(val) < 2:
        raise TuningError(f"A search needs at least 2 validation pairs, not {len(val)}; give val a larger share.")
    check_space(params, train_params)
    identity = _identify(train, val, train_params, params)
    with _hold_lock(folder), _open_study(folder, identity) as study:
        _retry_interrupted(study)
        while (n_left := params.n_trials - _count_done(study)) > 0:
            logger.info("search: %d of %d trials left", n_left, params.n_trials)
            trial = _ask(study, params)
            settings = _settings_of(trial.params, train_params, params)
            with open_log(f"trial {trial.number}", {"train": settings}) as log:
                _run_trial(study, trial, settings, (train, val), folder, log)
            _check_failures(study, params)
        return _summarise(study, train_params, params)


# --- the space


def check_space(params: TuneParams, train_params: TrainParams) -> None:
    """Try both ends of every range, and every choice, before any trial.

    Raises:
        ParameterError: A name is unknown, or a value is not possible.
    """
    from pydantic import ValidationError

    for name, dimension in params.space.items():
        ends = (dimension.low, dimension.high)
        for value in dimension.choices if dimension.choices is not None else ends:
            try:
                settings = _settings_of({name: value}, train_params, params)
            except ValidationError as error:
                message = describe_validation(error)
                raise ParameterError(f"tune.space.{name}: {value!r} is not possible: {message}") from error
            if settings.n_members != 1:
                raise ParameterError("A search trains one network per trial: leave n_members out of tune.")


def _settings_of(values: Mapping[str, Any], train_params: TrainParams, params: TuneParams) -> TrainParams:
    settings = train_params.model_copy(update={"n_members": 1, "members": {}}).override(params.fixed)
    for name, value in values.items():
        settings = settings.override(_nest(name, value))
    return settings


def _nest(name: str, value: Any) -> dict[str, Any]:
    """`loss.margin` and a value to `{"loss": {"margin": value}}`."""
    first, _, rest = name.partition(".")
    return {first: _nest(rest, value) if rest else value}


def _distribution(dimension: SearchDimension) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    low, high = dimension.low, dimension.high
    if dimension.choices is not None:
        return CategoricalDistribution(dimension.choices)
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=dimension.log)
    assert low is not None and high is not None  # noqa: S101 - narrows the type; checked by the parameter model
    return FloatDistribution(low, high, log=dimension.log)


# --- the study


@contextmanager
def _open_study(folder: Path, identity: dict[str, str]) -> Iterator[Study]:
    import optuna

    from vmnet_pipeline.storage.sqlite import allow_weak_disks

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / STUDY_FILE
    allow_weak_disks()
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
        study = optuna.create_study(storage=storage, study_name=STUDY_NAME, direction="maximize", load_if_exists=True)
        known = {name: study.user_attrs.get(name) for name in identity}
    except Exception as error:  # SQLAlchemy's, Alembic's and Optuna's own, which share no root
        raise TuningError(f"{path} cannot be read as a study ({error}); move it away or remove it.") from error
    try:
        other = [name for name, digest in identity.items() if known[name] not in (None, digest)]
        if other:
            raise TuningError(
                f"{path} is a search with other {' and '.join(other)}, and results of both cannot be compared. Move it "
                "away or remove it, or go back to what it was made with."
            )
        for name, digest in identity.items():
            study.set_user_attr(name, digest)
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


@contextmanager
def _hold_lock(folder: Path) -> Iterator[None]:
    """Lock the study; the system releases the lock when this process ends, however it does."""
    from vmnet_pipeline.storage.locks import try_lock

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        if not try_lock(file, alone=True):
            raise TuningError(f"Another process is searching in {folder}; wait for it or stop it.")
        yield


def _identify(train: PairArrays, val: PairArrays, train_params: TrainParams, params: TuneParams) -> dict[str, str]:
    """Digest each part that trials must share to be comparable."""
    base = _settings_of({}, train_params, params).model_dump(mode="json", exclude=NEUTRAL_PARAMS)
    space = {name: dimension.model_dump(mode="json") for name, dimension in params.space.items()}
    content = {"data": [digest_pairs(train), digest_pairs(val)], "training settings": base, "space": space}
    return {name: _digest(part) for name, part in content.items()}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _retry_interrupted(study: Study) -> None:
    """Close trials that a killed process left running, and enqueue their values again."""
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        logger.info("trial %d was interrupted; it continues as a new trial", trial.number)
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params, user_attrs={"continues": trial.number})


def _is_interrupted(trial: FrozenTrial) -> bool:
    return trial.state.name == "FAIL" and "error" not in trial.user_attrs


def _count_done(study: Study) -> int:
    return sum(trial.state.is_finished() and not _is_interrupted(trial) for trial in study.get_trials(deepcopy=False))


def _ask(study: Study, params: TuneParams) -> Trial:
    """Start the next trial; its sampler depends on how many there were, not on what this process has drawn before."""
    import optuna

    n_done = _count_done(study)
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=params.startup_trials, seed=_mix(params.seed, n_done))
    study.pruner = (
        optuna.pruners.NopPruner()
        if params.prune_after_epochs is None
        else optuna.pruners.MedianPruner(params.startup_trials, n_warmup_steps=params.prune_after_epochs)
    )
    trial = study.ask({name: _distribution(dimension) for name, dimension in params.space.items()})
    if "continues" in trial.user_attrs:
        for epoch, value in study.trials[trial.user_attrs["continues"]].intermediate_values.items():
            trial.report(value, epoch)
    return trial


def _mix(seed: int, number: int) -> int:
    # Not `derive_seed`: studies that were begun with these seeds must go on with them.
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4], "big")


# --- one trial


def _run_trial(
    study: Study, trial: Trial, settings: TrainParams, pairs: tuple[PairArrays, PairArrays], folder: Path, log: RunLog
) -> None:
    """Train with the trial's settings; its outcome, even a failure, becomes a row of the study."""
    from optuna import TrialPruned
    from optuna.trial import TrialState

    state_dir = folder / f"trial_{_digest(trial.params)[:16]}"
    try:
        result = train_model(*pairs, settings, state_dir=state_dir, on_epoch=_follow(trial, log))
    except TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except TRIAL_ERRORS as error:
        logger.warning("trial %d failed: %s", trial.number, error)
        trial.set_user_attr("error", f"{type(error).__name__}: {error}")
        study.tell(trial, state=TrialState.FAIL)
    else:
        log.finish(result.history)
        log.metrics({"objective": result.metrics["mrr"]})
        seconds = sum(record.seconds for record in result.history)
        outcome = {"epochs": len(result.history), "best_epoch": result.best_epoch, "seconds": seconds}
        trial.set_user_attr("outcome", outcome)
        study.tell(trial, result.metrics["mrr"])
    shutil.rmtree(state_dir, ignore_errors=True)


def _follow(trial: Trial, log: RunLog) -> Callable[[EpochRecord], None]:
    """Make the callback that logs and reports each epoch, and ends a trial that should be pruned."""
    from optuna import TrialPruned

    reported = {*trial.study.trials[trial.number].intermediate_values}

    def follow(record: EpochRecord) -> None:
        if record.val and record.epoch not in reported:
            trial.report(record.val["mrr"], record.epoch)
        log.add(record)
        if record.val and trial.should_prune():
            raise TrialPruned

    return follow


def _check_failures(study: Study, params: TuneParams) -> None:
    failed = [trial for trial in study.get_trials(deepcopy=False) if "error" in trial.user_attrs]
    if len(failed) > params.max_failed_share * params.n_trials:
        raise TuningError(
            f"{len(failed)} of {params.n_trials} trials failed, more than max_failed_share allows. The last one: "
            f"{failed[-1].user_attrs['error']}"
        )


# --- the result


def _summarise(study: Study, train_params: TrainParams, params: TuneParams) -> dict[str, Any]:
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    rows = [_list_trial(trial) for trial in trials if not _is_interrupted(trial)]
    complete = [row for row in rows if row["state"] == "complete"]
    if not complete:
        raise TuningError(f"None of {len(rows)} trials was completed; raise n_trials, or see the errors of the trials.")
    best = max(complete, key=lambda row: row["value"])
    settings = _settings_of(best["values"], train_params, params).model_dump(mode="json", exclude_unset=True)
    settings.pop("n_members", None)
    return {"n_trials": params.n_trials, "best": best, "train": settings, "trials": rows}


def _list_trial(trial: FrozenTrial) -> dict[str, Any]:
    """List one trial; the value of a pruned one is the best that it had reached."""
    reached = trial.intermediate_values
    is_complete = trial.state.name == "COMPLETE"
    outcome = trial.user_attrs.get("outcome", {})
    seconds = trial.duration.total_seconds() if trial.duration else None
    return {
        "number": trial.number,
        "state": trial.state.name.lower().replace("fail", "failed"),
        "value": trial.value if is_complete else max(reached.values(), default=None),
        "epochs": outcome.get("epochs", max(reached, default=0)),
        "best_epoch": outcome.get("best_epoch"),
        "seconds": outcome.get("seconds", seconds),
        "values": trial.params,
        "error": trial.user_attrs.get("error"),
    }
