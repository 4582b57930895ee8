from __future__ import annotations

from typing import Any

from sample_evaluation import evaluate_noisy_pairs

from vmnet_pipeline.tracking.runs import list_figures


def test_pools_hubs_and_ndcg_are_logged(evaluation: dict[str, Any]) -> None:
    figures = list_figures(evaluation)
    there = evaluation["directions"]["music_to_video"]
    assert figures["music_to_video/ndcg_low"] == there["ndcg"]["low"]
    assert figures["music_to_video/hubs_max"] == there["hubness"]["max"]
    assert not any("_in_" in name for name in figures)
    pooled = evaluate_noisy_pairs(n=60, pool_sizes=(20,)).to_dict()
    recall = pooled["directions"]["video_to_music"]["pools"]["20"]["recall"]["5"]
    assert list_figures(pooled)["video_to_music/recall_at_5_in_20_high"] == recall["high"]
    assert all(isinstance(value, float) for value in list_figures(pooled).values())
