from __future__ import annotations

import numpy as np
import pytest

from vmnet_pipeline.evaluation import nearest
from vmnet_pipeline.evaluation.nearest import count_true, find_nearest, locate_true


@pytest.mark.parametrize("shape", [(3, 700), (700, 3), (1, 9), (9, 1)])
@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_true_entries_are_found_in_rows_and_in_columns_of_memory(shape: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(0).random(shape) < share
    for matrix in (mask, np.asfortranarray(mask)):
        assert count_true(matrix).tolist() == mask.sum(axis=1).tolist()
        found = list(zip(*(part.tolist() for part in locate_true(matrix)), strict=True))
        assert sorted(found) == list(zip(*(part.tolist() for part in np.nonzero(mask)), strict=True))


@pytest.mark.parametrize("chunks", [(1000, 1000), (7, 5), (1, 1), (40, 13)])
@pytest.mark.parametrize("n", [1, 4, 200])
def test_nearest_items_of_both_sides_match_a_sort(
    monkeypatch: pytest.MonkeyPatch, chunks: tuple[int, int], n: int
) -> None:
    rng = np.random.default_rng(1)
    queries, gallery = (rng.standard_normal((rows, 6)).astype(np.float32) for rows in (50, 31))
    monkeypatch.setattr(nearest, "GALLERY_CHUNK", chunks[0])
    there, back = find_nearest(queries, gallery, n, chunk_size=chunks[1])
    for found, scores in ((there, queries @ gallery.T), (back, gallery @ queries.T)):
        expected = np.argsort(-scores, axis=1)[:, :n]
        assert found.column.tolist() == expected.tolist()
        np.testing.assert_allclose(found.score, np.take_along_axis(scores, expected, axis=1), rtol=1e-5, atol=1e-5)
