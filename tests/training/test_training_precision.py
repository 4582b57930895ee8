"""The arithmetic of training: products keep all digits of float32, and bf16 is chosen where that is meant."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vmnet_pipeline.params import TrainParams
from vmnet_pipeline.training import precision
from vmnet_pipeline.training.setup import torch_settings

PARAMS = TrainParams(device="cpu", n_threads=1)


def test_products_in_training_keep_the_digits_of_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(300, 400, generator=generator) for _ in range(2))
    before = torch.get_float32_matmul_precision()
    with torch_settings(PARAMS):
        product = x @ y.T
        fully_connected = torch.nn.functional.linear(x, y)
    exact = x.double() @ y.double().T
    assert (product - exact).abs().max() < 1e-4  # rounding to bf16 would be off by 0.1
    assert (fully_connected - exact).abs().max() < 1e-4
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("exact", [True, False])
def test_leave_to_round_is_given_only_where_nothing_is_rounded(monkeypatch: pytest.MonkeyPatch, exact: bool) -> None:
    monkeypatch.setattr(precision, "multiplies_exactly", lambda: exact)
    before = torch.get_float32_matmul_precision()
    with pytest.raises(RuntimeError, match="inside"), precision.fast_products():
        assert torch.get_float32_matmul_precision() == ("medium" if exact else before)
        raise RuntimeError("inside")
    assert torch.get_float32_matmul_precision() == before


def test_the_probe_notices_products_that_are_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rounding(torch.Tensor):
        def __matmul__(self, other: Any) -> torch.Tensor:
            return (self.as_subclass(torch.Tensor).bfloat16() @ other.as_subclass(torch.Tensor).bfloat16()).float()

    full = torch.full
    monkeypatch.setattr(precision.torch, "full", lambda *args: full(*args).as_subclass(Rounding))
    assert not precision.multiplies_exactly.__wrapped__()


@pytest.mark.parametrize(
    ("settings", "device", "has_hardware", "expected"),
    [
        ({}, "cpu", True, False),
        ({"protocol": "reference"}, "cpu", True, False),
        ({"protocol": "best"}, "cpu", True, True),
        ({"protocol": "best"}, "cpu", False, False),
        ({"protocol": "best", "precision": "f32"}, "cpu", True, False),
        ({"precision": "bf16"}, "cpu", False, True),
        ({}, "cuda", False, True),
        ({"precision": "f32"}, "cuda", True, False),
    ],
)
def test_bf16_is_for_cuda_and_for_best_on_processors_that_have_it(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], device: str, has_hardware: bool, expected: bool
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: has_hardware)
    assert precision.uses_bf16(TrainParams(**settings), torch.device(device)) is expected
