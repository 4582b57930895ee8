from __future__ import annotations

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training.batches import add_noise, mix_pairs
from vmnet_pipeline.training.optim import Schedule, WeightAverage, build_optimiser
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


LR, EPSILON, N_STEPS = 0.1, 1e-3, 12

START = np.array([0.5, -1.0, 2.0])

GRADIENTS = np.random.default_rng(0).normal(size=(N_STEPS, 3)) * [1e-3, 1.0, 1e-2]


def follow_recurrence(*, before_correction: bool) -> np.ndarray:
    """Adam's published recurrence in float64; the epsilon stands at either of the two places."""
    weights, first, second = START.copy(), np.zeros(3), np.zeros(3)
    for t, gradient in enumerate(GRADIENTS, start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        if before_correction:
            rate = LR * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            weights = weights - rate * first / (np.sqrt(second) + EPSILON)
        else:
            weights = weights - LR * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + EPSILON)
    return weights


def follow_ours(*, before_correction: bool) -> np.ndarray:
    layer = nn.Module()
    layer.weight = nn.Parameter(torch.tensor(START, dtype=torch.float32))
    schedule = Schedule(LR, epsilon=EPSILON, epsilon_before_correction=before_correction)
    optimiser = build_optimiser(layer, nn.Identity(), learning_rate=LR, epsilon=EPSILON)
    for t, gradient in enumerate(GRADIENTS, start=1):
        optimiser.param_groups[0]["eps"] = schedule.epsilon_at(t - 1)
        layer.weight.grad = torch.tensor(gradient, dtype=torch.float32)
        optimiser.step()
    return layer.weight.detach().numpy()


def test_epsilon_stands_where_it_is_wanted() -> None:
    expected = {form: follow_recurrence(before_correction=form) for form in (True, False)}
    assert np.abs(expected[True] - expected[False]).max() > 0.02  # else the test shows nothing
    for form, weights in expected.items():
        np.testing.assert_allclose(follow_ours(before_correction=form), weights, atol=1e-5)


TENSORFLOW = """
import json, sys
import tensorflow as tf
tf1 = tf.compat.v1
tf1.disable_eager_execution()
start, gradients, rate, epsilon = json.loads(sys.argv[1])
weight, gradient = tf1.get_variable("w", initializer=tf.constant(start)), tf1.placeholder(tf.float32, (3,))
step = tf1.train.AdamOptimizer(rate, epsilon=epsilon).apply_gradients([(gradient, weight)])
with tf1.Session() as session:
    session.run(tf1.global_variables_initializer())
    for value in gradients:
        session.run(step, {gradient: value})
    print(json.dumps(session.run(weight).tolist()))
"""


@pytest.mark.process
def test_adam_is_that_of_tensorflow() -> None:
    given = json.dumps([START.tolist(), GRADIENTS.tolist(), LR, EPSILON])
    done = subprocess.run([sys.executable, "-c", TENSORFLOW, given], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(follow_ours(before_correction=True), json.loads(done.stdout), atol=1e-5)
