"""Lists of numbers as the command line gives them."""

from __future__ import annotations

import pytest
from kedro.framework.cli.utils import _split_params
from pydantic import ValidationError

from vmnet_pipeline.params import EvaluateParams


@pytest.mark.parametrize(
    ("given", "expected"), [("1 10 25", (1, 10, 25)), ("5", (5,)), ("1  1000 ", (1, 1000))]
)  # fmt: skip
def test_a_list_goes_through_params(given, expected):
    evaluate = _split_params(None, None, f"evaluate.ks={given},evaluate.pool_sizes=100 200")["evaluate"]
    params = EvaluateParams.model_validate(evaluate)
    assert params.ks == expected
    assert params.pool_sizes == (100, 200)


@pytest.mark.parametrize("given", ["1;5", "", "0", 0, "many"])
def test_what_is_no_list_of_numbers_is_refused(given):
    with pytest.raises(ValidationError, match=r"ks"):
        EvaluateParams(ks=given)
