"""Write curves and log of the original code between steps, and intermediate checkpoints.

Tags, formats and intervals are those of github.com/MorrisXu-Driving/Video-Music_Cross-Modal_Retrival, without its
`dom_loss` and `dom_acc`, which belong to a classifier that no embedding depends on.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from vmnet_pipeline.models.checkpoints import save_checkpoint
from vmnet_pipeline.tracking.event_files import append_event, write_events
from vmnet_pipeline.training.curves import CURVE_KS, measure_pairs, measure_training_batch, pick_test_batch
from vmnet_pipeline.training.distributed import n_processes
from vmnet_pipeline.training.state import copy_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from vmnet_pipeline.models.checkpoints import Checkpoint
    from vmnet_pipeline.params import TrainParams
    from vmnet_pipeline.training.batches import Batch
    from vmnet_pipeline.training.curves import BatchMetrics
    from vmnet_pipeline.training.trainer import Trainer
    from vmnet_pipeline.types import PairArrays

logger = logging.getLogger(__name__)


class StepLog:
    """Called after every step of one training.

    Files, in `folder`: `log.txt`; `logs/original/{train,test}` with event files; `checkpoints/step-N`.

    Args:
        test: Pairs for a curve; they do not influence the training.
        template: An intermediate checkpoint without network, weights and step.
    """

    def __init__(self, folder: Path, params: TrainParams, test: PairArrays, template: Checkpoint) -> None:
        self._folder, self._params, self._test, self._template = folder, params, test, template
        self._events: dict[str, Path] = {}

    def __call__(self, trainer: Trainer, batch: Batch) -> None:
        """Measure and save what is due."""
        if not self._events:
            self._begin(trainer)
        if _is_due(trainer.steps, self._params.curve_every_steps) and n_processes() == 1:
            self._measure(trainer, batch)
        if _is_due(trainer.steps, self._params.keep_every_steps):
            self._keep(trainer)

    def _begin(self, trainer: Trainer) -> None:
        """Open event files, one per start as usual for TensorBoard; a new training removes older ones."""
        logs = self._folder / "logs" / "original"
        if trainer.steps == trainer.schedule.first_step + 1:
            for path in logs.glob("*/events.out.tfevents.*"):
                path.unlink(missing_ok=True)
        self._events = {side: logs / side / f"events.out.tfevents.{trainer.steps:08d}" for side in ("train", "test")}
        if self._params.curve_every_steps and n_processes() == 1:
            for path in self._events.values():
                write_events(path, [])
        if self._params.curve_every_steps and n_processes() > 1:
            logger.warning("curves per step are not measured where several processes train")
        self._write(json.dumps(self._params.model_dump(mode="json", exclude_unset=True), sort_keys=True))

    def _measure(self, trainer: Trainer, batch: Batch) -> None:
        train = measure_training_batch(trainer, batch)
        losses = " ".join(f"{name} {value:.6g}" for name, value in train.losses.items() if name != "total")
        self._write(f"[iter {trainer.steps}] ({losses}) {_describe(train)}")
        self._add("train", trainer, train)
        if len(self._test) == 0:
            return
        turn = (trainer.steps - trainer.schedule.first_step - 1) // (self._params.curve_every_steps or 1)
        test = measure_pairs(trainer, self._test, pick_test_batch(len(self._test), trainer.batches.batch_size, turn))
        self._write(f"[TEST iter {trainer.steps}] {_describe(test)}")
        self._add("test", trainer, test)

    def _add(self, side: str, trainer: Trainer, figures: BatchMetrics) -> None:
        scalars = {
            "triplet_loss": figures.losses["total"],
            "K": float(self._params.loss.top_k or trainer.batches.batch_size),
            "lambda": 0.0,
            "learning_rate": trainer.schedule.rate_at(trainer.steps - 1),
        }
        for direction, recalls in (("xy", figures.recall_xy), ("yx", figures.recall_yx)):
            scalars |= {f"recall/{direction}_R@{k}": value for k, value in zip(CURVE_KS, recalls, strict=True)}
        append_event(self._events[side], trainer.steps - 1, scalars)  # the original counts steps from 0 here

    def _keep(self, trainer: Trainer) -> None:
        folder = self._folder / "checkpoints" / f"step-{trainer.steps}"
        done = replace(
            self._template,
            model_config=trainer.model_config,
            tensors=copy_tensors(trainer.kept_model),
            best_epoch=len(trainer.history) + 1,
            params={**self._template.params, "step": trainer.steps},
        )
        save_checkpoint(folder, done)
        self._write(f"[Checkpoint at step {trainer.steps} saved] {folder}")

    def _write(self, line: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"[{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}] {line}\n")


def _is_due(steps: int, interval: int | None) -> bool:
    return interval is not None and steps % interval == 0


def _describe(figures: BatchMetrics) -> str:
    xy, yx = ([round(value, 6) for value in recalls] for recalls in (figures.recall_xy, figures.recall_yx))
    return f"loss={figures.losses['total']:.4g}, {xy}, {yx}"
