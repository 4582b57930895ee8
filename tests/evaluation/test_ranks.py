"""Ranks against a plain loop, and what must not change them."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.evaluation import ranks as ranking
from vmnet_pipeline.evaluation.ranks import rank_both, rank_on_device, rank_queries, score_nearest


def make_unit_rows(rng: np.random.Generator, n: int, dim: int = 8) -> np.ndarray:
    rows = rng.standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def rank_positives(*args: Any, **settings: Any) -> np.ndarray:
    return rank_queries(*args, **settings).ranks


def make_tied_rows(rng: np.random.Generator, n: int, dim: int = 3) -> np.ndarray:
    """Rows of few small integers: products are exact, ties are many."""
    return rng.integers(-1, 2, (n, dim)).astype(np.float32)


def rank_in_all_orders(scores: list[float], right: set[int]) -> float:
    """Mean rank of the first relevant item over every order of the tied items."""
    firsts = []
    for order in itertools.permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            firsts.append(1 + min(order.index(item) for item in right))
    return float(np.mean(firsts))


def rank_by_sorting(scores: list[float], right: set[int]) -> tuple[int, float]:
    """Rank and average precision with ties to the lower index."""
    order = sorted(range(len(scores)), key=lambda item: (-scores[item], item))
    places = sorted(1 + order.index(item) for item in right)
    return places[0], float(np.mean([(n + 1) / place for n, place in enumerate(places)]))


@pytest.mark.parametrize("seed", range(8))
def test_mid_rank_is_mean_over_all_orders_of_tied_items(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, gallery = make_tied_rows(rng, 6), make_tied_rows(rng, 6)
    gallery_keys = rng.integers(0, 3, 6)
    query_keys = rng.choice(gallery_keys, 6)
    ranks = rank_positives(queries, gallery, query_keys, gallery_keys)
    for i in range(6):
        right = set(np.flatnonzero(gallery_keys == query_keys[i]).tolist())
        expected = rank_in_all_orders((gallery @ queries[i]).tolist(), right)
        assert ranks[i] == pytest.approx(expected, abs=1e-12)


def test_mid_rank_of_one_positive_is_the_textbook_one() -> None:
    queries = np.array([[1.0, 0.0]], dtype=np.float32)
    gallery = np.array([[0.5, 0], [0.9, 0], [0.5, 0], [0.5, 0], [0.1, 0]], dtype=np.float32)
    ranked = rank_queries(queries, gallery, ["a"], ["a", "b", "c", "d", "e"])
    assert ranked.ranks.tolist() == [3.0]  # one above, places 2, 3, 4 shared
    assert ranked.average_precision.tolist() == [pytest.approx(1 / 3)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("several", [False, True])
def test_lower_index_rule_is_a_stable_sort(seed: int, several: bool) -> None:
    rng = np.random.default_rng(seed)
    n = 23
    queries, gallery = make_tied_rows(rng, n), make_tied_rows(rng, n)
    keys = rng.integers(0, 6, n) if several else rng.permutation(n)
    ranked = rank_queries(queries, gallery, keys, keys, ties="lower_index", top_n=5, chunk_size=4)
    for i in range(n):
        scores = (gallery @ queries[i]).tolist()
        rank, precision = rank_by_sorting(scores, set(np.flatnonzero(keys == keys[i]).tolist()))
        assert ranked.ranks[i] == rank
        assert ranked.average_precision[i] == pytest.approx(precision, abs=1e-12)
        assert [scores[j] for j in ranked.top[i]] == sorted(scores, reverse=True)[:5]


@pytest.mark.parametrize("several", [False, True])
def test_without_ties_both_rules_agree_with_sorting(several: bool) -> None:
    rng = np.random.default_rng(5)
    queries, gallery = make_unit_rows(rng, 60, 32), make_unit_rows(rng, 60, 32)
    keys = rng.integers(0, 20, 60) if several else np.arange(60)
    mid = rank_queries(queries, gallery, keys, keys, top_n=60)
    lower = rank_queries(queries, gallery, keys, keys, ties="lower_index")
    for i in range(60):
        scores = (gallery.astype(float) @ queries[i].astype(float)).tolist()
        rank, precision = rank_by_sorting(scores, set(np.flatnonzero(keys == keys[i]).tolist()))
        assert mid.ranks[i] == lower.ranks[i] == rank
        assert mid.average_precision[i] == pytest.approx(precision, abs=1e-12)
        assert lower.average_precision[i] == pytest.approx(precision, abs=1e-12)
        assert mid.top[i].tolist() == sorted(range(60), key=lambda j: -scores[j])
    assert mid.n_positives.tolist() == [(keys == key).sum() for key in keys]


@pytest.mark.parametrize("gallery_chunk", [1, 7, 32, 1000])
@pytest.mark.parametrize("ties", ["mid", "lower_index"])
def test_chunks_never_change_the_result(
    monkeypatch: pytest.MonkeyPatch, gallery_chunk: int, ties: ranking.Ties
) -> None:
    rng = np.random.default_rng(3)
    # Equal rows at different places: a matrix product alone may give them scores that differ in the last bit.
    gallery = make_unit_rows(rng, 20, 96)[rng.integers(0, 20, 45)]
    queries = make_unit_rows(rng, 45, 96) + gallery
    keys = rng.integers(0, 30, 45)
    whole = rank_queries(queries, gallery, keys, keys, ties=ties, top_n=10)
    monkeypatch.setattr(ranking, "GALLERY_CHUNK", gallery_chunk)
    for chunk_size in (1, 13, 45):
        chunked = rank_queries(queries, gallery, keys, keys, ties=ties, top_n=10, chunk_size=chunk_size)
        assert chunked.ranks.tolist() == whole.ranks.tolist()
        assert chunked.average_precision.tolist() == whole.average_precision.tolist()
        scores = [np.sum(queries.astype(float)[:, None] * gallery[r.top], axis=2) for r in (chunked, whole)]
        assert np.array_equal(*scores)


@pytest.mark.parametrize("ties", ["mid", "lower_index"])
@pytest.mark.parametrize(("gallery_chunk", "chunk_size"), [(1000, 1000), (16, 13), (7, 40), (300, 3)])
@pytest.mark.parametrize("tied", [False, True])
def test_both_directions_at_once_equal_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch, gallery_chunk: int, chunk_size: int, ties: ranking.Ties, tied: bool
) -> None:
    rng = np.random.default_rng(8)
    music, video = (
        (make_tied_rows(rng, 90), make_tied_rows(rng, 61))
        if tied
        else (
            make_unit_rows(rng, 90, 96),
            make_unit_rows(rng, 61, 96),
        )
    )
    music_keys, video_keys = rng.permutation(np.arange(90) % 30), rng.permutation(np.arange(61) % 30)
    there = rank_queries(music, video, music_keys, video_keys, ties=ties, top_n=10)
    back = rank_queries(video, music, video_keys, music_keys, ties=ties, top_n=10)
    monkeypatch.setattr(ranking, "GALLERY_CHUNK", gallery_chunk)
    both = rank_both(music, video, music_keys, video_keys, ties=ties, top_n=10, chunk_size=chunk_size)
    for together, alone, queries, gallery in ((both[0], there, music, video), (both[1], back, video, music)):
        for name in ("ranks", "average_precision", "ndcg", "n_positives"):
            assert getattr(together, name).tolist() == getattr(alone, name).tolist(), name
        scores = [np.sum(queries.astype(float)[:, None] * gallery[r.top], axis=2) for r in (together, alone)]
        assert np.array_equal(*scores)


@pytest.mark.parametrize("ties", ["mid", "lower_index"])
@pytest.mark.parametrize("tied", [False, True])
def test_ndcg_is_that_of_the_whole_matrix(ties: ranking.Ties, tied: bool) -> None:
    rng = np.random.default_rng(2)
    make = make_tied_rows if tied else make_unit_rows
    queries, gallery = make(rng, 40), make(rng, 40)
    keys = rng.integers(0, 12, 40)  # from one positive to more than some queries find
    scores = queries.astype(float) @ gallery.T.astype(float)
    if ties == "lower_index":  # a stable order is one without ties
        scores = -np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1).astype(float)
    gains = (keys[:, None] == keys[None, :]).astype(float)
    expected = [ndcg_score(gains[[i]], scores[[i]], k=10) for i in range(len(keys))]  # the mean over orders of ties
    np.testing.assert_allclose(rank_queries(queries, gallery, keys, keys, ties=ties).ndcg, expected, rtol=1e-12)


def test_scores_closer_than_float32_rounding_are_still_told_apart() -> None:
    dim = 512
    query = np.full((1, dim), dim**-0.5, dtype=np.float32)
    gallery = np.repeat(query, 6, axis=0)
    for row in range(6):  # each next row is one float32 step less similar, far below the rounding of a product
        gallery[row, :row] = np.nextafter(gallery[row, :row], np.float32(0))
    for right in range(6):
        assert rank_positives(query, gallery, [right], list(range(6))).tolist() == [right + 1]


@pytest.mark.parametrize(("ties", "expected"), [("mid", [10.5] * 20), ("lower_index", list(range(1, 21)))])
@pytest.mark.parametrize("max_rescored", [0, 5, 1000])
def test_collapsed_embeddings_all_tie(
    monkeypatch: pytest.MonkeyPatch, ties: ranking.Ties, expected: list[float], max_rescored: int
) -> None:
    monkeypatch.setattr(ranking, "MAX_RESCORED", max_rescored)
    same = np.repeat(make_unit_rows(np.random.default_rng(0), 1, 64), 20, axis=0)
    assert rank_positives(same, same, ties=ties, chunk_size=7).tolist() == expected


def test_other_positives_do_not_push_the_best_one_down() -> None:
    queries = np.array([[1.0, 0.0]], dtype=np.float32)
    gallery = np.array([[0.9, 0], [0.8, 0], [0.7, 0], [0.6, 0]], dtype=np.float32)
    ranked = rank_queries(queries, gallery, ["s"], ["x", "s", "s", "y"])
    assert ranked.ranks.tolist() == [2.0]
    assert ranked.average_precision.tolist() == [pytest.approx((1 / 2 + 2 / 3) / 2)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.booleans())
def test_order_of_queries_and_gallery_does_not_matter(seed: int, n: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    make = make_tied_rows if tied else make_unit_rows
    queries, gallery = make(rng, n), make(rng, n)
    keys = rng.integers(0, max(1, n // 2), n)
    first, second = rng.permutation(n), rng.permutation(n)
    plain = rank_positives(queries, gallery, keys, keys)
    moved = rank_positives(queries[first], gallery[second], keys[first], keys[second])
    assert moved.tolist() == plain[first].tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_ranks_stay_inside_the_gallery(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    ranked = rank_queries(make_tied_rows(rng, n), make_tied_rows(rng, n), top_n=3)
    assert ((ranked.ranks >= 1) & (ranked.ranks <= n)).all()
    assert all(len(set(row)) == min(3, n) for row in ranked.top.tolist())


def test_sides_of_different_size_need_keys() -> None:
    rng = np.random.default_rng(0)
    queries, gallery = make_unit_rows(rng, 3), make_unit_rows(rng, 5)
    assert rank_positives(queries, gallery, ["a", "b", "a"], list("abcde")).shape == (3,)
    with pytest.raises(PairsError, match="give keys"):
        rank_positives(queries, gallery)


@pytest.mark.parametrize(
    ("queries", "gallery", "message"),
    [
        (np.zeros(4), np.zeros((4, 1)), r"queries has shape \(4,\)"),
        (np.zeros((0, 4)), np.zeros((4, 4)), "queries has shape"),
        (np.zeros((4, 4)), np.zeros((4, 4), dtype=np.int64), "gallery has type int64"),
        (np.zeros((4, 4)), np.zeros((4, 5)), "4 dimensions, the gallery 5"),
        (
            np.zeros((4, 4)),
            np.full((4, 4), np.inf),
            r"gallery holds NaN or infinity in 4 row\(s\), first \[0, 1, 2, 3\]",
        ),
    ],
)
def test_unusable_sides_are_refused(queries: np.ndarray, gallery: np.ndarray, message: str) -> None:
    with pytest.raises(PairsError, match=message):
        rank_positives(queries, gallery)


def test_opposite_infinities_in_one_row_are_found() -> None:
    rows = np.zeros((3, 4))
    rows[1] = [np.inf, -np.inf, 0, 0]
    with pytest.raises(PairsError, match=r"1 row\(s\), first \[1\]"):
        rank_positives(rows, np.zeros((3, 4)))


def test_query_without_positive_and_bad_keys_are_refused() -> None:
    rows = np.ones((2, 2))
    with pytest.raises(PairsError, match=r"1 query row\(s\).*first \[1\]"):
        rank_positives(rows, rows, ["a", "z"], ["a", "b"])
    with pytest.raises(PairsError, match="go together"):
        rank_positives(rows, rows, ["a", "b"])
    with pytest.raises(PairsError, match="go together"):
        rank_positives(rows, rows, ["a"], ["a", "b"])
    with pytest.raises(PairsError, match="chunk_size"):
        rank_positives(rows, rows, chunk_size=0)


MEASURE_GROWTH = """
from pathlib import Path
import numpy as np
from vmnet_pipeline.evaluation.ranks import rank_both

def peak_kib():  # that of `resource` starts with the peak of the parent
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

rows = np.random.default_rng(0).standard_normal((2_000, 512)).astype(np.float32)
rank_both(rows[:100], rows[:100], top_n=2)
before = peak_kib()
rank_both(rows, rows, top_n=25)
print((peak_kib() - before) // 1024)
"""


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_exact_scores_do_not_fragment_the_heap() -> None:
    # Results of each chunk, kept between temporaries of 2 MiB, let the heap grow by those for every chunk: 206 MiB.
    done = subprocess.run([sys.executable, "-c", MEASURE_GROWTH], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100


def test_inputs_are_not_changed() -> None:
    rng = np.random.default_rng(0)
    queries, gallery = make_unit_rows(rng, 9), make_unit_rows(rng, 9)
    copies = queries.copy(), gallery.copy()
    rank_queries(queries, gallery, top_n=3)
    assert np.array_equal(queries, copies[0])
    assert np.array_equal(gallery, copies[1])


@pytest.mark.parametrize("chunks", [(1000, 1000), (7, 5), (1, 1), (40, 13)])
@pytest.mark.parametrize("n", [1, 4, 200])
def test_highest_scores_and_top_rows_of_both_directions_match_a_sort(
    monkeypatch: pytest.MonkeyPatch, chunks: tuple[int, int], n: int
) -> None:
    rng = np.random.default_rng(1)
    queries, gallery = (rng.standard_normal((rows, 6)).astype(np.float32) for rows in (25, 16))
    keys = np.arange(25) % 16, np.arange(16)
    monkeypatch.setattr(ranking, "GALLERY_CHUNK", chunks[0])
    highest = score_nearest(queries, gallery, n, chunk_size=chunks[1])
    ranked = rank_both(queries, gallery, *keys, top_n=n, chunk_size=chunks[1])
    for found, result, scores in zip(highest, ranked, (queries @ gallery.T, gallery @ queries.T), strict=True):
        expected = np.argsort(-scores, axis=1)[:, :n]
        assert result.top.tolist() == expected.tolist()
        np.testing.assert_allclose(found, np.take_along_axis(scores, expected, axis=1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_ranks_on_the_device_are_those_of_the_evaluation(tied: bool) -> None:
    rng = np.random.default_rng(6)
    make = make_tied_rows if tied else make_unit_rows
    music, video, codes = make(rng, 70), make(rng, 70), rng.integers(0, 25, 70)
    expected = rank_both(music, video, codes, codes)
    found = rank_on_device(*map(torch.from_numpy, (music, video, codes)), chunk_size=16)
    for ranks, result in zip(found, expected, strict=True):
        np.testing.assert_allclose(ranks, result.ranks, rtol=0, atol=1e-9)
