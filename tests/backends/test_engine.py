"""Engines: same numbers, any batch, nothing sent home."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from vmnet_pipeline.backends import engine, torch_weights
from vmnet_pipeline.backends.converted import ConvertedModels
from vmnet_pipeline.backends.engine import BackendParams, EngineChoice, choose_engine
from vmnet_pipeline.backends.runners import build_runner
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
    run = build_runner(Small, (12, 10), EngineChoice(name, "cpu", "f32"), BackendParams(batch_size=4, n_threads=1))
    with torch.inference_mode():
        expected = Small().eval()(torch.from_numpy(inputs)).numpy()
    outputs = run(inputs)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_values_that_are_not_finite_never_leave(name):
    run = build_runner(Small, (12, 10), EngineChoice(name, "cpu", "f32"), BackendParams())
    inputs = np.zeros((2, 12, 10), np.float32)
    inputs[1, 3, 3] = np.nan
    with pytest.raises(MediaError) as caught:
        run(inputs)
    assert caught.value.reason == "not_finite"


@pytest.mark.parametrize(
    ("cuda", "x86", "bf16", "wish", "expected"),
    [
        (True, True, True, ("auto", "auto"), ("torch", "cuda", "f32")),
        (False, True, True, ("auto", "auto"), ("openvino", "cpu", "f32")),
        (False, True, True, ("auto", "bf16"), ("openvino", "cpu", "bf16")),
        (False, False, False, ("auto", "auto"), ("torch", "cpu", "f32")),
        (True, True, True, ("openvino", "f32"), ("openvino", "cpu", "f32")),
        (True, True, False, ("torch", "bf16"), ("torch", "cuda", "bf16")),
        (True, True, False, ("torch", "f16"), ("torch", "cuda", "f16")),
    ],
)
def test_auto_is_resolved(cuda, x86, bf16, wish, expected, monkeypatch):
    monkeypatch.setattr(engine, "has_cuda", lambda *_: cuda)
    monkeypatch.setattr(engine, "_is_x86", lambda: x86)
    monkeypatch.setattr(engine, "has_bf16", lambda: bf16)
    choice = choose_engine(*wish)
    assert (choice.engine, choice.device, choice.precision) == expected


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_a_precision_without_hardware_is_refused(precision, monkeypatch):
    monkeypatch.setattr(engine, "has_cuda", lambda *_: False)
    monkeypatch.setattr(engine, f"has_{precision}", lambda: False)
    with pytest.raises(ParameterError, match="use precision f32"):
        choose_engine("auto", precision)
    monkeypatch.setattr(engine, f"has_{precision}", lambda: True)
    assert choose_engine("openvino", precision).precision == precision
    if precision == "f16":
        with pytest.raises(ParameterError, match="engine openvino"):
            choose_engine("torch", precision)


def test_networks_of_keras_run_in_tensorflow_where_openvino_does_not(monkeypatch):
    monkeypatch.setattr(engine, "has_cuda", lambda *_: True)
    choice = choose_engine("auto", "auto", framework="tensorflow")
    assert (choice.engine, choice.device, choice.precision) == ("tensorflow", "cuda", "f32")
    with pytest.raises(ParameterError, match="written in tensorflow"):
        choose_engine("torch", "auto", framework="tensorflow")
    with pytest.raises(ParameterError, match="not available with engine tensorflow"):
        choose_engine("tensorflow", "bf16", framework="tensorflow")


@pytest.mark.long
def test_networks_of_torch_and_keras_are_converted_where_tensorflow_is_loaded():
    """OpenVINO's converter then asks TensorFlow for its version, in a way of its own."""
    import keras

    def make_doubling():
        inputs = keras.Input((12, 10))
        return keras.Model(inputs, keras.layers.Rescaling(2.0)(inputs))

    inputs = np.random.default_rng(0).standard_normal((3, 12, 10)).astype(np.float32)
    choice, params = EngineChoice("openvino", "cpu", "f32"), BackendParams(n_threads=1)
    np.testing.assert_allclose(build_runner(make_doubling, (12, 10), choice, params)(inputs), 2 * inputs, rtol=1e-6)
    assert build_runner(Small, (12, 10), choice, params)(inputs).shape[0] == 3


def test_outputs_of_many_requests_keep_their_order():
    """OpenVINO finishes requests in any order."""
    inputs = np.random.default_rng(0).standard_normal((200, 12, 10)).astype(np.float32)
    run = build_runner(Small, (12, 10), EngineChoice("openvino", "cpu", "f32"), BackendParams(n_threads=2))
    alone = np.concatenate([run(entry[None]) for entry in inputs])
    np.testing.assert_array_equal(run(inputs), alone)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no way to see which cores a thread may use")
def test_no_thread_is_bound_to_a_core():
    # Workers are processes beside each other: bound threads of all of them would share the first core.
    run = build_runner(Small, (12, 10), EngineChoice("openvino", "cpu", "f32"), BackendParams(n_threads=1))
    seen = set()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, np.zeros((5000, 12, 10), np.float32))
        while not running.done():
            for thread in Path("/proc/self/task").iterdir():
                with contextlib.suppress(OSError):  # it has just ended
                    seen.add(frozenset(os.sched_getaffinity(int(thread.name))))
    assert seen == {frozenset(os.sched_getaffinity(0))}


def test_gpu_that_is_not_used_is_a_warning(caplog):
    engine.check_gpu_idx(3, EngineChoice("openvino", "cpu", "f32"))
    assert "gpu_idx=3 has no effect" in caplog.text
    caplog.clear()
    engine.check_gpu_idx(None, EngineChoice("openvino", "cpu", "f32"))
    engine.check_gpu_idx(None, EngineChoice("torch", "cuda", "f32"))
    assert not caplog.text


def test_gpu_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    engine.check_gpu_idx(1, EngineChoice("torch", "cuda", "f32"))
    with pytest.raises(ParameterError, match="gpu_idx=2: torch sees 2 CUDA devices"):
        engine.check_gpu_idx(2, EngineChoice("torch", "cuda", "f32"))


# --- converted networks


def load_small(converted, calls):
    def make():
        calls.append(1)
        return Small()

    return build_runner(make, (12, 10), EngineChoice("openvino", "cpu", "f32"), BackendParams(), converted)


def test_converted_network_is_read_back_and_gives_the_same(tmp_path):
    calls: list[int] = []
    inputs = np.random.default_rng(0).standard_normal((3, 12, 10)).astype(np.float32)
    first = load_small(ConvertedModels(tmp_path, {"seed": 0}), calls)(inputs)
    again = load_small(ConvertedModels(tmp_path, {"seed": 0}), calls)(inputs)
    assert len(calls) == 1
    np.testing.assert_array_equal(first, again)
    load_small(ConvertedModels(tmp_path, {"seed": 1}), calls)
    assert len(calls) == 2


@pytest.mark.parametrize("name", ["model.bin", "model.xml", "checksums.json"])
def test_damaged_converted_network_is_converted_again(tmp_path, name, caplog):
    calls: list[int] = []
    converted = ConvertedModels(tmp_path, {})
    load_small(converted, calls)
    path = converted.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40  # of the weights, a number that is wrong and looks right
    path.write_bytes(content)
    load_small(ConvertedModels(tmp_path, {}), calls)
    assert len(calls) == 2
    assert "converting it again" in caplog.text
    load_small(ConvertedModels(tmp_path, {}), calls)
    assert len(calls) == 2


def test_folder_that_takes_no_converted_network_costs_only_time(tmp_path):
    (tmp_path / "file").write_text("in the way")
    calls: list[int] = []
    for _ in range(2):
        load_small(ConvertedModels(tmp_path / "file", {}), calls)
    assert len(calls) == 2


def test_changed_network_code_or_version_is_another_network(tmp_path, monkeypatch):
    from vmnet_pipeline.backends import converted

    before = ConvertedModels(tmp_path, {}).folder
    monkeypatch.setattr(converted, "_hash_network_code", lambda: "changed")
    assert ConvertedModels(tmp_path, {}).folder != before
    monkeypatch.undo()
    monkeypatch.setattr(converted.metadata, "version", lambda name: "99")
    assert ConvertedModels(tmp_path, {}).folder != before


@pytest.mark.process
def test_openvino_writes_nothing_home_and_loads_no_telemetry(tmp_path):
    program = (
        f"import sys; sys.path.insert(0, {str(SRC)!r})\n"
        "from vmnet_pipeline.backends.registry import get_backend\n"
        "params = {'weights': 'random', 'engine': 'openvino', 'precision': 'f32'}\n"
        f"backend = get_backend('vggish', params, weights_dir={str(tmp_path / 'weights')!r})\n"
        "backend.load()\n"
        "assert 'openvino' in sys.modules\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry') and sys.modules[name]])"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert result.stdout.strip() == "[]", result.stderr
    assert not list(home.iterdir())


def test_pickled_code_in_a_weight_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    torch.save({"features.0.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="not a readable"):
        torch_weights.load_torch_file(tmp_path / "evil.pth")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 half a zip"])
def test_damaged_weight_file_is_a_weights_error(content, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(WeightsError, match="fetch it again"):
        torch_weights.load_torch_file(tmp_path / "x.pth")


def test_weight_file_without_a_dict_is_a_weights_error(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="dict"):
        torch_weights.load_torch_file(tmp_path / "x.pth")


@pytest.mark.gpu
def test_cuda_agrees_with_cpu():
    inputs = np.random.default_rng(0).standard_normal((5, 12, 10)).astype(np.float32)
    cpu, cuda = (
        build_runner(Small, (12, 10), EngineChoice("torch", device, "f32"), BackendParams())(inputs)
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(cuda, cpu, rtol=1e-4, atol=1e-6)


class Full(torch.nn.Module):
    """A network on a device whose memory holds a batch of some inputs."""

    def __init__(self, n_fits: int) -> None:
        super().__init__()
        self.n_fits, self.batches = n_fits, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        if len(x) > self.n_fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return x.mean(dim=(1, 2))[:, None]


def test_a_batch_that_does_not_fit_into_the_device_is_halved():
    network = Full(2)
    run = build_runner(lambda: network, (3, 2), EngineChoice("torch", "cpu", "f32"), BackendParams(batch_size=9))
    inputs = np.arange(54, dtype=np.float32).reshape(9, 3, 2)
    np.testing.assert_allclose(run(inputs), inputs.mean(axis=(1, 2))[:, None])
    assert network.batches == [9, 4, 2, 2, 5, 2, 3, 1, 2]


def test_an_input_that_does_not_fit_is_a_row_of_its_own():
    run = build_runner(lambda: Full(0), (3, 2), EngineChoice("torch", "cpu", "f32"), BackendParams())
    with pytest.raises(
        MediaError, match=r"shape \(3, 2\) does not fit into the memory of cpu; .*smaller model"
    ) as caught:
        run(np.zeros((4, 3, 2), np.float32))
    assert caught.value.reason == "device_out_of_memory"


def test_networks_of_clips_run_in_torch():
    """Weights with five axes have no form with channels last."""
    network = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 2), torch.nn.Flatten())
    run = build_runner(lambda: network, (3, 2, 4, 4), EngineChoice("torch", "cpu", "f32"), BackendParams())
    assert run(np.zeros((2, 3, 2, 4, 4), np.float32)).shape == (2, 36)
