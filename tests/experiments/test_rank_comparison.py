"""Variants that were evaluated apart, side by side."""

import numpy as np
import pytest

from vmnet_pipeline.evaluation.results import DIRECTIONS
from vmnet_pipeline.experiments.rank_comparison import compare_ranks


def make_rows(seed, n=30, groups=6, shift=0.0):
    rng = np.random.default_rng(seed)
    return [
        {"id": f"{i:02d}", "group": f"g{i % groups}", "direction": direction, "rank": float(rng.integers(1, n) + shift)}
        for direction in DIRECTIONS
        for i in range(n)
    ]


def test_figures_are_those_of_the_ranks_and_differences_are_paired():
    one = make_rows(1)
    two = [row | {"rank": row["rank"] + 1} for row in one]
    found = compare_ranks({"one": one, "two": list(reversed(two))}, ks=(5,), n_resamples=200)
    first, second = found["rows"]
    there = np.array([row["rank"] for row in one if row["direction"] == "music_to_video"])
    assert first["figures"]["music_to_video/recall_at_5"]["value"] == pytest.approx(np.mean(there <= 5))
    assert first["median_rank"]["music_to_video"] == np.median(there)
    ranks = np.array([row["rank"] for row in one])
    difference = second["difference"]["both/mrr"]
    assert difference["value"] == pytest.approx(np.mean(1 / (ranks + 1) - 1 / ranks))
    assert difference["low"] <= difference["value"] <= difference["high"] < 0
    # unpaired, the two intervals overlap widely: both are the same queries
    assert (
        difference["high"] - difference["low"]
        < first["figures"]["both/mrr"]["high"] - first["figures"]["both/mrr"]["low"]
    )
    assert found["seeds"] == []
    assert found["n_groups"] == 6


def test_a_variant_that_was_asked_other_queries_is_left_out():
    found = compare_ranks({"one": make_rows(1), "two": make_rows(2, n=29), "three": make_rows(3)}, n_resamples=20)
    assert [row["name"] for row in found["rows"]] == ["one", "three"]
    assert found["left_out"] == ["two"]


def test_items_without_a_group_are_groups_of_their_own():
    rows = [row | {"group": None} for row in make_rows(1)]
    assert compare_ranks({"one": rows}, n_resamples=20)["n_groups"] == 30


def test_no_hit_at_all_and_no_difference_at_all_are_not_certain():
    rows = [row | {"rank": 20.0} for row in make_rows(1)]
    found = compare_ranks({"one": rows, "two": rows}, ks=(5, 30), n_resamples=20)
    first, second = found["rows"]
    far = 1 - 0.025 ** (1 / 6)  # no hit in 6 groups
    none = first["figures"]["both/recall_at_5"]
    assert (none["value"], none["low"], none["high"]) == (0.0, 0.0, pytest.approx(far))
    equal = second["difference"]["both/recall_at_5"]
    assert (equal["low"], equal["high"]) == pytest.approx((-far, far))
    assert {first["difference"]["both/mrr"][end] for end in ("low", "high")} == {0.0}  # itself
    assert {first["figures"]["both/recall_at_30"][end] for end in ("low", "high")} == {1.0}  # by definition
