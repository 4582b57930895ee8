"""The training loop: seeded, resumable after a kill, best epoch on validation kept."""

from __future__ import annotations

import logging
import math
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from vmnet_pipeline.errors import TrainingError
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.models.losses import LossInputs
from vmnet_pipeline.progress import LOG_EVERY_S
from vmnet_pipeline.training.data import derive_seed
from vmnet_pipeline.training.distributed import followers_waiting, gather_batch, rank, share_model
from vmnet_pipeline.training.state import StateFolder, TrainingState, capture_tensors, copy_tensors, restore_tensors
from vmnet_pipeline.training.validation import evaluate_model, explain_bad_loss
from vmnet_pipeline.types import EpochRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.models.types import PairOutput
    from vmnet_pipeline.training.batches import Augmentation, Batch, TrainBatches
    from vmnet_pipeline.training.optim import Schedule, WeightAverage
    from vmnet_pipeline.types import PairArrays

    EpochCallback = Callable[[EpochRecord], None]
    StepCallback = Callable[["Trainer", Batch], None]

logger = logging.getLogger(__name__)

# Losses are fetched from the device together, because each fetch waits for it.
CHECK_STEPS = 32


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Pairs that a network did not see, as it embeds them; a gallery of its own.

    Attributes:
        music: (n, E) float32 unit vectors.
        video: (n, E) float32 unit vectors.
        codes: (n,) int64, equal for rows that match.
        groups: Of each row.
    """

    music: np.ndarray
    video: np.ndarray
    codes: np.ndarray
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingResult:
    """A trained network and its history.

    Attributes:
        tensors: The kept weights, on the CPU, by name.
        model_config: Arguments of `models.factory.build_model`.
        history: One record per epoch, those before an interruption included.
        best_epoch: Epoch whose weights are kept; 0 for the start, and for several networks in one.
        metrics: Validation metrics of that epoch; empty without validation.
        resumed_from: Epochs that an earlier, interrupted run had done; 0 for a fresh run.
        held_out: Folds of cross-validation, where the network itself has seen all pairs; else empty.
    """

    tensors: dict[str, Tensor]
    model_config: dict[str, Any]
    history: tuple[EpochRecord, ...]
    best_epoch: int
    metrics: dict[str, float]
    resumed_from: int
    held_out: tuple[HeldOut, ...] = ()

    def build(self) -> VMNet:
        """The network with the kept weights, in inference mode."""
        with torch.random.fork_rng(devices=[]):
            model = build_model(**self.model_config)
        model.load_state_dict(self.tensors)
        return model.eval()


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to train, and what to keep.

    Attributes:
        epochs: Passes over the training pairs, at most.
        seed: Of dropout and augmentation; each epoch has a stream of its own.
        keep: Weights that are kept: the best on validation, or the last.
        patience: Evaluations without gain before training stops; None for never.
        eval_every: Epochs between two evaluations on the validation pairs.
        state_interval_s: Seconds between two writes of the state.
        uses_bf16: Whether the network computes in bf16; weights and loss are float32 always.
    """

    epochs: int
    seed: int = 0
    keep: Literal["best", "last"] = "best"
    patience: int | None = None
    eval_every: int = 1
    state_interval_s: float = 0.0
    uses_bf16: bool = False


class Trainer:
    """Trains one two-tower network: `fit` calls `train_epoch` and `evaluate`, an epoch calls `train_step`.

    Attributes:
        model: The network; `forward` is what a step calls: that, perhaps compiled or shared with other processes.
        model_config: Arguments of `build_model`.
        loss: Loss with weights of its own.
        batches: Training pairs.
        validation: Validation pairs and their (n,) int64 match codes; None without.
        average: Moving average of the weights, if there is one.
        steps: Steps done, those before `schedule.first_step` included.
        history: Epochs done.
        best_epoch: Best one so far, 0 before the first; `best_tensors` are its weights.
        start_metrics: Validation metrics before the first epoch, where the start itself may be the best.
    """

    def __init__(
        self,
        model: VMNet,
        model_config: dict[str, Any],
        loss: nn.Module,
        optimiser: torch.optim.Adam,
        schedule: Schedule,
        batches: TrainBatches,
        augment: Augmentation,
        plan: Plan,
        *,
        validation: tuple[PairArrays, np.ndarray] | None = None,
        average: WeightAverage | None = None,
    ) -> None:
        self.model, self.model_config, self.loss, self.optimiser = model, model_config, loss, optimiser
        self.schedule, self.batches, self.augment, self.plan = schedule, batches, augment, plan
        self.validation, self.average = validation, average
        self.forward: Callable[..., PairOutput] = model
        self.device = batches.device
        self.steps = schedule.first_step
        self.history: list[EpochRecord] = []
        self.best_epoch, self.best_tensors = 0, dict[str, Tensor]()
        self.start_metrics: dict[str, float] = {}
        self._on_step: StepCallback | None = None

    @property
    def kept_model(self) -> VMNet:
        """The network that is evaluated and kept: the average of weights where there is one."""
        return self.model if self.average is None else self.average.model

    def connect(self, *, compiles: bool) -> None:
        """Share the network with the other processes, and compile it; all weights must be in place."""
        shared = share_model(self.model)
        self.forward = torch.compile(shared) if compiles else shared

    def keep_start(self) -> None:
        """Take the network as it is for the best so far: what training makes of it is kept only if it is better."""
        if self.validation is not None and self.plan.keep == "best":
            self.start_metrics = self.evaluate(self.plan.epochs)
            self.best_tensors = copy_tensors(self.kept_model)

    def fit(
        self,
        states: StateFolder,
        *,
        on_epoch: EpochCallback | None = None,
        on_step: StepCallback | None = None,
        progress: bool = True,
    ) -> None:
        """Train the epochs that are left; the state is written after each, unless `state_interval_s` says otherwise.

        Raises:
            TrainingError: A loss is not finite.
        """
        self._on_step = on_step
        saved_at = time.monotonic()
        with _Progress(self.plan.epochs, len(self.history), shown=progress) as bar:
            for epoch in range(len(self.history) + 1, self.plan.epochs + 1):
                started = time.perf_counter()
                losses = self.train_epoch(epoch)
                with followers_waiting(lambda: not self.is_over):
                    record = self._record(epoch, losses, self.evaluate(epoch), started)
                    self.keep_best(record)
                    if not self.is_over and time.monotonic() - saved_at >= self.plan.state_interval_s:
                        states.save(self.capture(), self.history, self.best_epoch, self.best_tensors)
                        saved_at = time.monotonic()
                    bar.show(record)
                    if on_epoch is not None:
                        on_epoch(record)
                if self.is_over:
                    break
        if len(self.history) < self.plan.epochs:
            done = len(self.history)
            logger.info("stopped after epoch %d: no better validation since epoch %d", done, self.best_epoch)

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """Pass over the training pairs once.

        Returns:
            Means over the steps: the terms of the loss, and `grad_norm`.

        Raises:
            TrainingError: The loss is not finite; the message says what to do.
        """
        torch.manual_seed(derive_seed((self.plan.seed, epoch)) + rank())
        self.model.train()
        self.loss.train()
        sums: dict[str, float] = {}
        pending: list[tuple[np.ndarray, dict[str, Tensor]]] = []
        for number, batch in enumerate(self.batches.read_epoch(epoch), start=1):
            pending.append((batch.rows, self.train_step(batch)))
            if self._on_step is not None:
                self._on_step(self, batch)
            if len(pending) == CHECK_STEPS or number == len(self.batches):
                for name, value in self._fetch_terms(pending, epoch).items():
                    sums[name] = sums.get(name, 0.0) + value
                pending.clear()
        return {name: value / len(self.batches) for name, value in sums.items()}

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """Do one optimiser step; gives the loss terms and `grad_norm`, scalars on the device."""
        features = (part.to(self.device, non_blocking=True) for part in (batch.music, batch.video))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan.uses_bf16):
            output = self.forward(*self.augment(*features))
        terms = self.loss(self._make_loss_inputs(output, batch))
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.rate_at(self.steps)
            group["eps"] = self.schedule.epsilon_at(self.steps)
        self.optimiser.zero_grad(set_to_none=True)
        terms["total"].backward()
        norm = nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        self.optimiser.step()
        self.steps += 1
        if self.average is not None:
            self.average.update(self.model, self.steps)
        return {**{name: value.detach() for name, value in terms.items()}, "grad_norm": norm}

    def _make_loss_inputs(self, output: PairOutput, batch: Batch) -> LossInputs:
        """The whole batch in float32, whatever the network computed in: signs and hinges need the digits."""
        music, video = output
        parts = (music.embedding, video.embedding, music.structure.detach(), video.structure.detach())
        labels = (batch.positives, batch.codes, batch.groups)
        return LossInputs(
            *(gather_batch(part.float()) for part in parts),
            *(None if label is None else label.to(self.device, non_blocking=True) for label in labels),
        )

    def _fetch_terms(self, steps: Sequence[tuple[np.ndarray, dict[str, Tensor]]], epoch: int) -> dict[str, float]:
        """Sums of the terms of the latest steps, fetched from the device; refuses a loss that is not finite."""
        terms = {name: torch.stack([step[name] for _, step in steps]).cpu().double() for name in steps[0][1]}
        bad = (~torch.isfinite(terms["total"])).nonzero()
        if len(bad):
            first = int(bad[0])
            step = self.steps - len(steps) + first + 1
            reason = explain_bad_loss(self.batches.pairs, steps[first][0], self.schedule.learning_rate)
            raise TrainingError(f"the loss is not finite in epoch {epoch}, step {step}{reason}")
        return {name: float(values.sum()) for name, values in terms.items()}

    def evaluate(self, epoch: int) -> dict[str, float]:
        """Loss and retrieval metrics on the validation pairs; empty where none are due.

        Raises:
            TrainingError: The loss is not finite: no comparison with NaN is true, so its ranks would be the best ones.
        """
        if self.validation is None or (epoch % self.plan.eval_every and epoch != self.plan.epochs):
            return {}
        pairs, codes = self.validation
        metrics = evaluate_model(self.kept_model, self.loss, pairs, codes, self.batches.batch_size)
        if not math.isfinite(metrics["loss"]):
            reason = explain_bad_loss(pairs, np.arange(len(pairs)), self.schedule.learning_rate)
            raise TrainingError(f"the loss on the validation pairs is not finite after epoch {epoch}{reason}")
        return metrics

    def _record(self, epoch: int, losses: dict[str, float], val: dict[str, float], started: float) -> EpochRecord:
        norm, rate = losses.pop("grad_norm"), self.schedule.rate_at(self.steps - 1)
        record = EpochRecord(epoch, self.steps, losses, norm, rate, val, time.perf_counter() - started)
        self.history.append(record)
        return record

    def keep_best(self, record: EpochRecord) -> None:
        """Copy the weights of the latest epoch if it is the best so far."""
        if self.plan.keep == "last" or not record.val:
            return
        best = self.best_metrics
        if not best or _score(record.val) > _score(best):
            self.best_epoch, self.best_tensors = record.epoch, copy_tensors(self.kept_model)

    @property
    def best_metrics(self) -> dict[str, float]:
        """Validation metrics of the best weights so far; empty if there are none."""
        return self.history[self.best_epoch - 1].val if self.best_epoch else self.start_metrics

    @property
    def is_over(self) -> bool:
        """Whether no epoch follows: all are done, or validation has not improved for `patience` evaluations."""
        if len(self.history) >= self.plan.epochs:
            return True
        if self.plan.patience is None or not self.best_metrics:
            return False
        return sum(bool(record.val) for record in self.history[self.best_epoch :]) >= self.plan.patience

    def capture(self) -> dict[str, Tensor]:
        """Copy all tensors that training continues from to the CPU."""
        average = None if self.average is None else self.average.model
        return capture_tensors(self.model, self.loss, self.optimiser, average)

    def restore(self, tensors: dict[str, Tensor]) -> bool:
        """Restore what `capture` took; False (logged) if it does not fit, with the network perhaps half changed."""
        average = None if self.average is None else self.average.model
        return restore_tensors(tensors, self.model, self.loss, self.optimiser, average)

    def resume(self, state: TrainingState, best_tensors: dict[str, Tensor]) -> bool:
        """Continue from a state; False if it does not fit, and then this trainer must not be used."""
        if not self.restore(state.tensors):
            return False
        self.best_epoch, self.best_tensors = state.best_epoch, best_tensors or self.best_tensors
        self.history, self.steps = list(state.history), state.history[-1].steps
        logger.info("training continues after epoch %d", len(self.history))
        return True

    def take_kept(self) -> tuple[dict[str, Tensor], int]:
        """Return the weights to keep, on the CPU, and their epoch."""
        if self.best_tensors:
            return self.best_tensors, self.best_epoch
        return copy_tensors(self.kept_model), len(self.history)


def _score(val: dict[str, float]) -> tuple[float, float]:
    """Score validation metrics, larger is better: by the MRR of both directions, then by the lower loss."""
    return (val["mrr"], -val["loss"])


class _Progress:
    """A bar on a terminal; elsewhere log lines, at every tenth of the epochs and at least every `LOG_EVERY_S`."""

    def __init__(self, epochs: int, done: int, *, shown: bool) -> None:
        self._epochs, self._said_at = epochs, time.monotonic()
        shows_bar = shown and sys.stderr.isatty()
        self._logs = shown and not shows_bar
        self._bar = tqdm(total=epochs, initial=done, desc="train", unit="epoch", disable=not shows_bar)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, record: EpochRecord) -> None:
        val = f", validation MRR {record.val['mrr']:.3f}" if record.val else ""
        text = f"loss {record.losses['total']:.3f}{val}"
        self._bar.update()
        self._bar.set_postfix_str(text, refresh=False)
        is_tenth = record.epoch % max(1, self._epochs // 10) == 0
        if self._logs and (record.epoch == self._epochs or is_tenth or time.monotonic() - self._said_at >= LOG_EVERY_S):
            logger.info("epoch %d of %d: %s", record.epoch, self._epochs, text)
            self._said_at = time.monotonic()
