from __future__ import annotations

import numpy as np
import pytest
import torch

from vmnet_pipeline.evaluation.metrics import summarise_ranks
from vmnet_pipeline.evaluation.ranks import rank_on_device
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.models.losses import VMNetLoss
from vmnet_pipeline.training.validation import evaluate_model, match_mask
from vmnet_pipeline.types import PairArrays


def naive_rank(similarity: np.ndarray, codes: np.ndarray, query: int) -> float:
    matches = codes == codes[query]
    best = similarity[query][matches].max()
    others = similarity[query][~matches]
    n_tied = int((similarity[query][matches] == best).sum())  # the first of them is expected at this share of the ties
    return 1.0 + float((others > best).sum()) + float((others == best).sum()) / (n_tied + 1)


@pytest.mark.parametrize("chunk_size", [1, 4, 100])
def test_ranks_match_a_naive_loop_with_ties_and_several_matches(chunk_size: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(-1, 2, size=(2, 15, 3)).astype(np.float32)  # small integers: many ties
    codes = np.array([0, 1, 2, 3, 3, 4, 5, 6, 6, 6, 7, 8, 9, 10, 11])
    expected = [naive_rank(x @ y.T, codes, i) for i in range(15)]
    ranks, back = rank_on_device(*map(torch.from_numpy, (x, y, codes)), chunk_size=chunk_size)
    assert ranks.tolist() == expected
    assert back.tolist() == [naive_rank(y @ x.T, codes, i) for i in range(15)]
    assert any(rank % 1 for rank in expected)


def test_equal_embeddings_rank_in_the_middle() -> None:
    for ranks in rank_on_device(torch.ones(9, 2), torch.ones(9, 2), torch.arange(9)):
        assert ranks.tolist() == [5.0] * 9


def test_summary_of_ranks() -> None:
    ranks = np.array([1.0, 2.0, 4.0, 10.0, 11.0, 12.0])
    summary = summarise_ranks(ranks, "xy")
    assert summary["mrr_xy"] == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 10 + 1 / 11 + 1 / 12) / 6)
    assert summary["median_rank_xy"] == 7.0
    assert summary["recall_at_1_xy"] == pytest.approx(1 / 6)
    assert summary["recall_at_5_xy"] == pytest.approx(3 / 6)
    assert "recall_at_10_xy" not in summary  # 10 of 6 would always be 1


def test_mask_is_made_only_when_rows_share_a_match() -> None:
    assert match_mask(torch.tensor([3, 1, 2])) is None
    mask = match_mask(torch.tensor([3, 1, 3]))
    assert mask is not None
    assert mask.tolist() == [[True, False, True], [False, True, False], [True, False, True]]


def test_every_pair_is_evaluated_once_and_weighs_the_same() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    ids = tuple(str(i) for i in range(7))
    pairs = PairArrays(ids, ids, rng.random((7, 4), np.float32), rng.random((7, 5), np.float32))
    model = build_model("musicnn", "musicnn", (4,), (5,))
    whole = evaluate_model(model, VMNetLoss(), pairs, np.arange(7), 100)
    split = evaluate_model(model, VMNetLoss(), pairs, np.arange(7), 3)
    assert not model.training
    for name, value in whole.items():
        if name != "loss":
            assert split[name] == value
    assert whole["mrr"] == pytest.approx((whole["mrr_xy"] + whole["mrr_yx"]) / 2)
