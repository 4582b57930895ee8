"""Structure losses: neighbours among the features of one side stay neighbours in the shared space.

Embeddings are (B, E) unit vectors; features are (B, D) of any length, normalised here to give u.

Source: arXiv:1704.06761, section 3.3.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def structure_loss_adjacent(embeddings: Tensor, features: Tensor, top_k: int | None = None) -> Tensor:
    """Structure loss over neighbouring columns, in the order of the batch, as the reference code has it.

    mean over i < K, j < K - 1 of (sign D_ij(emb) - sign D_ij(u)) D_ij(emb), with D_ij(a) = a_i.a_j - a_i.a_(j+1).
    The sign has no gradient. K is `top_k`, at most B; None for B.

    Returns:
        Scalar >= 0; 0 if fewer than two items are used.
    """
    k = len(embeddings) if top_k is None else min(top_k, len(embeddings))
    if k < 2:
        return embeddings.sum() * 0.0
    rows = embeddings[:k]
    similarity = rows @ rows.T  # (K, K)
    with torch.no_grad():
        u = functional.normalize(features[:k], dim=1)
        wanted = u @ u.T
        wanted_sign = torch.sign(wanted[:, :-1] - wanted[:, 1:])
    difference = similarity[:, :-1] - similarity[:, 1:]  # (K, K - 1)
    return ((torch.sign(difference.detach()) - wanted_sign) * difference).mean()


def structure_loss_all(embeddings: Tensor, features: Tensor) -> Tensor:
    """Structure loss as the mean over all ordered triples (i, j, k) of distinct items.

    The summand is (sign D_ijk(emb) - sign D_ijk(u)) D_ijk(emb), with D_ijk(a) = a_i.a_j - a_i.a_k. D is linear in the
    similarities and antisymmetric in j and k, so the sum over k is a count of smaller minus greater entries in a row:
    sorting gives the exact mean in O(B^2 log B) time and O(B^2) memory, and nothing needs to be sampled.

    Returns:
        Scalar >= 0 up to rounding; 0 for fewer than three items.
    """
    n = len(embeddings)
    if n < 3:
        return embeddings.sum() * 0.0
    similarity = _drop_diagonal(embeddings @ embeddings.T)  # (B, B - 1)
    with torch.no_grad():
        u = functional.normalize(features, dim=1)
        weight = _sum_signs(similarity.detach()) - _sum_signs(_drop_diagonal(u @ u.T))
    return 2.0 * (weight * similarity).sum() / (n * (n - 1) * (n - 2))


def structure_loss_sampled(embeddings: Tensor, features: Tensor, n_triples: int) -> Tensor:
    """Structure loss as the mean over triples of distinct items, drawn with replacement.

    Its expectation is `structure_loss_all`. The draw takes the default random generator of the tensors' device.

    Returns:
        Scalar >= 0; 0 for fewer than three items.
    """
    n = len(embeddings)
    if n < 3:
        return embeddings.sum() * 0.0
    i, j, k = draw_triples(n, n_triples, embeddings.device)
    similarity = embeddings @ embeddings.T  # (B, B)
    difference = similarity[i, j] - similarity[i, k]  # (n_triples,)
    with torch.no_grad():
        u = functional.normalize(features, dim=1)
        wanted = u @ u.T
        sign = torch.sign(difference) - torch.sign(wanted[i, j] - wanted[i, k])
    return (sign * difference).mean()


def draw_triples(n_items: int, n_triples: int, device: torch.device | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Three (n_triples,) int64 tensors of indices below `n_items`, distinct within a triple; all are equally likely."""
    first, step, other = (torch.randint(n_items - taken, (n_triples,), device=device) for taken in range(3))
    # Counted from the first one, the second is 1 to n - 1 places on; the third skips the place of the second.
    return first, (first + 1 + step) % n_items, (first + 1 + other + (other >= step)) % n_items


def _drop_diagonal(square: Tensor) -> Tensor:
    """(B, B) -> (B, B - 1): every row without its diagonal entry, order kept."""
    n = len(square)
    return square.flatten()[1:].view(n - 1, n + 1)[:, :-1].reshape(n, n - 1)


def _sum_signs(rows: Tensor) -> Tensor:
    """Sum over k of sign(a_ij - a_ik) for every entry of (B, M): how many in its row are smaller, minus greater."""
    order = _argsort_rows(rows)
    ordered = rows.gather(1, order)
    last = rows.shape[1] - 1
    place = torch.arange(last + 1, dtype=torch.int32, device=rows.device)
    # Equal entries stand side by side: each counts from the first place of its kind, and from the last one.
    steps_up = functional.pad(ordered[:, 1:] != ordered[:, :-1], (1, 1), value=True)  # (B, M + 1)
    n_smaller = (place * steps_up[:, :-1]).cummax(dim=1).values
    n_greater = ((last - place) * steps_up[:, 1:]).flip(1).cummax(dim=1).values.flip(1)
    return torch.empty_like(rows).scatter_(1, order, (n_smaller - n_greater).to(rows.dtype))


def _argsort_rows(rows: Tensor) -> Tensor:
    """(B, M) int64 places in ascending order of each row; where entries are equal, in any order."""
    if rows.device.type == "cpu":  # NumPy's vectorised sort takes a sixth of the time of torch's
        return torch.from_numpy(np.argsort(rows.numpy(), axis=1))
    return rows.argsort(dim=1)
