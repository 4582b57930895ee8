"""Choose the engine and the precision that run a network.

`precision: auto` is f32 unless the backend has measured on this kind of processor that another is faster and keeps
its features: see `calibration.py` and `docs/benchmarks-extraction.md`.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vmnet_pipeline.backends.processor import has_bf16, has_f16
from vmnet_pipeline.cores import find_core_limit
from vmnet_pipeline.errors import ParameterError

logger = logging.getLogger(__name__)

EngineName = Literal["auto", "torch", "tensorflow", "openvino"]
PrecisionName = Literal["auto", "f32", "bf16", "f16"]
Framework = Literal["torch", "tensorflow"]


class BackendParams(BaseModel):
    """Parameters that every backend has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Literal["pretrained", "random"] = Field(
        "pretrained", description="`random` is for trying things out only; it is marked in every feature's fingerprint."
    )
    random_seed: int = Field(0, ge=0, description="Seed of `weights: random`.")
    engine: EngineName = Field(
        "auto", description="`auto`: the network's own framework on a CUDA device, else OpenVINO on x86, else its own."
    )
    precision: PrecisionName = Field(
        "auto",
        description="`auto`: the fastest that keeps the features (cosine 0.999), measured once for each kind of "
        "processor; f32 for networks without such a measurement, with random weights, and on CUDA.",
    )
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="Of the stored features; float16 halves them. float32 is the contract with users."
    )
    pooled: bool = Field(False, description="Store what training uses, e.g. (62, 512) instead of (62, 512, 6, 4).")
    batch_size: int = Field(
        32, ge=1, le=4096, description="Inputs per call of torch or tensorflow; not part of the fingerprint."
    )
    n_threads: int | None = Field(None, ge=1, le=1024, description="Threads of the engine; by default all cores.")
    gpu_idx: int | None = Field(None, ge=0, description="CUDA device; of no effect where there is none.")


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """A resolved engine: never `auto`.

    Attributes:
        engine: `torch`, `tensorflow` or `openvino`.
        device: `cpu` or `cuda`.
        precision: `f32`, `bf16` or `f16`.
    """

    engine: str
    device: str
    precision: str

    def describe(self) -> dict[str, str]:
        """The part of a fingerprint that identifies the arithmetic."""
        return {"engine": self.engine, "device": self.device, "precision": self.precision}


def choose_engine(engine: EngineName, precision: PrecisionName, *, framework: Framework = "torch") -> EngineChoice:
    """Resolve `auto` for this machine; precision `auto` is f32 here, see `NetworkBackend` for what is measured.

    Args:
        engine: Wanted engine.
        precision: Wanted precision.
        framework: Framework the network is written in, which runs it where OpenVINO does not.

    Raises:
        ParameterError: An engine that cannot run this network, or a precision that is not available.
    """
    if engine not in ("auto", "openvino", framework):
        raise ParameterError(f"engine {engine}: this network is written in {framework}; use {framework} or openvino")
    device = "cuda" if engine != "openvino" and has_cuda(framework) else "cpu"
    chosen = ("openvino" if device == "cpu" and _is_x86() else framework) if engine == "auto" else engine
    chosen_precision = "f32" if precision == "auto" else precision
    choice = EngineChoice(chosen, device, chosen_precision)
    check_precision(choice)
    return choice


def check_precision(choice: EngineChoice) -> None:
    """Refuse a precision that is not available.

    Raises:
        ParameterError: The engine has no such precision here.
    """
    precision, engine, device = choice.precision, choice.engine, choice.device
    if precision == "f32":
        return
    if engine == "tensorflow":
        raise ParameterError(f"precision {precision}: not available with engine tensorflow; use f32, or openvino")
    if device == "cpu" and not {"bf16": has_bf16, "f16": has_f16}[precision]():
        raise ParameterError(f"precision {precision}: this processor computes it in software only; use precision f32")
    if precision == "f16" and device == "cpu" and engine != "openvino":
        raise ParameterError("precision f16: on a processor with engine openvino only; use f32 or engine openvino")


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


@cache
def has_cuda(framework: Framework = "torch") -> bool:
    """Whether the framework can use a CUDA device; it is imported only where that is possible at all."""
    if sys.platform == "linux" and not any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/dxg")):
        return False
    if framework == "tensorflow":
        return bool(import_tensorflow().config.list_physical_devices("GPU"))
    if metadata.version("torch").endswith("+cpu"):
        return False
    import torch

    return torch.cuda.is_available()


def import_tensorflow() -> Any:
    """Import tensorflow without its start-up messages."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow

    return tensorflow


def choose_threads(params: BackendParams) -> int | None:
    """Choose the number of threads of a framework; None leaves its own setting."""
    return params.n_threads or find_core_limit()


def check_gpu_idx(gpu_idx: int | None, choice: EngineChoice) -> None:
    """Warn if the requested CUDA device is not used.

    Raises:
        ParameterError: No device has that number.
    """
    if gpu_idx is not None and choice.device != "cuda":
        logger.warning("gpu_idx=%d has no effect: %s runs on the processor here", gpu_idx, choice.engine)
    elif gpu_idx is not None and gpu_idx >= (n_devices := _count_cuda_devices(choice.engine)):
        raise ParameterError(f"gpu_idx={gpu_idx}: {choice.engine} sees {n_devices} CUDA devices here, numbered from 0")


def _count_cuda_devices(engine: str) -> int:
    if engine == "tensorflow":
        return len(import_tensorflow().config.list_physical_devices("GPU"))
    import torch

    return torch.cuda.device_count()
