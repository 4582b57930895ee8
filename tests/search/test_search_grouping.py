"""One hit of each group."""

import numpy as np
import pandas as pd
import pytest

from vmnet_pipeline.search.grouping import keep_best_of_groups
from vmnet_pipeline.search.recommendation import rank_items
from vmnet_pipeline.search.vector_index import VectorIndex

N = 400


@pytest.fixture(scope="module")
def index():
    """Groups of 40 that lie close together, and 40 items without a group."""
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.normal(size=(10, 16)), 40, axis=0)
    vectors = (centres + 0.05 * rng.normal(size=(N, 16))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    groups = [f"g{place // 40}" if place < 360 else ["", None][place % 2] for place in range(N)]
    items = pd.DataFrame({"id": [f"i{place:03d}" for place in range(N)], "group": groups})
    return VectorIndex.build(vectors, items)


def test_the_best_of_each_group_in_the_order_of_all(index):
    query = index.take_vectors([5])
    everything = rank_items(index, query, top_k=N)
    seen, expected = set(), []
    for item in everything:
        group = item.metadata["group"]
        if not group or group not in seen:
            expected.append(item.id)
        seen.add(group)
    assert len(expected) == 49
    for top_k in (1, 3, 30, N):
        found = rank_items(index, query, top_k=top_k, one_per_group=True)
        assert [item.id for item in found] == expected[:top_k]
        assert [item.rank for item in found] == list(range(1, len(found) + 1))


def test_with_filters_excluded_items_and_variety(index):
    query = index.take_vectors([5])
    found = rank_items(index, query, top_k=5, one_per_group=True, exclude=["i005"], filters=["group!=g3"])
    groups = [item.metadata["group"] for item in found]
    assert "i005" not in [item.id for item in found] and "g3" not in groups and groups[0] == "g0"
    varied = rank_items(index, query, top_k=5, one_per_group=True, variety=0.5)
    named = [item.metadata["group"] for item in varied if item.metadata["group"]]
    assert len(varied) == 5 and len({*named}) == len(named)


def test_an_index_without_groups(index):
    plain = VectorIndex.build(index.take_vectors(range(8)), index.items[["id"]].iloc[:8])
    hits = plain.search(index.take_vectors([0]), 8)[0]
    assert keep_best_of_groups(hits, plain.items) == hits
    assert keep_best_of_groups([], index.items) == []
