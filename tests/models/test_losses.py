from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.models.losses import ContrastiveLoss, LossInputs, VMNetLoss, build_loss, ranking_loss
from vmnet_pipeline.models.structure_loss import (
    draw_triples,
    structure_loss_adjacent,
    structure_loss_all,
    structure_loss_sampled,
)


def golden_matrix(n: int, dim: int, p: float) -> Tensor:
    i, j = np.arange(n)[:, None], np.arange(dim)[None, :]
    return torch.from_numpy(np.sin(1 + 0.7 * i + 1.3 * j + 0.37 * p * (i + 1) * (j + 1)))


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True)


def golden_batch() -> LossInputs:
    return LossInputs(
        unit(golden_matrix(6, 4, 0)), unit(golden_matrix(6, 4, 1)), golden_matrix(6, 5, 0.5), golden_matrix(6, 7, 0.8)
    )


def random_unit(n: int, dim: int, seed: int) -> Tensor:
    return unit(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def naive_ranking(x: Tensor, y: Tensor, positives: Tensor, margin: float, k: int) -> float:
    total = 0.0
    for i in range(len(x)):
        hardest = min(float(x[i] @ y[j]) for j in range(len(y)) if positives[i, j])
        negatives = sorted((float(x[i] @ y[j]) for j in range(len(y)) if not positives[i, j]), reverse=True)
        total += sum(max(0.0, margin + s - hardest) for s in negatives[:k])
    return total / (len(x) * k)


def naive_structure(embeddings: Tensor, features: Tensor) -> float:
    s, u = embeddings @ embeddings.T, unit(features) @ unit(features).T
    values = []
    for i, j, k in itertools.permutations(range(len(embeddings)), 3):
        d = float(s[i, j] - s[i, k])
        values.append((np.sign(d) - np.sign(float(u[i, j] - u[i, k]))) * d)
    return float(np.mean(values))


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (6, (0.488499, 0.488644, 0.254520, 0.195828, 2.044211)),
        (3, (0.763735, 0.747090, 0.000000, 0.161318, 3.070559)),
    ],
)
def test_golden_vectors(k: int, expected: tuple[float, ...]) -> None:
    terms = VMNetLoss(margin=0.5, top_k=k, structure_triples="adjacent")(golden_batch())
    names = ("ranking_xy", "ranking_yx", "structure_music", "structure_video", "total")
    assert [float(terms[name]) for name in names] == pytest.approx(expected, abs=1e-6)


def test_golden_vectors_of_all_triples() -> None:
    batch = golden_batch()
    assert float(structure_loss_all(batch.music, batch.music_structure)) == pytest.approx(0.419727, abs=1e-6)
    assert float(structure_loss_all(batch.video, batch.video_structure)) == pytest.approx(0.527133, abs=1e-6)


@pytest.mark.parametrize("k", [1, 3, 7, 11])
def test_ranking_matches_a_naive_loop(k: int) -> None:
    x, y = random_unit(12, 5, 1), random_unit(12, 5, 2)
    expected = naive_ranking(x, y, torch.eye(12, dtype=torch.bool), 0.3, k)
    assert float(ranking_loss(x, y, margin=0.3, top_k=k)) == pytest.approx(expected, abs=1e-12)


def test_with_several_positives_only_the_farthest_counts_and_none_is_a_negative() -> None:
    codes = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4])
    positives = codes[:, None] == codes[None, :]
    x, y = random_unit(8, 4, 3), random_unit(8, 4, 4)
    for k in (1, 2, 5):
        expected = naive_ranking(x, y, positives, 0.4, k)
        assert float(ranking_loss(x, y, positives, margin=0.4, top_k=k)) == pytest.approx(expected, abs=1e-12)
    # With K = B every positive's slot counts 0.
    full = naive_ranking(x, y, positives, 0.4, 8)
    assert float(ranking_loss(x, y, positives, margin=0.4)) == pytest.approx(full, abs=1e-12)


def test_a_matrix_of_positives_on_the_diagonal_is_the_default() -> None:
    x, y = random_unit(6, 4, 5), random_unit(6, 4, 6)
    eye = torch.eye(6, dtype=torch.bool)
    assert float(ranking_loss(x, y, eye, margin=0.5, top_k=2)) == float(ranking_loss(x, y, margin=0.5, top_k=2))


def test_k_is_cut_to_small_batches() -> None:
    x, y = random_unit(5, 4, 7), random_unit(5, 4, 8)
    assert float(ranking_loss(x, y, margin=0.5, top_k=1024)) == float(ranking_loss(x, y, margin=0.5))
    cut = structure_loss_adjacent(x, y, 1024)
    assert float(cut) == float(structure_loss_adjacent(x, y))


def test_both_directions_use_the_transposed_positives() -> None:
    # Asymmetric on purpose: music 0 matches videos 0 and 1, music 1 only video 1.
    positives = torch.tensor([[True, True, False], [False, True, False], [False, False, True]])
    x, y = random_unit(3, 4, 9), random_unit(3, 4, 10)
    terms = VMNetLoss()(LossInputs(x, y, x, y, positives))
    assert float(terms["ranking_xy"]) == pytest.approx(naive_ranking(x, y, positives, 0.5, 3))
    assert float(terms["ranking_yx"]) == pytest.approx(naive_ranking(y, x, positives.T, 0.5, 3))


@pytest.mark.parametrize("n", [3, 4, 9])
def test_all_triples_match_a_naive_loop(n: int) -> None:
    embeddings, features = random_unit(n, 4, 11), torch.randn(n, 6, dtype=torch.float64)
    assert float(structure_loss_all(embeddings, features)) == pytest.approx(
        naive_structure(embeddings, features), abs=1e-12
    )


def test_all_triples_with_ties_match_a_naive_loop() -> None:
    # Axis-parallel vectors: products are exactly 0 or 1, so most differences are ties.
    embeddings = torch.eye(3, dtype=torch.float64)[[0, 1, 0, 2, 1, 0]]
    features = torch.eye(4, dtype=torch.float64)[[0, 0, 3, 1, 1, 2]]
    value = naive_structure(embeddings, features)
    assert value > 0
    assert float(structure_loss_all(embeddings, features)) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("k", [1, 4, None])
def test_sum_of_violations_matches_a_naive_loop(k: int | None) -> None:
    codes = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 5])
    positives = codes[:, None] == codes[None, :]
    x, y = random_unit(9, 4, 3), random_unit(9, 4, 4)
    total, n_violating = 0.0, 0
    for i in range(9):
        hardest = min(float(x[i] @ y[j]) for j in range(9) if positives[i, j])
        costs = [0.2 + float(x[i] @ y[j]) - hardest for j in range(9) if not positives[i, j]]
        violations = sorted((cost for cost in costs if cost > 0), reverse=True)[:k]
        total, n_violating = total + sum(violations), n_violating + len(violations)
    value = float(ranking_loss(x, y, positives, margin=0.2, top_k=k, hinge="sum"))
    assert value == pytest.approx(total / 9, abs=1e-12)
    assert n_violating >= 9
    loss = VMNetLoss(margin=0.2, top_k=k, hinge="sum")
    assert float(loss(LossInputs(x, y, x, y, positives))["ranking_xy"]) == pytest.approx(value, abs=1e-12)


def test_drawn_triples_are_distinct_and_equally_likely() -> None:
    torch.manual_seed(0)
    i, j, k = draw_triples(4, 24_000)
    triples = list(zip(i.tolist(), j.tolist(), k.tolist(), strict=True))
    assert set(triples) == set(itertools.permutations(range(4), 3))
    counts = np.unique(np.array(triples), axis=0, return_counts=True)[1]
    assert np.abs(counts - 1000).max() < 5 * 1000**0.5  # standard deviation of a count: about 31


def test_sampled_triples_match_a_naive_loop_over_the_same_ones() -> None:
    embeddings, features = random_unit(7, 4, 11), 3.0 * torch.randn(7, 6, dtype=torch.float64)
    torch.manual_seed(3)
    drawn = draw_triples(7, 50)
    s, u = embeddings @ embeddings.T, unit(features) @ unit(features).T
    values = []
    for i, j, k in zip(*(part.tolist() for part in drawn), strict=True):
        d = float(s[i, j] - s[i, k])
        values.append((np.sign(d) - np.sign(float(u[i, j] - u[i, k]))) * d)
    torch.manual_seed(3)
    assert float(structure_loss_sampled(embeddings, features, 50)) == pytest.approx(np.mean(values), abs=1e-12)


def test_sampled_triples_tend_to_all_of_them_and_evaluation_takes_all() -> None:
    batch = golden_batch()
    loss = VMNetLoss(structure_triples="sampled", n_structure_triples=40_000)
    torch.manual_seed(1)
    assert float(loss(batch)["structure_music"]) == pytest.approx(0.419727, abs=0.02)
    assert float(loss(batch)["structure_music"]) != float(loss(batch)["structure_music"])
    loss.eval()
    assert float(loss(batch)["structure_music"]) == pytest.approx(0.419727, abs=1e-6)


def test_a_kept_structure_costs_nothing() -> None:
    x = random_unit(8, 5, 12)
    assert float(structure_loss_all(x, 3.0 * x)) == pytest.approx(0.0, abs=1e-12)
    assert float(structure_loss_adjacent(x, 3.0 * x)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("structure", ["all", "adjacent"])
def test_gradients_match_finite_differences(structure: str) -> None:
    u, v = random_unit(6, 5, 13), random_unit(6, 5, 14)
    loss = VMNetLoss(margin=0.5, top_k=4, structure_triples=structure)  # type: ignore[arg-type]

    def total(x: Tensor, y: Tensor) -> Tensor:
        return loss(LossInputs(x, y, u, v))["total"]

    x, y = random_unit(6, 4, 15).requires_grad_(), random_unit(6, 4, 16).requires_grad_()
    assert torch.autograd.gradcheck(total, (x, y), eps=1e-7, atol=1e-5)


def test_gradient_of_all_triples_equals_that_of_the_naive_sum() -> None:
    embeddings, features = random_unit(7, 4, 17).requires_grad_(), random_unit(7, 5, 18)
    (fast,) = torch.autograd.grad(structure_loss_all(embeddings, features), embeddings)
    s, u = embeddings @ embeddings.T, features @ features.T
    d, d_u = s[:, :, None] - s[:, None, :], u[:, :, None] - u[:, None, :]
    eye = torch.eye(7, dtype=torch.bool)
    distinct = ~(eye[:, :, None] | eye[:, None, :] | eye[None, :, :])
    naive = ((torch.sign(d.detach()) - torch.sign(d_u)) * d)[distinct].mean()
    torch.testing.assert_close(fast, torch.autograd.grad(naive, embeddings)[0])


def test_no_gradient_flows_into_the_wanted_structure() -> None:
    embeddings, features = random_unit(6, 4, 19).requires_grad_(), random_unit(6, 5, 20).requires_grad_()
    terms = [structure_loss_all(embeddings, features), structure_loss_adjacent(embeddings, features)]
    torch.stack([*terms, structure_loss_sampled(embeddings, features, 20)]).sum().backward()
    assert features.grad is None
    assert embeddings.grad is not None
    assert embeddings.grad.abs().sum() > 0


@pytest.mark.parametrize("n", [1, 2])
def test_batches_too_small_for_triples_give_zero_with_a_gradient(n: int) -> None:
    x = random_unit(n, 4, 21).requires_grad_()
    value = structure_loss_all(x, x) + structure_loss_sampled(x, x, 5)
    value.backward()
    assert value.item() == 0.0
    assert x.grad is not None


def test_weights_are_applied_to_their_own_terms() -> None:
    names = ("ranking_xy", "ranking_yx", "structure_music", "structure_video")
    none = dict.fromkeys(("weight_xy", "weight_yx", "weight_structure_music", "weight_structure_video"), 0.0)
    for name, weight in zip(names, none, strict=True):
        terms = build_loss("vmnet", **{**none, weight: 2.0})(golden_batch())
        assert float(terms["total"]) == pytest.approx(2.0 * float(terms[name]))


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(ParameterError, match="no loss 'infonce2'"):
        build_loss("infonce2")


def draw_batch(
    n: int = 6, seed: int = 0, codes: list[int] | None = None, groups: list[int] | None = None
) -> LossInputs:
    generator = torch.Generator().manual_seed(seed)
    x, y = (functional.normalize(torch.randn(n, 4, generator=generator), dim=1) for _ in range(2))
    first, second = (None if c is None else torch.tensor(c) for c in (codes, groups))
    return LossInputs(x, y, x, y, None, first, second)


def naive_contrastive(x: np.ndarray, y: np.ndarray, codes: list[int], groups: list[int], temperature: float) -> float:
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
    batch = draw_batch(codes=list(codes), groups=list(groups))
    terms = ContrastiveLoss(embedding_dim=4, temperature=0.2)(batch)
    x, y = batch.music.numpy().astype(float), batch.video.numpy().astype(float)
    assert float(terms["ranking_xy"]) == pytest.approx(
        naive_contrastive(x, y, list(codes), list(groups), 0.2), rel=1e-5
    )
    assert float(terms["ranking_yx"]) == pytest.approx(
        naive_contrastive(y, x, list(codes), list(groups), 0.2), rel=1e-5
    )
    assert float(terms["total"]) == pytest.approx(float(terms["ranking_xy"] + terms["ranking_yx"]) / 2)


def test_memory_adds_unrelated_negatives_only() -> None:
    loss = ContrastiveLoss(embedding_dim=4, memory_size=5).train()
    plain = ContrastiveLoss(embedding_dim=4)
    first = draw_batch(3, 1, [0, 1, 2], [0, 1, 2])
    assert float(loss(first)["total"]) == pytest.approx(float(plain(first)["total"]))  # an empty memory changes nothing
    assert loss.memory_codes.tolist() == [0, 1, 2, -1, -1]
    same = draw_batch(3, 2, [0, 1, 2], [0, 0, 0])
    loss.memory_groups[:3] = 0
    assert float(loss(same)["total"]) == pytest.approx(float(plain(same)["total"]))  # all of them related
    other = draw_batch(3, 3, [7, 8, 9], [7, 8, 9])
    assert float(loss(other)["total"]) > float(plain(other)["total"])
    assert loss.memory_codes.tolist() == [7, 8, 9, 0, 1]
    loss.eval()
    assert float(loss(other)["total"]) == pytest.approx(float(plain(other)["total"]))
    assert not loss.memory_music.requires_grad


def test_temperature_is_learned_or_fixed() -> None:
    for learned in (True, False):
        loss = build_loss("contrastive", embedding_dim=4, learn_temperature=learned, margin=0.5)
        batch = draw_batch()
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
