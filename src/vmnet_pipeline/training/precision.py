"""The arithmetic of training: bf16 where that is wanted and pays, and the fastest products of float32."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from vmnet_pipeline.backends.processor import has_bf16

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmnet_pipeline.params import TrainParams

PROBE_SIZE = 256


def uses_bf16(params: TrainParams, device: torch.device) -> bool:
    """Whether the network computes in bf16. On a CPU `auto` does so for `best` only: VM-NET's figures stay."""
    if params.precision != "auto":
        return params.precision == "bf16"
    return device.type == "cuda" or (params.protocol == "best" and has_bf16())


@contextmanager
def fast_products() -> Iterator[None]:
    """Let oneDNN multiply float32 matrices on the CPU where it keeps all digits; restore what was set before.

    The library that torch takes otherwise does not use AVX-512 on processors of other makers, and has half the speed
    there. torch hands products to oneDNN only with leave to round to bf16, which oneDNN makes use of on processors with
    AMX alone.
    """
    before = torch.get_float32_matmul_precision()
    try:
        if multiplies_exactly():
            torch.set_float32_matmul_precision("medium")
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def multiplies_exactly() -> bool:
    """Whether products with leave to round keep what bf16 would lose."""
    before = torch.get_float32_matmul_precision()
    factor: Any = torch.full((PROBE_SIZE, PROBE_SIZE), 1.0 + 2.0**-12)
    try:
        torch.set_float32_matmul_precision("medium")
        product = factor @ factor.T
    finally:
        torch.set_float32_matmul_precision(before)
    return bool((product - PROBE_SIZE * (1.0 + 2.0**-12) ** 2).abs().max() < PROBE_SIZE * 2.0**-18)
