"""Search indexes against plain products, whatever was added, removed and filtered."""

import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest

from vmnet_pipeline.errors import SearchIndexError
from vmnet_pipeline.params import IndexParams
from vmnet_pipeline.search import vector_index as index_module
from vmnet_pipeline.search.vector_index import VectorIndex, choose_kind

DIM = 16


def draw(n, seed=0, dim=DIM):
    rows = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_items(n, start=0):
    numbers = range(start, start + n)
    return pd.DataFrame(
        {
            "id": [f"{i:03d}" for i in numbers],
            "source": [f"s{i}" for i in numbers],
            "group": ["even" if i % 2 == 0 else "odd" for i in numbers],
            "duration_s": [float(i) for i in numbers],
        }
    )


def build(n, kind="flat", seed=0, **sizes):
    params = IndexParams.model_validate({"kind": kind, "pq_bytes": 8, "hnsw_links": 8, **sizes})
    return VectorIndex.build(draw(n, seed), make_items(n), params)


def rank(vectors, query, allowed, k):
    """Naive: positions of the k best allowed ones."""
    order = sorted(allowed, key=lambda i: -float(vectors[i].astype(np.float64) @ query.astype(np.float64)))
    return [f"{i:03d}" for i in order[:k]]


def ids_of(hits):
    return [hit.id for hit in hits]


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_the_best_come_first_with_their_cosine(kind):
    vectors, index = draw(200), build(200, kind)
    for hits, query in zip(index.search(draw(5, seed=1), 7), draw(5, seed=1), strict=True):
        assert ids_of(hits) == rank(vectors, query, range(200), 7)
        np.testing.assert_allclose(
            [hit.score for hit in hits], [query @ vectors[hit.position] for hit in hits], atol=1e-6
        )
    assert ids_of(index.search(vectors[3], 1)[0]) == ["003"]


def test_compressed_vectors_are_found_again(monkeypatch):
    monkeypatch.setattr(index_module, "MIN_TRAINING_VECTORS", 1000)
    vectors, index = draw(1500), build(1500, "ivfpq", ivf_lists=8, ivf_probes=8)
    assert index.kind == "ivfpq"
    found = index.search(vectors[:100], 10)
    assert np.mean([f"{i:03d}" in ids_of(hits) for i, hits in enumerate(found)]) > 0.95
    index.remove(index.ids[:1000])
    assert {hit.id for hit in index.search(vectors[0], 20)[0]} <= {f"{i:03d}" for i in range(1000, 1500)}


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_removed_items_are_never_found_and_added_ones_are(kind):
    vectors, index = draw(300), build(200, kind)
    vectors[:200] = draw(200)
    assert index.remove(["003", "100", "nobody"]) == 2
    assert index.remove(["003"]) == 0
    index.add(vectors[200:], make_items(100, start=200))
    assert len(index) == 298
    allowed = [i for i in range(300) if i not in (3, 100)]
    for hits, query in zip(index.search(vectors[[3, 100, 250]], 10), vectors[[3, 100, 250]], strict=True):
        assert ids_of(hits) == rank(vectors, query, allowed, 10)
    # an id that was removed may come again, with another vector
    index.add(vectors[3:4], make_items(1, start=3))
    assert ids_of(index.search(vectors[3], 1)[0]) == ["003"]


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
@pytest.mark.parametrize(
    ("filters", "is_allowed"),
    [
        (["group=even"], lambda i: i % 2 == 0),
        (["group!=even", "duration>=190"], lambda i: i % 2 and i >= 190),
        (["duration<6"], lambda i: i < 6),
    ],
)
def test_filters_are_met_by_every_answer_and_hide_no_better_one(kind, filters, is_allowed):
    vectors, index = draw(200), build(200, kind)
    index.remove(["004"])
    allowed = [i for i in range(200) if is_allowed(i) and i != 4]
    for hits, query in zip(index.search(draw(4, seed=2), 10, filters), draw(4, seed=2), strict=True):
        assert ids_of(hits) == rank(vectors, query, allowed, 10)


def test_a_graph_finds_items_that_a_filter_leaves_although_they_are_far_from_the_query():
    vectors, items = draw(4000) * 0.5, make_items(4000)
    is_far = np.arange(4000) % 8 == 0
    vectors[:, 0] += np.where(is_far, -3.0, 3.0)  # two clusters on opposite sides
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = VectorIndex.build(vectors, items.assign(group=np.where(is_far, "far", "near")), IndexParams(kind="hnsw"))
    queries = vectors[1:200:8]
    for hits, query in zip(index.search(queries, 5, ["group=far"]), queries, strict=True):
        assert ids_of(hits) == rank(vectors, query, np.flatnonzero(is_far), 5)


def test_a_graph_without_a_way_to_what_a_filter_leaves_is_no_reason_for_fewer_answers():
    vectors = np.zeros((300, DIM), np.float32)
    vectors[::2, 0], vectors[1::2, 0] = 1.0, -1.0
    params = IndexParams(kind="hnsw", flat_max_items=1, hnsw_search_width=2, hnsw_links=4)
    index = VectorIndex.build(vectors, make_items(300), params)
    assert all(len(hits) == 10 for hits in index.search(vectors[:2], 10, ["group=odd"]))


def test_a_graph_searches_wider_the_more_a_filter_leaves_out():
    items = make_items(4000).assign(group=["few" if i % 8 == 0 else "many" for i in range(4000)])
    vectors, queries = draw(4000, dim=32), draw(50, seed=1, dim=32)
    index = VectorIndex.build(vectors, items, IndexParams(kind="hnsw", hnsw_search_width=32, flat_max_items=1))
    found = index.search(queries, 10, ["group=few"])
    best = [rank(vectors, query, range(0, 4000, 8), 10) for query in queries]
    shares = [len({*ids_of(hits)} & {*right}) / 10 for hits, right in zip(found, best, strict=True)]
    assert np.mean(shares) > 0.97


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_more_answers_than_items_and_no_items_at_all(kind):
    index = build(5, kind)
    assert sorted(ids_of(index.search(draw(1), 100)[0])) == ["000", "001", "002", "003", "004"]
    assert index.search(draw(2), 3, ["group=nobody"]) == [[], []]
    index.remove(index.ids)
    assert index.search(draw(2), 3) == [[], []]
    empty = VectorIndex.build(np.empty((0, DIM), np.float32), make_items(0), index.params)
    assert len(empty) == 0
    assert empty.search(draw(1), 3) == [[]]
    empty.add(draw(2), make_items(2))
    assert ids_of(empty.search(draw(2)[1], 1)[0]) == ["001"]


def test_positions_of_a_whole_index_stay_in_step_with_the_table():
    index = build(4)
    index.remove(["001"])
    index.add(draw(1, seed=5), make_items(1, start=4))
    index.describe_items(pd.DataFrame({"id": ["004", "000"], "title": ["new", "old"], "source": ["x", "y"]}))
    assert index.items["id"].tolist() == ["000", "001", "002", "003", "004"]
    assert index.items["source"].tolist() == ["s0", "s1", "s2", "s3", "s4"]
    assert index.items["title"].tolist()[::4] == ["old", "new"]
    assert ids_of(index.search(draw(1, seed=5), 1, ["title=new"])[0]) == ["004"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.add(draw(1, dim=8), make_items(1, 9)), r"\(1, 8\); this index takes \(n, 16\)"),
        (lambda index: index.add(draw(2), make_items(1, 9)), "2 vectors but 1 items"),
        (lambda index: index.add(draw(1), make_items(1, 2)), "id '002' is there already"),
        (lambda index: index.add(draw(2), make_items(1, 9).iloc[[0, 0]]), "id '009' is there already"),
        (lambda index: index.add(draw(1) * np.nan, make_items(1, 9)), "NaN or infinity"),
        (lambda index: index.search(draw(1, dim=8)), r"queries have shape \(1, 8\)"),
        (lambda index: index.search(draw(1) * np.inf), "query has NaN or infinity"),
        (lambda index: index.search(draw(1), 0), "k is 0"),
        (lambda index: index.search(draw(1), 1, ["colour=red"]), "no 'colour' to filter by; they have id, "),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(change, message):
    index = build(5)
    before = index.search(draw(3), 5)
    with pytest.raises(SearchIndexError, match=message):
        change(index)
    assert index.search(draw(3), 5) == before
    index.add(draw(1, seed=8), make_items(1, 7))
    assert ids_of(index.search(draw(1, seed=8), 1)[0]) == ["007"]


def test_half_an_addition_that_fails_leaves_no_trace(monkeypatch):
    monkeypatch.setattr(index_module, "ADD_CHUNK", 2)
    index, vectors = build(5), draw(5, seed=3)
    vectors[4] = np.nan
    with pytest.raises(SearchIndexError, match="NaN"):
        index.add(vectors, make_items(5, 10))
    assert len(index) == 5
    assert {hit.id for hit in index.search(vectors[0], 20)[0]} == {"000", "001", "002", "003", "004"}
    index.add(draw(1, seed=8), make_items(1, 7))
    assert ids_of(index.search(draw(1, seed=8), 1)[0]) == ["007"]


def test_the_kind_follows_the_number_of_items():
    params = IndexParams.model_validate({"flat_max_items": 10, "hnsw_max_items": 20_000})
    assert [choose_kind(params, n) for n in (0, 10, 11, 20_000, 20_001)] == ["flat", "flat", "hnsw", "hnsw", "ivfpq"]
    # too few to learn codes from
    assert choose_kind(IndexParams.model_validate({"kind": "ivfpq"}), 500) == "flat"
    with pytest.raises(SearchIndexError, match="pq_bytes=7 does not divide"):
        VectorIndex.build(
            draw(10_000, dim=4), make_items(10_000), IndexParams.model_validate({"kind": "ivfpq", "pq_bytes": 7})
        )


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_searches_and_changes_from_many_threads(kind):
    """Every answer is one that the index gave at some moment: a permanent item is found always, a removed one never."""
    vectors, index = draw(400), build(200, kind)
    gone = threading.Event()
    errors = []

    def search():
        for round_number in range(60):
            was_gone = gone.is_set()
            hits = index.search(vectors[[5, 77]], 3)
            if hits[0][0].id != "005" or (was_gone and hits[1][0].id == "077"):
                errors.append((round_number, hits))

    def change():
        for i in range(200, 400):
            index.add(vectors[i : i + 1], make_items(1, i))
            if i == 250:
                index.remove(["077"])
                gone.set()

    def guard(work):
        try:
            work()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(daemon=True, target=guard, args=(work,)) for work in (search, search, search, change)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(index) == 399


def test_a_change_waits_for_searches_and_goes_before_later_ones(monkeypatch):
    index, order = build(5), []
    is_inside, may_leave = threading.Event(), threading.Event()
    search = index._search

    def search_slowly(queries, k, allowed):
        order.append("search")
        is_inside.set()
        may_leave.wait(20)
        return search(queries, k, allowed)

    monkeypatch.setattr(index, "_search", search_slowly)
    first = threading.Thread(daemon=True, target=index.search, args=(draw(1),))
    first.start()
    is_inside.wait(20)
    change = threading.Thread(daemon=True, target=lambda: (index.remove(["001"]), order.append("change")))
    change.start()
    change.join(0.3)
    assert change.is_alive()
    assert len(index) == 5
    second = threading.Thread(daemon=True, target=index.search, args=(draw(1),))
    second.start()
    second.join(0.1)
    may_leave.set()
    for thread in (first, change, second):
        thread.join(20)
    assert len(index) == 4
    assert order.count("search") == 2


@pytest.mark.process
@pytest.mark.parametrize("modules", [("faiss", "torch"), ("torch", "faiss")])
def test_torch_and_faiss_live_in_one_process(modules):
    """Each brings an OpenMP of its own; products and searches by several threads are right in either order."""
    code = f"""
import {modules[0]}, {modules[1]}
import numpy as np
rows = np.random.default_rng(0).normal(size=(2000, 64)).astype("float32")
torch.set_num_threads(2)
faiss.omp_set_num_threads(2)
for _ in range(3):
    product = (torch.from_numpy(rows) @ torch.from_numpy(rows[:50]).T).numpy()
    index = faiss.IndexFlatIP(64)
    index.add(rows)
    assert (index.search(rows[:50], 1)[1][:, 0] == product.argmax(axis=0)).all()
print("right")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "right", done.stderr[-2000:]
