"""The training loop: seeded, resumable after a kill, best epoch on validation kept."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vmnet_pipeline.errors import TrainingError
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.progress import LOG_EVERY_S
from vmnet_pipeline.training import distributed
from vmnet_pipeline.training.data import check_pairs, check_same_shapes
from vmnet_pipeline.training.run import (
    Run,
    assemble_run,
    config_of_start,
    connect,
    model_config_of,
    settled_torch,
    start_run,
)
from vmnet_pipeline.training.state import (
    TrainingState,
    add_prefix,
    capture_tensors,
    copy_tensors,
    digest_run,
    load_best,
    load_state,
    restore_tensors,
    save_best,
    save_state,
    strip_prefix,
)
from vmnet_pipeline.training.step import Batch, train_epoch
from vmnet_pipeline.training.validation import evaluate_model, explain_bad_loss
from vmnet_pipeline.types import EpochRecord, PairArrays

if TYPE_CHECKING:
    from pathlib import Path

    from vmnet_pipeline.models.checkpoints import StartPoint
    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.params import TrainParams

logger = logging.getLogger(__name__)

EpochCallback = Callable[[EpochRecord], None]
StepCallback = Callable[[Run, Batch], None]

_NEXT_EPOCH, _END = "next epoch", "end"


@dataclass(frozen=True)
class TrainingResult:
    """A trained network and how it came about.

    Attributes:
        tensors: The kept weights, on the CPU, by name.
        model_config: Arguments of `models.towers.build_model`.
        history: One record per epoch, those before an interruption included.
        best_epoch: Epoch whose weights are kept.
        metrics: Validation metrics of that epoch; empty without validation.
        resumed_from: Epochs that an earlier, interrupted run had done; 0 for a fresh run.
    """

    tensors: dict[str, Tensor]
    model_config: dict[str, Any]
    history: tuple[EpochRecord, ...]
    best_epoch: int
    metrics: dict[str, float]
    resumed_from: int

    def build(self) -> VMNet:
        """The network with the kept weights, in inference mode."""
        with torch.random.fork_rng(devices=[]):
            model = build_model(**self.model_config)
        model.load_state_dict(self.tensors)
        return model.eval()


def train_model(
    train: PairArrays,
    val: PairArrays | None,
    params: TrainParams,
    *,
    state_dir: Path,
    on_epoch: EpochCallback | None = None,
    on_step: StepCallback | None = None,
    start: StartPoint | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Train a network on pairs; a rerun after a kill continues from the last finished epoch.

    On the CPU the resumed run gives the same weights, bit for bit, as one that was never disturbed: order and dropout
    of an epoch depend only on seed and epoch. A finished run whose state is still in `state_dir` is returned without
    training; a state of other parameters or data is not used and is replaced.

    With several processes (see `training.distributed`) the leading one calls this, the others `follow_training`.

    Args:
        train: Training pairs, at least two.
        val: Validation pairs; with fewer than two of them the last epoch is kept, with a warning.
        params: Settings.
        state_dir: Folder of the state; made if missing.
        on_epoch: Called after each epoch done here, once its state is safe; not for epochs of an interrupted run.
        on_step: Called after each step done here; it must leave the network as it is.
        start: What `params.start_from` names, read.
        progress: Show a bar on a terminal; sparse log lines otherwise.

    Returns:
        The kept weights and the history.

    Raises:
        TrainingError: The pairs cannot be trained on, or the loss on training or validation pairs is not finite.
        ParameterError: A tower is unknown or does not fit the features.
        CheckpointError: `start` takes other features.
    """
    if params.start_from is not None and start is None:
        raise TrainingError("start_from is for `kedro run --pipeline train`; leave it out here")
    check_pairs(train, "training")
    val = _usable_validation(train, val)
    state_dir.mkdir(parents=True, exist_ok=True)
    run_digest = digest_run(params, train, val, start)
    config = model_config_of(params, train) if start is None else config_of_start(params, train, start)
    state = load_state(state_dir, run_digest)
    if state is not None and state.finished:
        logger.info("already trained with these parameters and data: %d epochs", len(state.history))
        return _make_result(config, strip_prefix(state.tensors, "model/"), state.history, state.best_epoch, 0)
    with settled_torch(params):
        run = start_run(params, train, val, config, start)
        if state is not None and not _resume(run, state, state_dir):
            run = start_run(params, train, val, config, start)
        run.on_step = on_step
        resumed_from = len(run.history)
        _call_followers(run)
        connect(run)
        _run_epochs(run, run_digest, state_dir, on_epoch, progress)
    return _finish(run, run_digest, state_dir, resumed_from)


@dataclass(frozen=True)
class _Job:
    """A training as the other processes learn of it; `tensors` are those of `capture_tensors`."""

    params: TrainParams
    config: dict[str, Any]
    train: PairArrays
    tensors: dict[str, Tensor]
    steps: int
    first_step: int
    n_epochs_done: int
    batch_size: int


def _call_followers(run: Run) -> None:
    if distributed.n_processes() > 1:
        tensors = capture_tensors(run.model, run.loss, run.optimiser, run.average_model)
        done = (run.steps, run.first_step, len(run.history))
        distributed.tell(_Job(run.params, run.config, run.train, tensors, *done, run.batch_size))


def follow_training() -> None:
    """Compute this process's share of every training of the leading process, until `dismiss_followers`."""
    while (job := distributed.hear()) is not None:
        with settled_torch(job.params):
            model = build_model(**job.config)
            run = assemble_run(job.params, job.train, None, job.config, model, job.batch_size)
            restore_tensors(job.tensors, run.model, run.loss, run.optimiser, run.average_model)
            run.steps, run.first_step = job.steps, job.first_step
            connect(run)
            try:
                _follow_epochs(run, job.n_epochs_done + 1)
            except TrainingError as error:
                logger.debug("the leading process reports this: %s", error)


def _follow_epochs(run: Run, epoch: int) -> None:
    train_epoch(run, epoch)
    while distributed.hear() == _NEXT_EPOCH:
        epoch += 1
        train_epoch(run, epoch)


def dismiss_followers() -> None:
    """Let the other processes return from `follow_training`."""
    distributed.tell(None)


def _usable_validation(train: PairArrays, val: PairArrays | None) -> PairArrays | None:
    if val is None or len(val) < 2:
        logger.warning(
            "there are %d validation pairs, and at least 2 are needed to choose the best epoch; the last one is kept",
            0 if val is None else len(val),
        )
        return None
    check_pairs(val, "validation")
    check_same_shapes(train, val)
    return val


def _run_epochs(run: Run, run_digest: str, state_dir: Path, on_epoch: EpochCallback | None, progress: bool) -> None:
    epochs, done = run.params.epochs, len(run.history)
    saved_at = said_at = time.monotonic()
    shows_bar = progress and sys.stderr.isatty()
    with tqdm(total=epochs, initial=done, desc="train", unit="epoch", disable=not shows_bar) as bar:
        for epoch in range(done + 1, epochs + 1):
            start = time.perf_counter()
            losses = train_epoch(run, epoch)
            with _followers_waiting(run):
                record = _record_epoch(run, epoch, losses, start)
                if not _is_over(run) and time.monotonic() - saved_at >= run.params.state_interval_s:
                    _save_progress(run, run_digest, state_dir)
                    saved_at = time.monotonic()
                bar.update()
                bar.set_postfix_str(_describe(record), refresh=False)
                is_tenth, is_late = epoch % max(1, epochs // 10) == 0, time.monotonic() - said_at >= LOG_EVERY_S
                if progress and not shows_bar and (epoch == epochs or is_tenth or is_late):
                    logger.info("epoch %d of %d: %s", epoch, epochs, _describe(record))
                    said_at = time.monotonic()
                if on_epoch is not None:
                    on_epoch(record)
            if _is_over(run):
                break
    if len(run.history) < epochs:
        logger.info("stopped after epoch %d: no better validation since epoch %d", len(run.history), run.best_epoch)


@contextmanager
def _followers_waiting(run: Run) -> Iterator[None]:
    """Meanwhile the other processes wait; then they are told whether there is another epoch."""
    verdict = _END
    try:
        yield
        verdict = _END if _is_over(run) else _NEXT_EPOCH
    finally:
        distributed.tell(verdict)


def _is_over(run: Run) -> bool:
    """Whether no epoch follows."""
    return len(run.history) >= run.params.epochs or _is_out_of_patience(run)


def _describe(record: EpochRecord) -> str:
    val = f", validation MRR {record.val['mrr']:.3f}" if record.val else ""
    return f"loss {record.losses['total']:.3f}{val}"


def _record_epoch(run: Run, epoch: int, losses: dict[str, float], start: float) -> EpochRecord:
    """Evaluate after an epoch and add it to the history; its weights are remembered if they are the best so far."""
    norm = losses.pop("grad_norm")
    lr = run.learning_rate(run.steps - 1)
    val = _evaluate(run, epoch)
    record = EpochRecord(epoch, run.steps, losses, norm, lr, val, time.perf_counter() - start)
    run.history.append(record)
    if _is_best(run, record):
        run.best_epoch, run.best_tensors = epoch, copy_tensors(run.kept_model)
    return record


def _evaluate(run: Run, epoch: int) -> dict[str, float]:
    is_due = epoch % run.params.eval_every == 0 or epoch == run.params.epochs
    if run.val is None or run.val_codes is None or not is_due:
        return {}
    metrics = evaluate_model(run.kept_model, run.loss, run.val, run.val_codes, run.batch_size)
    if not math.isfinite(metrics["loss"]):  # no comparison with NaN is true, so its ranks would be the best ones
        reason = explain_bad_loss(run.val, np.arange(len(run.val)), run.params.learning_rate)
        raise TrainingError(f"the loss on the validation pairs is not finite after epoch {epoch}{reason}")
    return metrics


def _score(record: EpochRecord) -> tuple[float, float]:
    """What the best epoch is chosen by, larger is better: MRR of both directions, then the lower loss."""
    return (record.val["mrr"], -record.val["loss"])


def _is_best(run: Run, record: EpochRecord) -> bool:
    if run.params.keep == "last" or not record.val:
        return False
    return run.best_epoch == 0 or _score(record) > _score(run.history[run.best_epoch - 1])


def _is_out_of_patience(run: Run) -> bool:
    if run.params.patience is None or run.best_epoch == 0:
        return False
    n_since_best = sum(bool(record.val) for record in run.history[run.best_epoch :])
    return n_since_best >= run.params.patience


def _save_progress(run: Run, run_digest: str, state_dir: Path) -> None:
    if run.best_epoch != run.saved_best_epoch:
        save_best(state_dir, run.best_epoch, run.best_tensors, run_digest)
        run.saved_best_epoch = run.best_epoch
    tensors = capture_tensors(run.model, run.loss, run.optimiser, run.average_model)
    save_state(state_dir, TrainingState(run_digest, tensors, tuple(run.history), run.best_epoch, finished=False))


def _resume(run: Run, state: TrainingState, state_dir: Path) -> bool:
    """Put a fresh run where the state stands; False if the state turns out not to fit."""
    best = load_best(state_dir, state.best_epoch, state.run_digest) if state.best_epoch else {}
    if best is None or not restore_tensors(state.tensors, run.model, run.loss, run.optimiser, run.average_model):
        return False
    run.best_epoch = run.saved_best_epoch = state.best_epoch
    run.best_tensors = best
    run.history = list(state.history)
    run.steps = state.history[-1].steps
    logger.info("training continues after epoch %d", len(run.history))
    return True


def _finish(run: Run, run_digest: str, state_dir: Path, resumed_from: int) -> TrainingResult:
    keeps_best = run.best_epoch > 0
    tensors = run.best_tensors if keeps_best else copy_tensors(run.kept_model)
    kept_epoch = run.best_epoch if keeps_best else len(run.history)
    history = tuple(run.history)
    save_state(state_dir, TrainingState(run_digest, add_prefix(tensors, "model/"), history, kept_epoch, finished=True))
    return _make_result(run.config, tensors, history, kept_epoch, resumed_from)


def _make_result(
    config: dict[str, Any],
    tensors: dict[str, Tensor],
    history: tuple[EpochRecord, ...],
    kept_epoch: int,
    resumed_from: int,
) -> TrainingResult:
    metrics = dict(history[kept_epoch - 1].val)
    return TrainingResult(tensors, config, history, kept_epoch, metrics, resumed_from)
