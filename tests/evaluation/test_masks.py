from __future__ import annotations

import numpy as np
import pytest
import torch

from vmnet_pipeline.evaluation.masks import count_true, locate_true


@pytest.mark.parametrize("shape", [(3, 700), (700, 3), (1, 9), (9, 1), (5, 2100), (2100, 5)])
@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_true_entries_are_found_in_rows_and_in_columns_of_memory(shape: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(0).random(shape) < share
    for matrix in (torch.from_numpy(mask), torch.from_numpy(mask.T.copy()).T):
        assert count_true(matrix).tolist() == mask.sum(axis=1).tolist()
        found = list(zip(*(part.tolist() for part in locate_true(matrix)), strict=True))
        assert sorted(found) == list(zip(*(part.tolist() for part in np.nonzero(mask)), strict=True))
