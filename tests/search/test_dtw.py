"""Alignment of two sequences, against all paths."""

import itertools

import numpy as np
import pytest

from vmnet_pipeline.search.dtw import align_sequences, mix_scores


def draw_unit(n, seed, dim=3):
    rows = np.random.default_rng(seed).normal(size=(n, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def try_all_paths(a, b):
    """The best weighted mean over every monotone path from the first cell to the last, each step one of three."""
    best = -2.0
    steps = ((1, 1), (1, 0), (0, 1))
    for n_steps in range(max(len(a), len(b)) - 1, len(a) + len(b) - 1):
        for path in itertools.product(steps, repeat=n_steps):
            place, total, weight = (0, 0), 2 * a[0] @ b[0], 2
            for down, right in path:
                place = (place[0] + down, place[1] + right)
                if place[0] >= len(a) or place[1] >= len(b):
                    break
                total, weight = total + (down + right) * (a[place[0]] @ b[place[1]]), weight + down + right
            else:
                if place == (len(a) - 1, len(b) - 1):
                    best = max(best, total / weight)
    return best


def test_it_is_the_best_of_all_paths():
    query = draw_unit(4, 0)
    candidates = [draw_unit(n, seed) for seed, n in enumerate((1, 2, 3, 4, 5), start=1)]
    found = align_sequences(query, candidates)
    np.testing.assert_allclose(found, [try_all_paths(query, candidate) for candidate in candidates], atol=1e-12)


def test_equal_sequences_agree_and_reversed_ones_do_not():
    query = np.eye(4)
    slow = np.repeat(query, 3, axis=0)
    same, stretched, turned = align_sequences(query, [query, slow, query[::-1]])
    assert same == pytest.approx(1.0)
    assert stretched == pytest.approx(1.0)
    assert turned < 0.5


def test_it_is_symmetric_and_of_single_pieces_the_cosine():
    a, b = draw_unit(3, 8), draw_unit(5, 9)
    assert align_sequences(a, [b])[0] == pytest.approx(align_sequences(b, [a])[0])
    assert align_sequences(a[:1], [b[:1]])[0] == pytest.approx(a[0] @ b[0])
    assert len(align_sequences(a, [])) == 0


def test_mixing():
    np.testing.assert_allclose(mix_scores(np.array([1.0, 0.0]), np.array([0.0, 1.0]), 0.25), [0.75, 0.25])
