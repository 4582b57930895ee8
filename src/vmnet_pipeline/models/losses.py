"""Losses over a batch of embedded pairs: tensors in, scalars out.

The functions are the mathematics; a *loss* for the training loop is a module from `LossInputs` to named scalars, one
of which is `total`, listed in `LOSSES`.

The structure terms are in `structure`. Source: arXiv:1704.06761, sections 3.2 and 3.3.
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.models.structure_loss import structure_loss_adjacent, structure_loss_all, structure_loss_sampled

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SCALE = 1000.0  # of similarities in the contrastive loss; canonical towers start near 100

StructureTriples = Literal["all", "sampled", "adjacent"]
Hinge = Literal["mean", "sum"]
Negatives = Literal["hardest", "semi_hard"]


class LossInputs(NamedTuple):
    """One batch, as a loss sees it; row i of music and of video belong together.

    Attributes:
        music: (B, E) float32 unit vectors.
        video: (B, E) float32 unit vectors.
        music_structure: (B, Dm) float32, the features whose neighbourhoods the music space keeps; any length.
        video_structure: (B, Dv) float32, the same for video.
        positives: (B, B) bool, music i matches video j; None for the diagonal.
        codes: (B,) int64, equal for rows that match; None where only the diagonal does.
        groups: (B,) int64, equal for rows of one group (song); None when groups do not matter.
    """

    music: Tensor
    video: Tensor
    music_structure: Tensor
    video_structure: Tensor
    positives: Tensor | None = None
    codes: Tensor | None = None
    groups: Tensor | None = None


def ranking_loss(
    x: Tensor,
    y: Tensor,
    positives: Tensor | None = None,
    *,
    margin: float,
    top_k: int | None = None,
    negatives: Negatives = "hardest",
    hinge: Hinge = "mean",
) -> Tensor:
    """Hinge on the hardest negatives y_j of every query x_i; the other direction is the call with x and y exchanged.

    mean over i and over the K largest s_ij of max(0, margin + s_ij - s_i+), where s_i+ is the similarity to the
    farthest positive. A positive that falls into the K counts 0, so with K = B the mean is over B slots. The paper sums
    instead: every violation counts in full, however few there are, so the term does not fade next to the structure
    terms as training goes on, and K only cuts its peaks. The mean over queries stays; it takes the size of the batch
    out of the weights.

    Args:
        x: (B, E) unit vectors, the queries.
        y: (B, E) unit vectors.
        positives: (B, B) bool, at least one per row; None for the diagonal.
        margin: Least wanted gap of cosine similarity, 0-2.
        top_k: K, cut to B; None for B.
        negatives: `hardest` takes the K most similar ones. `semi_hard` first drops those above the positive, which are
            often mislabelled or near copies; those beyond the margin count 0 as always (arXiv:1503.03832).
        hinge: `mean` over the K negatives, as the original code has it, or `sum` over them, which is K times as much.

    Returns:
        Scalar >= 0.
    """
    similarity = x @ y.T  # (B, B)
    if positives is None:
        positives = torch.eye(len(x), dtype=torch.bool, device=x.device)
        hardest_positive = similarity.diagonal().unsqueeze(1)  # (B, 1)
    else:
        hardest_positive = similarity.masked_fill(~positives, torch.inf).amin(dim=1, keepdim=True)
    left_out = positives if negatives == "hardest" else positives | (similarity >= hardest_positive)
    costs = torch.relu(margin + similarity - hardest_positive).masked_fill(left_out, 0.0)
    k = len(x) if top_k is None else min(top_k, len(x))
    # Along a row the cost grows with the similarity, so the K largest costs are those of the K hardest negatives.
    kept = costs if k == len(x) else costs.topk(k, dim=1, sorted=False).values  # (B, K)
    return kept.mean() if hinge == "mean" else kept.sum(dim=1).mean()


class VMNetLoss(nn.Module):
    """Two ranking terms and two structure terms, weighted.

    Args:
        margin: Margin of the ranking terms, cosine similarity.
        top_k: Negatives kept per query; None for all. With adjacent triples also the size of the structure block.
        negatives: Which negatives the K are taken from, see `ranking_loss`.
        hinge: Mean or sum over the negatives kept, see `ranking_loss`.
        structure_triples: `all` distinct triples, `sampled` ones in training and all in evaluation, or the `adjacent`
            columns of the reference.
        n_structure_triples: Triples drawn in a step if sampled.
        weight_xy: Of music -> video ranking.
        weight_yx: Of video -> music ranking.
        weight_structure_music: Of the structure of the music space.
        weight_structure_video: Of the structure of the video space.
    """

    def __init__(
        self,
        *,
        margin: float = 0.5,
        top_k: int | None = None,
        negatives: Negatives = "hardest",
        hinge: Hinge = "mean",
        structure_triples: StructureTriples = "all",
        n_structure_triples: int = 10_000,
        weight_xy: float = 3.0,
        weight_yx: float = 1.0,
        weight_structure_music: float = 0.2,
        weight_structure_video: float = 0.2,
    ) -> None:
        super().__init__()
        self.margin = margin
        self.top_k = top_k
        self.negatives: Negatives = negatives
        self.hinge: Hinge = hinge
        self.structure_triples = structure_triples
        self.n_structure_triples = n_structure_triples
        self.weights = {
            "ranking_xy": weight_xy,
            "ranking_yx": weight_yx,
            "structure_music": weight_structure_music,
            "structure_video": weight_structure_video,
        }

    def forward(self, batch: LossInputs) -> dict[str, Tensor]:
        """Scalars `ranking_xy`, `ranking_yx`, `structure_music`, `structure_video` (unweighted) and `total`."""
        transposed = None if batch.positives is None else batch.positives.T
        terms = {
            "ranking_xy": self._rank(batch.music, batch.video, batch.positives),
            "ranking_yx": self._rank(batch.video, batch.music, transposed),
            "structure_music": self._structure(batch.music, batch.music_structure),
            "structure_video": self._structure(batch.video, batch.video_structure),
        }
        total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return {**terms, "total": total}

    def _rank(self, x: Tensor, y: Tensor, positives: Tensor | None) -> Tensor:
        return ranking_loss(
            x, y, positives, margin=self.margin, top_k=self.top_k, negatives=self.negatives, hinge=self.hinge
        )

    def _structure(self, embeddings: Tensor, features: Tensor) -> Tensor:
        if self.structure_triples == "adjacent":
            return structure_loss_adjacent(embeddings, features, self.top_k)
        if self.structure_triples == "sampled" and self.training:
            return structure_loss_sampled(embeddings, features, self.n_structure_triples)
        return structure_loss_all(embeddings, features)


class ContrastiveLoss(nn.Module):
    """Symmetric cross-entropy over a batch (InfoNCE) with a temperature that is learned or fixed.

    Pairs of one group that do not match are left out of the denominators: two cuts of one song are neither positives
    nor negatives. With several matches the mean over them is taken. A memory adds embeddings of earlier batches to the
    negatives.

    Args:
        embedding_dim: E.
        temperature: First value, on cosine similarity.
        learn_temperature: Whether it is trained.
        memory_size: Earlier embeddings of each side kept as further negatives; 0 for none.

    Source: A. van den Oord, Y. Li, O. Vinyals, arXiv:1807.03748; A. Radford et al., arXiv:2103.00020 (symmetric, with a
    learned temperature); X. Wang et al., arXiv:1912.06798 (cross-batch memory).
    """

    memory_music: Tensor
    memory_video: Tensor
    memory_codes: Tensor
    memory_groups: Tensor

    def __init__(
        self, *, embedding_dim: int, temperature: float = 0.07, learn_temperature: bool = True, memory_size: int = 0
    ) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=learn_temperature)
        self.register_buffer("memory_music", torch.zeros(memory_size, embedding_dim))
        self.register_buffer("memory_video", torch.zeros(memory_size, embedding_dim))
        # An empty slot has code -1 and is left out, as if it were of the query's own group.
        self.register_buffer("memory_codes", torch.full((memory_size,), -1, dtype=torch.int64))
        self.register_buffer("memory_groups", torch.full((memory_size,), -1, dtype=torch.int64))

    @torch.no_grad()
    def set_scale(self, scale: float) -> None:
        """Start from a factor on cosine similarities, the inverse of the temperature."""
        self.log_scale.fill_(math.log(min(scale, MAX_SCALE)))

    def forward(self, batch: LossInputs) -> dict[str, Tensor]:
        """Scalars `ranking_xy`, `ranking_yx`, `scale` and `total`, the mean of the first two; >= 0."""
        codes = torch.arange(len(batch.music), device=batch.music.device) if batch.codes is None else batch.codes
        groups = codes if batch.groups is None else batch.groups
        scale = self.log_scale.clamp(0.0, math.log(MAX_SCALE)).exp()
        xy = self._direction(batch.music, batch.video, self.memory_video, codes, groups, scale)
        yx = self._direction(batch.video, batch.music, self.memory_music, codes, groups, scale)
        if self.training and len(self.memory_codes):
            self._remember(batch, codes, groups)
        return {"ranking_xy": xy, "ranking_yx": yx, "scale": scale, "total": (xy + yx) / 2.0}

    def _direction(self, x: Tensor, y: Tensor, memory: Tensor, codes: Tensor, groups: Tensor, scale: Tensor) -> Tensor:
        uses_memory = self.training and len(memory) > 0
        gallery = torch.cat([y, memory]) if uses_memory else y  # (G, E)
        gallery_codes = torch.cat([codes, self.memory_codes]) if uses_memory else codes
        gallery_groups = torch.cat([groups, self.memory_groups]) if uses_memory else groups
        positives = codes[:, None] == gallery_codes[None, :]  # (B, G)
        if uses_memory:
            positives[:, len(y) :] = False  # stale: a match is learned from the current batch only
        related = (groups[:, None] == gallery_groups[None, :]) | (codes[:, None] == gallery_codes[None, :])
        left_out = (related | (gallery_codes < 0)[None, :]) & ~positives
        logits = (scale * (x @ gallery.T)).masked_fill(left_out, -torch.inf)  # (B, G)
        log_share = functional.log_softmax(logits, dim=1).masked_fill(~positives, 0.0)
        return -(log_share.sum(dim=1) / positives.sum(dim=1)).mean()

    @torch.no_grad()
    def _remember(self, batch: LossInputs, codes: Tensor, groups: Tensor) -> None:
        size = len(self.memory_codes)
        for name, new in (("music", batch.music), ("video", batch.video), ("codes", codes), ("groups", groups)):
            old = getattr(self, f"memory_{name}")
            old.copy_(torch.cat([new.detach(), old])[:size])


LOSSES: dict[str, Callable[..., nn.Module]] = {"vmnet": VMNetLoss, "contrastive": ContrastiveLoss}


def build_loss(name: str, *, embedding_dim: int = 512, **settings: Any) -> nn.Module:
    """Build a loss by name; it takes its own from one flat set of settings that serves all losses.

    Raises:
        ParameterError: The loss is unknown.
    """
    if name not in LOSSES:
        raise ParameterError(f"there is no loss '{name}'; choose one of {', '.join(sorted(LOSSES))}")
    taken = inspect.signature(LOSSES[name]).parameters
    settings["embedding_dim"] = embedding_dim
    return LOSSES[name](**{setting: value for setting, value in settings.items() if setting in taken})
