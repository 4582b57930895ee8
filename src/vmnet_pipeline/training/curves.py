"""Measure loss and recall during training as the original code does: between steps, on one batch."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vmnet_pipeline.models.embed import gather_rows
from vmnet_pipeline.training.validation import make_loss_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vmnet_pipeline.models.types import Features
    from vmnet_pipeline.training.batches import Batch
    from vmnet_pipeline.training.trainer import Trainer
    from vmnet_pipeline.types import PairArrays

CURVE_KS = (1, 5, 10, 20, 50, 100)


@dataclass(frozen=True, slots=True)
class BatchMetrics:
    """Loss and recall of one batch.

    Attributes:
        losses: `total` and the loss's own unweighted terms.
        recall_xy: Recall@K (shares, 0-1) of music -> video for each of `CURVE_KS`, ties to the lower index.
        recall_yx: The same of video -> music.
    """

    losses: dict[str, float]
    recall_xy: tuple[float, ...]
    recall_yx: tuple[float, ...]


def measure_training_batch(trainer: Trainer, batch: Batch) -> BatchMetrics:
    """Measure the batch of the latest step again: without dropout, normalised by its own statistics; no learning."""
    with _batch_statistics(trainer.model), torch.no_grad():
        return _measure(trainer, batch.music, batch.video)


def measure_pairs(trainer: Trainer, pairs: PairArrays, rows: np.ndarray) -> BatchMetrics:
    """Measure rows of other pairs as one batch, in inference mode."""
    trainer.model.eval()
    with torch.no_grad():
        metrics = _measure(trainer, gather_rows(pairs.music, rows), gather_rows(pairs.video, rows))
    trainer.model.train()
    return metrics


def pick_test_batch(n_pairs: int, batch_size: int, turn: int) -> np.ndarray:
    """Rows of one consecutive batch, the next one at every turn; a partial batch only where there is no whole one."""
    size = min(batch_size, n_pairs)
    start = turn % max(1, n_pairs // size) * size
    return np.arange(start, start + size)


def _measure(trainer: Trainer, music: Features, video: Features) -> BatchMetrics:
    was_training = trainer.loss.training
    trainer.loss.eval()
    output = trainer.model(music.to(trainer.device), video.to(trainer.device))
    inputs = make_loss_inputs(output, torch.arange(len(output.music.embedding), device=trainer.device))
    losses = {name: float(value) for name, value in trainer.loss(inputs).items()}
    trainer.loss.train(was_training)
    similarity = inputs.music @ inputs.video.T
    return BatchMetrics(losses, measure_recall(similarity, CURVE_KS), measure_recall(similarity.T, CURVE_KS))


def measure_recall(similarity: Tensor, ks: Sequence[int]) -> tuple[float, ...]:
    """Share of rows of (n, n) similarities whose own column is among the K largest; ties go to the lower column."""
    own = similarity.diagonal().unsqueeze(1)
    n_above = (similarity > own).sum(dim=1) + (similarity == own).tril(-1).sum(dim=1)
    return tuple(float((n_above < k).double().mean()) for k in ks)


@contextmanager
def _batch_statistics(model: nn.Module) -> Iterator[None]:
    """In the block, normalise by the statistics of the batch without keeping them, and drop nothing."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    kept = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    model.train()
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    for dropout in dropouts:
        dropout.eval()
    try:
        yield
    finally:
        for dropout in dropouts:
            dropout.train()
        for norm, buffers in zip(norms, kept, strict=True):
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])
