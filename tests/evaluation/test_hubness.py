from __future__ import annotations

import numpy as np
import pytest

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.evaluation.hubness import correct_both, measure_hubness


def make_sides(n: int = 40, m: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(n, 6)), rng.normal(size=(m, 6))
    gallery[3] = 3 * queries.mean(axis=0) + gallery[3]  # a hub
    return queries, gallery


def count_occurrences(queries: np.ndarray, gallery: np.ndarray, k: int = 10) -> np.ndarray:
    nearest = np.argsort(-(queries @ gallery.T), axis=1)[:, :k]
    return np.bincount(nearest.reshape(-1), minlength=len(gallery))


@pytest.mark.parametrize("chunk_size", [1, 7, 100])
def test_vectors_for_both_directions_give_naive_csls(chunk_size: int) -> None:
    music, video = make_sides()
    scores = music @ video.T
    r_music = np.array([np.mean(sorted(row)[-4:]) for row in scores])
    r_video = np.array([np.mean(sorted(column)[-4:]) for column in scores.T])
    x, y = correct_both(music, video, k=4, chunk_size=chunk_size)
    np.testing.assert_allclose(x @ y.T, 2 * scores - r_music[:, None] - r_video, rtol=1e-4, atol=1e-4)
    few = correct_both(music[:3], video, k=10)  # K is cut to the other side
    assert np.allclose(few[1][:, -1], (video @ music[:3].T).mean(axis=1), atol=1e-5)


def test_correction_makes_hubs_rarer() -> None:
    rng = np.random.default_rng(1)
    queries, gallery = rng.normal(size=(500, 40)), rng.normal(size=(500, 40)) + 0.3
    before = measure_hubness(count_occurrences(queries + 0.3, gallery))
    after = measure_hubness(count_occurrences(*correct_both(queries + 0.3, gallery)))
    assert after["skewness"] < 0.5 * before["skewness"]
    assert after["max"] < before["max"]
    assert after["unreached"] < before["unreached"]


def test_even_counts_have_no_hubs() -> None:
    assert measure_hubness(np.full(5, 3)) == {"skewness": 0.0, "max": 3.0, "unreached": 0.0}


def test_bad_input_is_refused() -> None:
    queries, gallery = make_sides()
    with pytest.raises(PairsError, match="embed both alike"):
        correct_both(queries, gallery[:, :3])
    with pytest.raises(PairsError, match="K >= 1"):
        correct_both(queries, gallery, k=0)
