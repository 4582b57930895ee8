"""What is written between steps: the original code's own curves and log, and checkpoints that are kept.

Tags, places of the numbers and intervals are those of github.com/MorrisXu-Driving/Video-Music_Cross-Modal_Retrival; of
its tags `dom_loss` and `dom_acc` are left out, because they are of a classifier that no embedding depends on.
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
    from vmnet_pipeline.training.curves import BatchFigures
    from vmnet_pipeline.training.run import Run
    from vmnet_pipeline.training.step import Batch
    from vmnet_pipeline.types import PairArrays

logger = logging.getLogger(__name__)


class StepLog:
    """Called after every step of one training.

    Files, in `folder`: `log.txt`; `logs/original/{train,test}` with event files; `checkpoints/step-N`.

    Args:
        folder: Of this training.
        params: Settings.
        test: Pairs whose curve is drawn; they decide nothing.
        template: A kept checkpoint but for its network, weights and step.
    """

    def __init__(self, folder: Path, params: TrainParams, test: PairArrays, template: Checkpoint) -> None:
        self._folder, self._params, self._test, self._template = folder, params, test, template
        self._events: dict[str, Path] = {}

    def __call__(self, run: Run, batch: Batch) -> None:
        """Measure and save what is due."""
        if not self._events:
            self._begin(run)
        if _is_due(run.steps, self._params.curve_every_steps) and n_processes() == 1:
            self._measure(run, batch)
        if _is_due(run.steps, self._params.keep_every_steps):
            self._keep(run)

    def _begin(self, run: Run) -> None:
        """Open event files: one for each start, as TensorBoard has it; a fresh training takes off those there are."""
        logs = self._folder / "logs" / "original"
        if run.steps == run.first_step + 1:
            for path in logs.glob("*/events.out.tfevents.*"):
                path.unlink(missing_ok=True)
        self._events = {side: logs / side / f"events.out.tfevents.{run.steps:08d}" for side in ("train", "test")}
        if self._params.curve_every_steps and n_processes() == 1:
            for path in self._events.values():
                write_events(path, [])
        if self._params.curve_every_steps and n_processes() > 1:
            logger.warning("curves per step are not measured where several processes train")
        self._write(json.dumps(self._params.model_dump(mode="json", exclude_unset=True), sort_keys=True))

    def _measure(self, run: Run, batch: Batch) -> None:
        train = measure_training_batch(run, batch)
        losses = " ".join(f"{name} {value:.6g}" for name, value in train.losses.items() if name != "total")
        self._write(f"[iter {run.steps}] ({losses}) {_describe(train)}")
        self._add("train", run, train)
        if len(self._test) == 0:
            return
        turn = (run.steps - run.first_step - 1) // (self._params.curve_every_steps or 1)
        test = measure_pairs(run, self._test, pick_test_batch(len(self._test), run.batch_size, turn))
        self._write(f"[TEST iter {run.steps}] {_describe(test)}")
        self._add("test", run, test)

    def _add(self, side: str, run: Run, figures: BatchFigures) -> None:
        scalars = {
            "triplet_loss": figures.losses["total"],
            "K": float(self._params.loss.top_k or run.batch_size),
            "lambda": 0.0,
            "learning_rate": run.learning_rate(run.steps - 1),
        }
        for direction, recalls in (("xy", figures.recall_xy), ("yx", figures.recall_yx)):
            scalars |= {f"recall/{direction}_R@{k}": value for k, value in zip(CURVE_KS, recalls, strict=True)}
        append_event(self._events[side], run.steps - 1, scalars)  # the original counts steps from 0 here

    def _keep(self, run: Run) -> None:
        folder = self._folder / "checkpoints" / f"step-{run.steps}"
        done = replace(
            self._template,
            model_config=run.config,
            tensors=copy_tensors(run.kept_model),
            best_epoch=len(run.history) + 1,
            params={**self._template.params, "step": run.steps},
        )
        save_checkpoint(folder, done)
        self._write(f"[Checkpoint at step {run.steps} saved] {folder}")

    def _write(self, line: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"[{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}] {line}\n")


def _is_due(steps: int, interval: int | None) -> bool:
    return interval is not None and steps % interval == 0


def _describe(figures: BatchFigures) -> str:
    xy, yx = ([round(value, 6) for value in recalls] for recalls in (figures.recall_xy, figures.recall_yx))
    return f"loss={figures.losses['total']:.4g}, {xy}, {yx}"
