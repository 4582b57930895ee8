"""Validate during training: full-gallery ranks in both directions and the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from vmnet_pipeline.errors import TrainingError
from vmnet_pipeline.evaluation.metrics import measure_retrieval
from vmnet_pipeline.models.embed import embed_arrays, find_finite, gather_rows
from vmnet_pipeline.models.losses import LossInputs
from vmnet_pipeline.training.data import encode_matches
from vmnet_pipeline.types import SIDES

if TYPE_CHECKING:
    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.models.types import PairOutput
    from vmnet_pipeline.types import PairArrays

CHUNK_ROWS = 1024


def match_mask(codes: Tensor) -> Tensor | None:
    """(B, B) bool of matching rows, or None when every row matches only itself."""
    return None if len(torch.unique(codes)) == len(codes) else codes[:, None] == codes[None, :]


def make_loss_inputs(output: PairOutput, codes: Tensor) -> LossInputs:
    """Arrange the towers' outputs of one batch for a loss that takes no notice of groups; (B,) codes."""
    music, video = output
    return LossInputs(music.embedding, video.embedding, music.structure, video.structure, match_mask(codes), codes)


def explain_bad_loss(pairs: PairArrays, rows: np.ndarray, learning_rate: float) -> str:
    """Explain why the loss over some rows is not finite, and the remedy, as the end of a sentence."""
    if bad := _name_bad_items(pairs, rows):
        return f": {bad}"
    return f", though all features are; use a smaller learning_rate (now {learning_rate:g})"


def require_finite(pairs: PairArrays) -> None:
    """Refuse pairs with features that are not finite, by name.

    Raises:
        TrainingError: There are some.
    """
    if bad := _name_bad_items(pairs, np.arange(len(pairs))):
        raise TrainingError(bad)


def _name_bad_items(pairs: PairArrays, rows: np.ndarray) -> str:
    bad: list[str] = []
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = rows[start : start + CHUNK_ROWS]
        finite = [find_finite(gather_rows(array, chunk)).numpy() for array in (pairs.music, pairs.video)]
        bad += [pairs.ids[row] for row in chunk[~np.logical_and(*finite)]]
    more = "" if len(bad) <= 5 else f" and {len(bad) - 5} more"
    return f"features of {', '.join(bad[:5])}{more} hold NaN or infinity; extract these items again" if bad else ""


def measure_network(
    model: VMNet, pairs: PairArrays, positives_by: Literal["id", "group", "position"]
) -> dict[str, float]:
    """Figures of `measure_retrieval` over all of these pairs."""
    music, video = (torch.from_numpy(embed_arrays(model, **{side: getattr(pairs, side)})) for side in SIDES)
    return measure_retrieval(music, video, torch.from_numpy(encode_matches(pairs, positives_by)))


@torch.no_grad()
def evaluate_model(
    model: VMNet, loss: nn.Module, pairs: PairArrays, codes: np.ndarray, batch_size: int
) -> dict[str, float]:
    """Evaluate on every pair in inference mode; leaves the model in that mode.

    Returns:
        `loss` (mean over batches, weighted by size), and the metrics of `measure_retrieval`.
    """
    model.eval()
    loss.eval()
    device = next(model.parameters()).device
    music, video, total = [], [], 0.0
    for rows in np.array_split(np.arange(len(pairs)), -(-len(pairs) // batch_size)):
        output = model(gather_rows(pairs.music, rows).to(device), gather_rows(pairs.video, rows).to(device))
        inputs = make_loss_inputs(output, torch.from_numpy(codes[rows]).to(device))
        total += float(loss(inputs)["total"]) * len(rows)
        music.append(inputs.music)
        video.append(inputs.video)
    metrics = measure_retrieval(torch.cat(music), torch.cat(video), torch.from_numpy(codes).to(device))
    return cast("dict[str, float]", {"loss": total / len(pairs), **metrics})
