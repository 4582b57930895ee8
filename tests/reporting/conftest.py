from __future__ import annotations

import pytest


@pytest.fixture
def history() -> list[dict[str, float]]:
    terms = ("loss", "ranking_xy", "ranking_yx", "structure_music", "structure_video")
    rows = [{"epoch": epoch, "seconds": 0.5} | dict.fromkeys(terms, 1.0 / epoch) for epoch in range(1, 9)]
    for row in rows[1::2]:  # validated every second epoch
        row |= {"val_loss": 1.1 / row["epoch"], "val_mrr": 0.1 * row["epoch"], "val_mrr_xy": 0.1, "val_mrr_yx": 0.2}
        row |= {"val_recall_at_5_xy": 0.4, "val_recall_at_5_yx": 0.3, "val_median_rank_xy": 7.5, "val_new_idea": 3.0}
    return rows
