"""Validation during training: full-gallery ranks in both directions and the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from vmnet_pipeline.models.embedding import gather_rows
from vmnet_pipeline.models.losses import LossInputs

if TYPE_CHECKING:
    from vmnet_pipeline.models.towers import PairOutput, VMNet
    from vmnet_pipeline.records import PairArrays

RECALL_KS = (1, 5, 10)


def rank_matches(queries: Tensor, gallery: Tensor, codes: Tensor, chunk_size: int = 1024) -> Tensor:
    """Rank of each query's best match in the whole gallery, 1-based, ties by mid-rank.

    Args:
        queries: (n, E) unit vectors.
        gallery: (n, E) unit vectors; row i matches query j when their codes are equal.
        codes: (n,) integers.
        chunk_size: Queries per step; memory is chunk_size x n.

    Returns:
        (n,) float64, 1 to n.
    """
    ranks = []
    for start in range(0, len(queries), chunk_size):
        similarity = queries[start : start + chunk_size] @ gallery.T
        matches = codes[start : start + chunk_size, None] == codes[None, :]
        best = similarity.masked_fill(~matches, -torch.inf).amax(dim=1, keepdim=True)
        n_above = ((similarity > best) & ~matches).sum(dim=1)
        n_equal = ((similarity == best) & ~matches).sum(dim=1)
        ranks.append(1.0 + n_above.double() + 0.5 * n_equal.double())
    return torch.cat(ranks)


def summarise_ranks(ranks: Tensor, direction: str) -> dict[str, float]:
    """MRR, median rank and Recall@K (shares, 0-1; K below the gallery size) of (n,) ranks of one direction."""
    metrics = {
        f"mrr_{direction}": float((1.0 / ranks).mean()),
        f"median_rank_{direction}": float(np.median(ranks.cpu())),
    }
    recalls = {f"recall_at_{k}_{direction}": float((ranks <= k).double().mean()) for k in RECALL_KS if k < len(ranks)}
    return {**metrics, **recalls}


def match_mask(codes: Tensor) -> Tensor | None:
    """(B, B) bool of matching rows, or None when every row matches only itself."""
    return None if len(torch.unique(codes)) == len(codes) else codes[:, None] == codes[None, :]


def make_loss_inputs(output: PairOutput, codes: Tensor, groups: Tensor | None = None) -> LossInputs:
    """Arrange the towers' outputs of one batch for a loss."""
    music, video = output
    mask = match_mask(codes)
    return LossInputs(music.embedding, video.embedding, music.structure, video.structure, mask, codes, groups)


@torch.no_grad()
def evaluate_model(
    model: VMNet, loss: nn.Module, pairs: PairArrays, codes: np.ndarray, batch_size: int
) -> dict[str, float]:
    """Evaluate on every pair in inference mode; leaves the model in that mode.

    Returns:
        `loss` (mean over batches, weighted by size), `mrr` (mean of both directions), and per direction `xy`
        (music -> video) and `yx`: `mrr_`, `median_rank_`, `recall_at_K_`.
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
    x, y, keys = torch.cat(music), torch.cat(video), torch.from_numpy(codes).to(device)
    metrics = {
        **summarise_ranks(rank_matches(x, y, keys), "xy"),
        **summarise_ranks(rank_matches(y, x, keys), "yx"),
    }
    mrr = (metrics["mrr_xy"] + metrics["mrr_yx"]) / 2.0
    return cast("dict[str, float]", {"loss": total / len(pairs), "mrr": mrr, **metrics})
