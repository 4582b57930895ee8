"""Run a network: natively in torch, or through OpenVINO on x86 processors.

Measured on two cores with avx512_bf16, OpenVINO, inputs per second in f32 and bf16 (torch in f32 behind), and the
lowest cosine between an item's pooled features in bf16 and f32: VGGish 133, 256 (78), above 0.9999; musicnn 49, 72 (9),
0.9995; EfficientNet-lite0 128, 189 (16), 0.992. So bf16 is taken by itself for VGGish alone: for EfficientNet it is too
far off (0.999 is asked for), and musicnn is hundreds of times faster than real time without it. A dynamic batch axis is
as fast as a fixed one.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from vmnet_pipeline.errors import MediaError, ParameterError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from torch import nn

Network = TypeVar("Network", bound="nn.Module")
EngineName = Literal["auto", "torch", "openvino"]
PrecisionName = Literal["auto", "f32", "bf16"]
BF16_FLAGS = ("avx512_bf16", "amx_bf16")


class BackendParams(BaseModel):
    """Parameters that every backend has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Literal["pretrained", "random"] = Field(
        "pretrained", description="`random` is for trying things out only; it is marked in every feature's fingerprint."
    )
    random_seed: int = Field(0, ge=0, description="Seed of `weights: random`.")
    engine: EngineName = Field("auto", description="`auto`: torch on a CUDA device, OpenVINO on x86, else torch.")
    precision: PrecisionName = Field(
        "auto",
        description="`auto`: bf16 for vggish where the processor computes it in hardware, else f32.",
    )
    batch_size: int = Field(32, ge=1, le=4096, description="Network inputs per call; not part of the fingerprint.")
    n_threads: int | None = Field(None, ge=1, le=1024, description="Threads of the engine; by default all cores.")


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """A resolved engine: never `auto`.

    Attributes:
        engine: `torch` or `openvino`.
        device: `cpu` or `cuda`.
        precision: `f32` or `bf16`.
    """

    engine: str
    device: str
    precision: str

    def describe(self) -> dict[str, str]:
        """The part of a fingerprint that identifies the arithmetic."""
        return {"engine": self.engine, "device": self.device, "precision": self.precision}


def choose_engine(engine: EngineName, precision: PrecisionName, *, bf16_by_default: bool) -> EngineChoice:
    """Resolve `auto` for this machine.

    Args:
        engine: Wanted engine.
        precision: Wanted precision.
        bf16_by_default: Whether `auto` may take bf16: only for a network whose pooled features keep a cosine of
            at least 0.999 to those of f32.

    Raises:
        ParameterError: OpenVINO was asked for where there is none, or bf16 where the processor lacks it.
    """
    device = "cuda" if engine != "openvino" and has_cuda() else "cpu"
    if engine == "auto":
        engine = "openvino" if device == "cpu" and _is_x86() else "torch"
    if precision == "auto":
        precision = "bf16" if bf16_by_default and engine == "openvino" and has_bf16() else "f32"
    if precision == "bf16" and device == "cpu" and not has_bf16():
        raise ParameterError("precision bf16: this processor computes it in software only; use precision f32")
    return EngineChoice(engine, device, precision)


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


@cache
def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(flag in flags for flag in BF16_FLAGS)


@cache
def has_cuda() -> bool:
    """Whether torch can use a CUDA device; torch is imported only where that is possible at all."""
    has_driver = sys.platform != "linux" or any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/dxg"))
    if metadata.version("torch").endswith("+cpu") or not has_driver:
        return False
    import torch

    return torch.cuda.is_available()


def build_runner(
    network: nn.Module, input_shape: tuple[int, ...], choice: EngineChoice, params: BackendParams
) -> Callable[[np.ndarray], np.ndarray]:
    """Make a network callable on arrays.

    Args:
        network: In evaluation mode afterwards.
        input_shape: Shape of one input, without the batch axis.
        choice: Resolved engine.
        params: Batch size and threads.

    Returns:
        A function from (m, *input_shape) numbers to (m, ...) float32, any m >= 1; it raises `MediaError`
        (`not_finite`) rather than take or give a value that is not finite.
    """
    network = network.eval().requires_grad_(False)
    make = _compile_openvino if choice.engine == "openvino" else _wrap_torch
    run = make(network, input_shape, choice, params)

    def run_all(inputs: np.ndarray) -> np.ndarray:
        return _run_batches(run, inputs, params.batch_size)

    return run_all


def _run_batches(run: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray, batch_size: int) -> np.ndarray:
    import numpy as np

    # OpenVINO's ReLU turns not-a-number into zero, so looking at the outputs alone would miss it.
    if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
        raise MediaError("not_finite", "the network's input has values that are not finite; check the media file")
    pieces = [
        run(np.ascontiguousarray(inputs[start : start + batch_size], np.float32))
        for start in range(0, len(inputs), batch_size)
    ]
    outputs = np.concatenate(pieces).astype(np.float32, copy=False)
    if not np.isfinite(outputs).all():
        raise MediaError("not_finite", "the network gave values that are not finite; check the media file")
    return outputs


def _wrap_torch(
    network: nn.Module, _input_shape: tuple[int, ...], choice: EngineChoice, params: BackendParams
) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    if params.n_threads is not None:
        torch.set_num_threads(params.n_threads)
    dtype = torch.bfloat16 if choice.precision == "bf16" else torch.float32
    network = network.to(device=choice.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(inputs: np.ndarray) -> np.ndarray:
        # TF32 would be a third precision behind the name f32, so it is switched off around each call.
        tf32 = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with torch.inference_mode(), tf32, torch.autocast(choice.device, dtype, enabled=dtype != torch.float32):
            return network(torch.from_numpy(inputs).to(choice.device)).float().cpu().numpy()  # type: ignore[no-any-return]

    return run


def _count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _import_openvino() -> Any:
    """Import OpenVINO with its usage statistics off: it would send events, and write into the home folder."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _compile_openvino(
    network: nn.Module, input_shape: tuple[int, ...], choice: EngineChoice, params: BackendParams
) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    openvino = _import_openvino()
    example = torch.zeros(1, *input_shape)
    # Traced here because the converter's own tracing runs the network several times over to check itself.
    traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
    model = openvino.convert_model(traced, example_input=example)
    model.reshape([-1, *input_shape])
    settings = {
        "INFERENCE_PRECISION_HINT": choice.precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": params.n_threads or _count_cores(),
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def run(inputs: np.ndarray) -> np.ndarray:
        return request.infer({0: inputs})[0].copy()  # type: ignore[no-any-return]

    return run


def load_torch_file(path: Path) -> dict[str, Any]:
    """Read tensors from a .pth file; code inside it is never run.

    Raises:
        WeightsError: The file is not a plain dict of tensors.
    """
    import pickle

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(f"{path}: not a readable weight file ({error}); delete it and fetch it again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: not a dict of tensors; delete it and fetch it again")
    return content


def load_state(network: nn.Module, state: dict[str, Any], source: str) -> None:
    """Put all tensors of a state dict into a network; names and shapes must agree exactly.

    Raises:
        WeightsError: They do not.
    """
    try:
        network.load_state_dict(
            {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
            | {key: value for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")}
        )
    except RuntimeError as error:
        raise WeightsError(f"weights {source!r} do not fit the network: {error}") from error


def require_loaded(run: Callable[[np.ndarray], np.ndarray] | None, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """The runner of a backend that was loaded.

    Raises:
        RuntimeError: It was not.
    """
    if run is None:
        raise RuntimeError(f"backend {name!r}: call load() before infer()")
    return run


def build_seeded(make: Callable[[], Network], seed: int) -> Network:
    """Build a network with random weights that depend on the seed only; the global generator is left alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
