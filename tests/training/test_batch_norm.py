"""The running variance as TensorFlow has it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.training.batch_norm import PopulationBatchNorm1d, use_population_variance


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
