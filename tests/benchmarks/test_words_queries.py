"""The published list of queries, and how answers to them are judged."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from vmnet_pipeline.backends.musicnn_tags import TAGS

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("words")


@pytest.fixture(scope="module")
def table():
    """Ten tracks; the tags of both networks, of which the first two have rock and the last two a voice."""
    rng = np.random.default_rng(0)
    columns = [f"{network}:{tag}" for network in ("MSD_musicnn", "MTT_musicnn") for tag in TAGS[network]]
    table = pd.DataFrame(rng.normal(-5, 0.1, (10, len(columns))), columns=columns, index=[f"t{i}" for i in range(10)])
    table.loc[["t0", "t1"], ["MSD_musicnn:rock", "MTT_musicnn:rock"]] = 2.0
    table.loc[["t8", "t9"], ["MTT_musicnn:vocals", "MTT_musicnn:singing"]] = 2.0
    return table


def test_the_list_has_sixty_queries_of_every_kind_and_tags_that_exist():
    queries = yaml.safe_load((BENCHMARKS / "words_queries.yml").read_text())
    known = {tag for tags in TAGS.values() for tag in tags}
    assert len({query["text"] for query in queries}) == len(queries) >= 60
    assert {"exact", "synonym", "negation", "instrumental", "language"} <= {query["kind"] for query in queries}
    for query in queries:
        assert {*query["right"], *query.get("wrong", ())} <= known, query["text"]
        assert query["right"] or query.get("wrong"), query["text"]


def test_gains_are_shares_of_right_tags_and_zero_with_a_wrong_one(bench, table):
    truth = bench.find_truth(table, ["MSD_musicnn", "MTT_musicnn"])
    assert truth["rock"].tolist() == [True, True] + [False] * 8
    assert bench.find_gain({"right": ["rock", "vocals"]}, truth).tolist() == [0.5, 0.5, *[0] * 6, 0.5, 0.5]
    assert bench.find_gain({"right": [], "wrong": ["vocals"]}, truth).tolist() == [*[1] * 8, 0, 0]
    assert bench.find_gain({"right": ["rock"], "wrong": ["rock"]}, truth) is None  # nothing to find
    msd = bench.find_truth(table, ["MSD_musicnn"])
    assert bench.find_gain({"right": ["singing"]}, msd) is None  # that network has no such tag


def test_equal_tags_are_whole_words_and_ties_count_as_their_expectation(bench, table):
    truth = bench.find_truth(table, ["MSD_musicnn"])
    ranks = {"equal": bench.rank_by_equal_tags(table, None), "none": lambda text: np.zeros(10)}
    queries = [{"text": "Rock!", "kind": "k", "right": ["rock"]}, {"text": "rocking", "kind": "k", "right": ["rock"]}]
    figures = bench.measure(queries, ranks, truth)
    assert figures["equal"][0] == pytest.approx(1.0)
    assert figures["equal"][1] == pytest.approx(figures["none"][1])
    assert 0.3 < figures["none"][0] < 0.7
    one = bench.rank_by_equal_tags(table, 1)("rock")  # of each network
    assert one[:2].min() > one[2:].mean()
