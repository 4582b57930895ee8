"""Adam's epsilon and the running variance as TensorFlow has them, against plain recurrences and TensorFlow itself."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from tiny_pairs import draw_pairs, narrow_params
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training import train_model
from vmnet_pipeline.training.batch_norm import PopulationBatchNorm1d, use_population_variance
from vmnet_pipeline.training.optim import Schedule, build_optimiser

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


def test_running_variance_divides_by_n() -> None:
    model = build_model("vggish", "musicnn", (18, 6), (5,), dropout=0.0, embedding_dim=8)
    use_population_variance(model)
    norm = model.video.bn
    assert isinstance(norm, PopulationBatchNorm1d)
    assert type(model.music.time_fusion[0].bn) is nn.BatchNorm2d  # as TensorFlow's fused norm of convolutions
    rng = np.random.default_rng(0)
    mean, variance, by_torch = np.zeros(8), np.ones(8), np.ones(8)
    for _ in range(30):
        batch = rng.normal(1.0, 3.0, (4, 8))
        out = norm(torch.tensor(batch, dtype=torch.float32))
        mean = 0.99 * mean + 0.01 * batch.mean(axis=0)
        variance = 0.99 * variance + 0.01 * batch.var(axis=0)
        by_torch = 0.99 * by_torch + 0.01 * batch.var(axis=0, ddof=1)
        scaled = (batch - batch.mean(axis=0)) / np.sqrt(batch.var(axis=0) + 1e-3)
        np.testing.assert_allclose(out.detach().numpy(), scaled, atol=1e-5)
    np.testing.assert_allclose(norm.running_mean, mean, atol=1e-5)
    np.testing.assert_allclose(norm.running_var, variance, atol=1e-5)
    assert np.abs(variance - by_torch).max() > 0.1
    assert norm.num_batches_tracked == 30


def test_names_weights_and_gradients_stay() -> None:
    torch.manual_seed(0)
    plain = build_model("musicnn", "musicnn", (6,), (5,), dropout=0.0)
    changed = build_model("musicnn", "musicnn", (6,), (5,), dropout=0.0)
    changed.load_state_dict(plain.state_dict())
    use_population_variance(changed)
    assert changed.state_dict().keys() == plain.state_dict().keys()
    music = torch.rand(7, 6)
    for model in (plain, changed):
        model.music(music).embedding.square().sum(dim=0).max().backward()
    for one, other in zip(plain.music.parameters(), changed.music.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    expected = plain.music.hidden[0].bn.running_var - 0.99
    torch.testing.assert_close(changed.music.hidden[0].bn.running_var - 0.99, expected * 6 / 7, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("option", ["epsilon_before_correction", "population_variance"])
def test_the_option_reaches_training_and_the_default_is_as_before(tmp_path, option) -> None:
    train = draw_pairs(26, 1)
    given = {"keep": "last", "adam_epsilon": 1e-4}
    results = {
        value: train_model(train, None, narrow_params(**given, **{option: value}), state_dir=tmp_path / str(value))
        for value in (True, False)
    }
    default = train_model(train, None, narrow_params(**given), state_dir=tmp_path / "default")
    assert all(torch.equal(default.tensors[name], tensor) for name, tensor in results[False].tensors.items())
    changed = {
        name
        for name, tensor in results[True].tensors.items()
        if not torch.allclose(tensor, default.tensors[name], atol=1e-6)
    }
    if option == "population_variance":
        assert changed == {name for name in default.tensors if name.endswith("running_var")}
    else:
        assert "music.fc.weight" in changed


def test_the_reference_protocol_has_both() -> None:
    params = TrainParams(protocol="reference")
    assert (params.epsilon_before_correction, params.population_variance) == (True, True)
    assert not TrainParams(protocol="reference", population_variance=False).population_variance
    assert not TrainParams().epsilon_before_correction
