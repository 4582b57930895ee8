"""Engines: same numbers, any batch, nothing sent home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vmnet_pipeline.backends import engine
from vmnet_pipeline.backends.engine import BackendParams, EngineChoice, build_runner, choose_engine
from vmnet_pipeline.errors import MediaError, ParameterError, WeightsError

SRC = Path(__file__).resolve().parents[2] / "src"


class Small(torch.nn.Module):
    """A few layers with weights that depend on nothing."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = torch.nn.Conv2d(1, 4, 3)
            self.norm = torch.nn.BatchNorm2d(4)
            self.norm.running_mean = torch.randn(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(x[:, None]))).mean(dim=(2, 3))


@pytest.mark.parametrize("name", ["torch", "openvino"])
@pytest.mark.parametrize("n_inputs", [1, 4, 5, 9])
def test_engines_agree_with_eager_torch_for_any_number_of_inputs(name, n_inputs):
    inputs = np.random.default_rng(0).standard_normal((n_inputs, 12, 10)).astype(np.float32)
    run = build_runner(Small(), (12, 10), EngineChoice(name, "cpu", "f32"), BackendParams(batch_size=4, n_threads=1))
    with torch.inference_mode():
        expected = Small().eval()(torch.from_numpy(inputs)).numpy()
    outputs = run(inputs)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_values_that_are_not_finite_never_leave(name):
    run = build_runner(Small(), (12, 10), EngineChoice(name, "cpu", "f32"), BackendParams())
    inputs = np.zeros((2, 12, 10), np.float32)
    inputs[1, 3, 3] = np.nan
    with pytest.raises(MediaError) as caught:
        run(inputs)
    assert caught.value.reason == "not_finite"


@pytest.mark.parametrize(
    ("cuda", "x86", "bf16", "wish", "expected"),
    [
        (True, True, True, ("auto", "auto", True), ("torch", "cuda", "f32")),
        (False, True, True, ("auto", "auto", True), ("openvino", "cpu", "bf16")),
        (False, True, True, ("auto", "auto", False), ("openvino", "cpu", "f32")),
        (False, True, False, ("auto", "auto", True), ("openvino", "cpu", "f32")),
        (False, False, False, ("auto", "auto", True), ("torch", "cpu", "f32")),
        (True, True, True, ("openvino", "f32", True), ("openvino", "cpu", "f32")),
        (True, True, False, ("torch", "bf16", False), ("torch", "cuda", "bf16")),
    ],
)
def test_auto_is_resolved(cuda, x86, bf16, wish, expected, monkeypatch):
    monkeypatch.setattr(engine, "has_cuda", lambda: cuda)
    monkeypatch.setattr(engine, "_is_x86", lambda: x86)
    monkeypatch.setattr(engine, "has_bf16", lambda: bf16)
    choice = choose_engine(wish[0], wish[1], bf16_by_default=wish[2])
    assert (choice.engine, choice.device, choice.precision) == expected


def test_bf16_without_hardware_is_refused(monkeypatch):
    monkeypatch.setattr(engine, "has_cuda", lambda: False)
    monkeypatch.setattr(engine, "has_bf16", lambda: False)
    with pytest.raises(ParameterError, match="f32"):
        choose_engine("auto", "bf16", bf16_by_default=True)


def test_openvino_writes_nothing_home_and_loads_no_telemetry(tmp_path):
    program = (
        f"import sys; sys.path.insert(0, {str(SRC)!r})\n"
        "from vmnet_pipeline.backends.registry import get_backend\n"
        "backend = get_backend('vggish', {'weights': 'random', 'engine': 'openvino', 'precision': 'f32'})\n"
        "backend.load()\n"
        "assert 'openvino' in sys.modules\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry') and sys.modules[name]])"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert result.stdout.strip() == "[]", result.stderr
    assert not list(tmp_path.iterdir())


def test_pickled_code_in_a_weight_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    torch.save({"features.0.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="not a readable"):
        engine.load_torch_file(tmp_path / "evil.pth")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 half a zip"])
def test_damaged_weight_file_is_a_weights_error(content, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(WeightsError, match="fetch it again"):
        engine.load_torch_file(tmp_path / "x.pth")


def test_weight_file_without_a_dict_is_a_weights_error(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="dict"):
        engine.load_torch_file(tmp_path / "x.pth")


@pytest.mark.gpu
def test_cuda_agrees_with_cpu():
    inputs = np.random.default_rng(0).standard_normal((5, 12, 10)).astype(np.float32)
    cpu, cuda = (
        build_runner(Small(), (12, 10), EngineChoice("torch", device, "f32"), BackendParams())(inputs)
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(cuda, cpu, rtol=1e-4, atol=1e-6)
