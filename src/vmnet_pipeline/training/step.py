"""One epoch of training: batches read ahead, optimiser steps, means of the loss terms."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from vmnet_pipeline.errors import TrainingError
from vmnet_pipeline.models.embed import gather_rows
from vmnet_pipeline.models.losses import LossInputs
from vmnet_pipeline.models.types import MaskedSequence
from vmnet_pipeline.training.data import derive_seed, order_epoch
from vmnet_pipeline.training.distributed import gather_batch, own_share, rank
from vmnet_pipeline.training.optim import adam_epsilon, add_noise, mix_pairs
from vmnet_pipeline.training.validation import explain_bad_loss, match_mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np

    from vmnet_pipeline.models.types import Features, PairOutput
    from vmnet_pipeline.training.run import Run
    from vmnet_pipeline.types import FeatureArray

# Losses are looked at together, because each look waits for the device.
CHECK_STEPS = 32

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch in memory; `rows`, `codes`, `groups` and `positives` are of all processes, features of this one.

    Attributes:
        rows: (B,) numbers of the training pairs.
        music: Features of this process's part of them.
        video: The same of the other side.
        codes: (B,) int64, equal for rows that match.
        groups: (B,) int64, equal for rows of one group; None when groups do not matter.
        positives: (B, B) bool, or None when every row matches only itself.
    """

    rows: np.ndarray
    music: Features
    video: Features
    codes: Tensor
    groups: Tensor | None
    positives: Tensor | None


def train_epoch(run: Run, epoch: int) -> dict[str, float]:
    """One pass over the training pairs.

    Returns:
        Means over the steps: the terms of the loss, and `grad_norm`.

    Raises:
        TrainingError: The loss is not finite; the message says what to do.
    """
    params = run.params
    torch.manual_seed(derive_seed(params.seed, epoch) + rank())
    run.model.train()
    run.loss.train()
    order = list(order_epoch(len(run.train), run.batch_size, epoch, seed=params.seed, shuffle=params.shuffle))
    sums: dict[str, float] = {}
    waiting: list[dict[str, Tensor]] = []
    for number, batch in enumerate(read_ahead(order, partial(read_batch, run)), start=1):
        waiting.append(run_step(run, batch))
        if run.on_step is not None:
            run.on_step(run, batch)
        if len(waiting) == CHECK_STEPS or number == len(order):
            terms = _fetch(waiting)
            _check_losses(run, terms["total"], order[number - len(waiting) : number], epoch)
            for name, values in terms.items():
                sums[name] = sums.get(name, 0.0) + float(values.sum())
            waiting.clear()
    return {name: value / len(order) for name, value in sums.items()}


def read_ahead(order: Iterable[np.ndarray], read: Callable[[np.ndarray], _Read]) -> Iterator[_Read]:
    """What `read` gives for each batch, in order; while one is used, the next one is read in another thread."""
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        pending: Future[_Read] | None = None
        for rows in order:
            following = pool.submit(read, rows)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()


def read_batch(run: Run, rows: np.ndarray) -> Batch:
    """Read one batch into memory that the device can fetch from."""
    share = own_share(rows)
    codes = torch.from_numpy(run.train_codes[rows])
    groups = None if run.groups is None else torch.from_numpy(run.groups[rows])
    return Batch(
        rows, _read(run, run.train.music, share), _read(run, run.train.video, share), codes, groups, match_mask(codes)
    )


def _read(run: Run, array: FeatureArray, rows: np.ndarray) -> Features:
    features = gather_rows(array, rows)
    if run.device.type != "cuda":
        return features
    if isinstance(features, MaskedSequence):
        return MaskedSequence(*(part.pin_memory() for part in features))
    return features.pin_memory()


def run_step(run: Run, batch: Batch) -> dict[str, Tensor]:
    """One optimiser step; gives the loss terms and `grad_norm`, scalars on the device."""
    music, video = batch.music.to(run.device, non_blocking=True), batch.video.to(run.device, non_blocking=True)
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.uses_bf16):
        output = run.forward(*_augment(run, music, video))
    terms = run.loss(_make_loss_inputs(run, output, batch))
    for group in run.optimiser.param_groups:
        group["lr"] = run.learning_rate(run.steps)
        group["eps"] = adam_epsilon(run.params, run.steps + 1)
    run.optimiser.zero_grad(set_to_none=True)
    terms["total"].backward()
    norm = nn.utils.get_total_norm([p.grad for p in run.model.parameters() if p.grad is not None])
    run.optimiser.step()
    run.steps += 1
    if run.average is not None:
        run.average.update(run.model, run.steps)
    return {**{name: value.detach() for name, value in terms.items()}, "grad_norm": norm}


def _make_loss_inputs(run: Run, output: PairOutput, batch: Batch) -> LossInputs:
    """The whole batch in float32, whatever the network computed in: signs and hinges need the digits."""
    music, video = output
    parts = (music.embedding, video.embedding, music.structure.detach(), video.structure.detach())
    labels = (batch.positives, batch.codes, batch.groups)
    return LossInputs(
        *(gather_batch(part.float()) for part in parts),
        *(None if label is None else label.to(run.device, non_blocking=True) for label in labels),
    )


def _augment(run: Run, music: Features, video: Features) -> tuple[Features, Features]:
    """Features as the network sees them in training; the noise is measured in deviations where those are known."""
    params = run.params
    if params.mixup_alpha and isinstance(music, Tensor) and isinstance(video, Tensor):
        music, video = mix_pairs(music, video, params.mixup_alpha)
    if params.feature_noise:
        stds = [getattr(scaler, "std", 1.0) for scaler in (run.model.music_scaler, run.model.video_scaler)]
        music = add_noise(music, params.feature_noise * stds[0])
        video = add_noise(video, params.feature_noise * stds[1])
    return music, video


def _fetch(steps: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Scalars of several steps from the device, by name: (n,) float64 each."""
    return {name: torch.stack([step[name] for step in steps]).cpu().double() for name in steps[0]}


def _check_losses(run: Run, totals: Tensor, order: list[np.ndarray], epoch: int) -> None:
    """Refuse the latest steps if one of their losses is not finite; (n,) losses and their n batches."""
    bad = (~torch.isfinite(totals)).nonzero()
    if len(bad):
        first = int(bad[0])
        step = run.steps - len(totals) + first + 1
        reason = explain_bad_loss(run.train, order[first], run.params.learning_rate)
        raise TrainingError(f"the loss is not finite in epoch {epoch}, step {step}{reason}")
