"""Variety: against the definition written as plain double loops, for every kind of index."""

import numpy as np
import pandas as pd
import pytest

from vmnet_pipeline.params import IndexParams
from vmnet_pipeline.search.recommendation import rank_items
from vmnet_pipeline.search.reranking import N_CANDIDATES, Reranking
from vmnet_pipeline.search.vector_index import VectorIndex

N = 120


def draw(n, seed, dim=8):
    rows = np.random.default_rng(seed).normal(size=(n, dim)) + 1.0
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def choose_by_loops(vectors, scores, variety, top_k):
    """Carbonell and Goldstein's definition, one candidate after the other."""
    left, chosen = sorted(range(len(scores)), key=lambda i: -scores[i])[:N_CANDIDATES], []
    while left and len(chosen) < top_k:
        best, best_value = None, None
        for i in left:
            nearest = max((float(vectors[i] @ vectors[j]) for j in chosen), default=0.0)
            value = scores[i] if not chosen else (1 - variety) * scores[i] - variety * nearest
            if best is None or value > best_value:
                best, best_value = i, value
        chosen.append(best)
        left.remove(best)
    return chosen


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
@pytest.mark.parametrize("variety", [0.0, 0.2, 0.7, 1.0])
def test_the_order_is_that_of_plain_loops(kind, variety):
    vectors, query = draw(N, 0), draw(1, 1)
    items = pd.DataFrame({"id": [str(i) for i in range(N)]})
    index = VectorIndex.build(vectors, items, IndexParams(kind=kind))
    ranking = rank_items(index, query, top_k=12, variety=variety)
    scores = [float(vectors[i] @ query[0]) for i in range(N)]
    expected = choose_by_loops(vectors, scores, variety, 12)
    assert [int(item.id) for item in ranking] == expected
    assert [item.rank for item in ranking] == list(range(1, 13))
    assert [item.score for item in ranking] == pytest.approx([scores[i] for i in expected], abs=1e-6)


def test_doubles_give_place_to_others_and_the_best_stays_first():
    vectors = np.array([[1, 0, 0], [0.999, 0.0447, 0], [0.995, 0, 0.0999], [0.6, 0.8, 0]], np.float32)
    index = VectorIndex.build(vectors, pd.DataFrame({"id": list("abcd")}))
    query = vectors[:1]
    assert [item.id for item in rank_items(index, query, top_k=2)] == ["a", "b"]
    assert [item.id for item in rank_items(index, query, top_k=2, variety=0.6)] == ["a", "d"]
    assert [item.id for item in rank_items(index, query, top_k=2, variety=0.6, exclude=["a"])] == ["b", "d"]
    assert rank_items(index, query, top_k=2, variety=0.6, exclude=list("abcd")) == []


@pytest.mark.long
def test_a_compressed_index_gives_what_is_left_of_its_vectors_also_after_more_were_added():
    vectors = draw(12_000, 2, dim=16)
    items = pd.DataFrame({"id": [str(i) for i in range(12_000)]})
    params = IndexParams(kind="ivfpq", pq_bytes=8, ivf_lists=8, ivf_probes=8)
    index = VectorIndex.build(vectors[:11_000], items[:11_000], params)
    for known in (11_000, 12_000):
        places = [3, known - 1, 17]
        found = index.take_vectors(places)
        assert (np.einsum("ij,ij->i", found, vectors[places]) > 0.7).all()
        index.add(vectors[11_000:], items[11_000:]) if known == 11_000 else None
    ranking = rank_items(index, vectors[:1], top_k=10, variety=0.5)
    assert len({item.id for item in ranking}) == 10
    assert [item.id for item in ranking] != [item.id for item in rank_items(index, vectors[:1], top_k=10)]


def test_scores_mixed_with_the_agreement_over_time_are_what_variety_weighs():
    vectors = draw(30, 5)
    index = VectorIndex.build(vectors, pd.DataFrame({"id": [str(i) for i in range(30)]}))
    agreement = np.linspace(-1, 1, 30)
    reranking = Reranking(lambda ids: np.array([agreement[int(i)] for i in ids]), weight=0.5, n_candidates=30)
    query = draw(1, 6)
    mixed = [0.5 * float(vectors[i] @ query[0]) + 0.5 * agreement[i] for i in range(30)]
    found = rank_items(index, query, top_k=8, reranking=reranking, variety=0.4)
    assert [int(item.id) for item in found] == choose_by_loops(vectors, mixed, 0.4, 8)
