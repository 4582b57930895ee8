from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from vmnet_pipeline.models.losses import ContrastiveLoss, LossInputs, build_loss, ranking_loss


def make_batch(
    n: int = 6, seed: int = 0, codes: list[int] | None = None, groups: list[int] | None = None
) -> LossInputs:
    generator = torch.Generator().manual_seed(seed)
    x, y = (functional.normalize(torch.randn(n, 4, generator=generator), dim=1) for _ in range(2))
    first, second = (None if c is None else torch.tensor(c) for c in (codes, groups))
    return LossInputs(x, y, x, y, None, first, second)


def naive(x: np.ndarray, y: np.ndarray, codes: list[int], groups: list[int], temperature: float) -> float:
    total = 0.0
    for i in range(len(x)):
        kept = [j for j in range(len(y)) if codes[j] == codes[i] or groups[j] != groups[i]]
        below = math.log(sum(math.exp(x[i] @ y[j] / temperature) for j in kept))
        right = [j for j in kept if codes[j] == codes[i]]
        total -= sum(x[i] @ y[j] / temperature - below for j in right) / len(right)
    return total / len(x)


@pytest.mark.parametrize(
    ("codes", "groups"),
    [(range(6), range(6)), (range(6), [0, 0, 0, 1, 2, 2]), ([0, 1, 0, 2, 3, 4], [0, 1, 0, 1, 2, 2])],
    ids=["alone", "groups", "several matches"],
)
def test_loss_is_that_of_a_naive_loop(codes: list[int], groups: list[int]) -> None:
    batch = make_batch(codes=list(codes), groups=list(groups))
    terms = ContrastiveLoss(embedding_dim=4, temperature=0.2)(batch)
    x, y = batch.music.numpy().astype(float), batch.video.numpy().astype(float)
    assert float(terms["ranking_xy"]) == pytest.approx(naive(x, y, list(codes), list(groups), 0.2), rel=1e-5)
    assert float(terms["ranking_yx"]) == pytest.approx(naive(y, x, list(codes), list(groups), 0.2), rel=1e-5)
    assert float(terms["total"]) == pytest.approx(float(terms["ranking_xy"] + terms["ranking_yx"]) / 2)


def test_memory_adds_unrelated_negatives_only() -> None:
    loss = ContrastiveLoss(embedding_dim=4, memory_size=5).train()
    plain = ContrastiveLoss(embedding_dim=4)
    first = make_batch(3, 1, [0, 1, 2], [0, 1, 2])
    assert float(loss(first)["total"]) == pytest.approx(float(plain(first)["total"]))  # an empty memory changes nothing
    assert loss.memory_codes.tolist() == [0, 1, 2, -1, -1]
    same = make_batch(3, 2, [0, 1, 2], [0, 0, 0])
    loss.memory_groups[:3] = 0
    assert float(loss(same)["total"]) == pytest.approx(float(plain(same)["total"]))  # all of them related
    other = make_batch(3, 3, [7, 8, 9], [7, 8, 9])
    assert float(loss(other)["total"]) > float(plain(other)["total"])
    assert loss.memory_codes.tolist() == [7, 8, 9, 0, 1]
    loss.eval()
    assert float(loss(other)["total"]) == pytest.approx(float(plain(other)["total"]))
    assert not loss.memory_music.requires_grad


def test_temperature_is_learned_or_fixed() -> None:
    for learned in (True, False):
        loss = build_loss("contrastive", embedding_dim=4, learn_temperature=learned, margin=0.5)
        batch = make_batch()
        batch.music.requires_grad_()
        loss(batch)["total"].backward()
        assert (loss.log_scale.grad is not None) is learned  # type: ignore[union-attr]


def test_gradients_are_finite_and_right() -> None:
    loss = ContrastiveLoss(embedding_dim=4, temperature=0.5).double()
    x = torch.randn(4, 4, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    codes, groups = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 0, 1, 1])

    def total(x: torch.Tensor) -> torch.Tensor:
        return loss(LossInputs(x, x.flip(0) * 0.3 + 0.1, x, x, None, codes, groups))["total"]

    assert torch.autograd.gradcheck(total, x)


def test_semi_hard_negatives_are_less_similar_than_the_positive() -> None:
    y = torch.eye(3)
    x = torch.tensor([[0.6, 0.8, 0.0], [0.0, 1.0, 0.0], [0.3, 0.0, 0.954]])
    # Row 0 has a negative above its positive (0.8 > 0.6), which counts only among the hardest.
    hardest = ranking_loss(x, y, margin=0.5, top_k=1, negatives="hardest")
    semi_hard = ranking_loss(x, y, margin=0.5, top_k=1, negatives="semi_hard")
    assert float(hardest) == pytest.approx(0.7 / 3)
    assert float(semi_hard) == pytest.approx(0.0)
    assert float(ranking_loss(x, y, margin=0.7, top_k=1, negatives="semi_hard")) == pytest.approx(
        (0.1 + 0.046) / 3, abs=1e-6
    )
