from __future__ import annotations

import itertools

import pytest
import torch

from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training.batches import add_noise, mix_pairs
from vmnet_pipeline.training.optim import WeightAverage, build_optimiser
from vmnet_pipeline.training.setup import make_schedule


def test_learning_rate_warms_up_then_follows_half_a_cosine() -> None:
    params = TrainParams(epochs=10, learning_rate=1.0, lr_schedule="cosine", warmup_epochs=2)
    rates = [make_schedule(params, 5).rate_at(step) for step in range(50)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[30] == pytest.approx(0.5)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert 0 < rates[49] < 0.01


def test_learning_rate_of_the_reference_is_a_staircase() -> None:
    params = TrainParams(protocol="reference")
    assert [make_schedule(params, 4).rate_at(step) for step in (0, 999, 1000, 2500)] == pytest.approx(
        [3e-4, 3e-4, 3e-4 * 0.96, 3e-4 * 0.96**2]
    )


def test_decay_is_for_matrices_only() -> None:
    model = build_model("musicnn", "musicnn", (4,), (5,))
    loss = torch.nn.Identity()
    assert type(build_optimiser(model, loss, learning_rate=1e-3, epsilon=1e-8)) is torch.optim.Adam
    optimiser = build_optimiser(model, loss, learning_rate=1e-3, epsilon=1e-8, weight_decay=0.1)
    assert isinstance(optimiser, torch.optim.AdamW)
    decayed, free = optimiser.param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim > 1 for p in decayed["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


def test_average_is_a_weighted_mean_of_all_weights_and_statistics() -> None:
    model = build_model("musicnn", "musicnn", (4,), (5,))
    average = WeightAverage(model, 0.5)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    for value in model.state_dict().values():
        value.add_(1)
    average.update(model, 1)  # decay 1 / 11 in the first step
    for name, value in average.model.state_dict().items():
        expected = first[name] + (10 / 11 if value.is_floating_point() else 1)
        torch.testing.assert_close(value, expected)
    average.update(model, 1000)
    name = "music.fc.weight"
    torch.testing.assert_close(average.model.state_dict()[name], first[name] + 21 / 22)


def test_noise_and_mixing_treat_both_sides_alike() -> None:
    torch.manual_seed(0)
    noise = add_noise(torch.zeros(4000, 2), torch.tensor([1.0, 3.0])).std(dim=0)
    torch.testing.assert_close(noise, torch.tensor([1.0, 3.0]), rtol=0.1, atol=0)
    music = torch.arange(8.0)[:, None].expand(8, 3)
    mixed_music, mixed_video = mix_pairs(music, music * 2, 1.0)
    torch.testing.assert_close(mixed_video, mixed_music * 2)
    assert not torch.equal(mixed_music, music)
    assert ((mixed_music - music).abs() <= 3.5 + 1e-6).all()  # the own share is at least a half
