"""A tower that looks at every step of a sequence: patches of music, frames of video.

Padding never changes an embedding: masked steps get no weight anywhere, so an item gives the same alone as next to a
longer one.

Source: arXiv:1706.03762 (attention, sinusoidal positions); arXiv:2002.04745 (layer normalisation before each part).
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vmnet_pipeline.models.types import BN_EPSILON, BN_MOMENTUM, Features, MaskedSequence, TowerOutput, init_linear

HIDDEN_DIM = 512
N_HEADS = 8


class SequenceTower(nn.Module):
    """Steps -> hidden steps -> attention pooling -> embedding: (B, T, D) with mask -> (B, E).

    The structure feature is the mean over steps, which is what pooled towers start from.

    Args:
        input_dim: D.
        embedding_dim: E.
        depth: Transformer layers between projection and pooling; without any the order of steps does not count.
        dropout: Share of activations dropped, 0-1.
    """

    takes_sequences = True

    def __init__(self, input_dim: int, embedding_dim: int, *, depth: int, dropout: float) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.project = nn.Sequential(init_linear(nn.Linear(input_dim, HIDDEN_DIM)), nn.ReLU(), nn.Dropout(dropout))
        self.layers = nn.ModuleList([TransformerLayer(HIDDEN_DIM, dropout) for _ in range(depth)])
        self.pool = AttentionPooling(HIDDEN_DIM)
        self.norm = nn.LayerNorm(HIDDEN_DIM)
        self.fc = init_linear(nn.Linear(HIDDEN_DIM, embedding_dim))
        self.bn = nn.BatchNorm1d(embedding_dim, BN_EPSILON, BN_MOMENTUM)

    def forward(self, x: Features) -> TowerOutput:
        """(B, T, D) float32, with a mask or all of it valid -> embeddings (B, E) and mean features (B, D)."""
        values, mask = x if isinstance(x, MaskedSequence) else (x, x.new_ones(x.shape[:2], dtype=torch.bool))
        hidden = self.project(values)  # (B, T, H)
        if self.layers:
            hidden = hidden + place_steps(hidden.shape[1], HIDDEN_DIM, hidden.device)
            for layer in self.layers:
                hidden = layer(hidden, mask)
        z = self.bn(self.fc(self.norm(self.pool(hidden, mask))).float())  # (B, E)
        return TowerOutput(functional.normalize(z, dim=1), average_steps(values, mask))


class AttentionPooling(nn.Module):
    """Mean of steps weighted by their agreement with learned queries, one per head: (B, T, H) -> (B, H).

    Queries start at zero, so training starts from the plain mean. Scores are not divided by sqrt(H): it is the learning
    of the queries, not of keys, that has to get away from that mean in few steps.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, N_HEADS, bias=False)  # a bias would be the same for every step
        nn.init.zeros_(self.score.weight)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, T, H) float32 and (B, T) bool -> (B, H) float32."""
        scores = self.score(hidden)  # (B, T, heads)
        weights = scores.masked_fill(~mask.unsqueeze(2), -torch.inf).softmax(dim=1)
        parts = hidden.reshape(*weights.shape, -1)  # (B, T, heads, H / heads)
        return cast("Tensor", (weights.unsqueeze(3) * parts).sum(dim=1).flatten(1))


class TransformerLayer(nn.Module):
    """Attention of every step to every valid step, then two layers on each step; both added to their input."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention_in = nn.Linear(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.widen = init_linear(nn.Linear(dim, 2 * dim))
        self.narrow = nn.Linear(2 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, H) float32 and (B, T) bool -> (B, T, H) float32."""
        heads = self.attention_in(self.attention_norm(x)).reshape(*x.shape[:2], 3, N_HEADS, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # (B, heads, T, H / heads) each
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        x = x + self.dropout(self.attention_out(seen.transpose(1, 2).flatten(2)))
        return cast("Tensor", x + self.dropout(self.narrow(torch.relu(self.widen(self.norm(x))))))


def average_steps(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the valid steps: (B, T, D) float32 and (B, T) bool -> (B, D) float32."""
    valid = mask.unsqueeze(2)
    return values.masked_fill(~valid, 0.0).sum(dim=1) / valid.sum(dim=1)


def place_steps(n_steps: int, dim: int, device: torch.device) -> Tensor:
    """(T, dim) float32 sinusoidal positions: sines, then cosines, of wavelengths from 2 pi to 2 pi 10,000 steps."""
    frequencies = torch.exp(-math.log(10_000.0) / (dim // 2) * torch.arange(dim // 2, device=device))
    angles = torch.arange(n_steps, device=device)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)
