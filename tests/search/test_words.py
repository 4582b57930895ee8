"""Words in the ranking: alone, together with an embedding, with filters and exclusions, calibrated or not."""

import numpy as np
import pandas as pd
import pytest

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.evaluation.calibration import LEVELS
from vmnet_pipeline.search.recommendation import rank_items
from vmnet_pipeline.search.reranking import Reranking
from vmnet_pipeline.search.vector_index import VectorIndex
from vmnet_pipeline.search.words import ask_by_qualities, ask_in_space
from vmnet_pipeline.words.asking import read_clauses
from vmnet_pipeline.words.qualities import Qualities
from vmnet_pipeline.words.understanding import Wish, Wishes

VECTORS = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1], [-1, 0]], np.float32)
ITEMS = pd.DataFrame({"id": list("abcde"), "group": list("xyxyx")})
QUERY = VECTORS[:1]
RAW = np.array([[-3.0], [0.0], [3.0], [1.0]])  # of a, b, c and d; nothing is known of e


def ask(weight=0.5, *, is_excluded=False, unknown=()):
    qualities = Qualities.measure("abcd", ("t:x",), RAW)
    return ask_by_qualities(Wishes((Wish("x", is_excluded, {"t:x": 1.0}),), unknown), qualities, weight)


@pytest.fixture(params=["flat", "hnsw"])
def index(request):
    from vmnet_pipeline.params import IndexParams

    return VectorIndex.build(VECTORS, ITEMS, IndexParams.model_validate({"kind": request.param}))


def name(ranking):
    return [item.id for item in ranking]


def test_words_alone_rank_what_is_known(index):
    ranking = rank_items(index, None, top_k=10, words=ask())
    assert name(ranking) == ["c", "d", "b", "a"]
    assert [item.rank for item in ranking] == [1, 2, 3, 4]
    assert all(-1 < item.score < 1 and item.fit is None for item in ranking)
    assert ranking[0].score > 0 > ranking[-1].score and ranking.remark == ""
    assert name(rank_items(index, None, top_k=10, words=ask(is_excluded=True))) == ["a", "b", "d", "c"]


def test_filters_exclusions_and_removed_items_hold_for_words(index):
    assert name(rank_items(index, None, top_k=1, words=ask(), exclude=["c"])) == ["d"]
    assert name(rank_items(index, None, top_k=9, words=ask(), filters=["group=x"])) == ["c", "a"]
    assert name(rank_items(index, QUERY, top_k=9, words=ask(), filters=["group=y"], exclude=["b"])) == ["d"]
    index.remove(["c"])
    for vector in (None, QUERY):
        assert "c" not in name(rank_items(index, vector, top_k=9, words=ask()))


def test_the_weight_goes_from_the_media_to_the_words(index):
    assert name(rank_items(index, QUERY, top_k=9, words=ask(0.0))) == list("abcde")
    both = rank_items(index, QUERY, top_k=9, words=ask(0.5))
    assert name(both)[0] == "c"  # neither the best by words alone of what is unlike, nor the most alike
    assert name(both)[-1] == "e"
    words = name(rank_items(index, QUERY, top_k=9, words=ask(1.0)))
    assert [item_id for item_id in words if item_id != "e"] == ["c", "d", "b", "a"]


def test_what_is_not_understood_is_in_the_remark(index):
    ranking = rank_items(index, QUERY, top_k=1, words=ask(unknown=("qwx",)), direction="video_to_music")
    assert ranking.remark.startswith("Not understood, and left out: 'qwx'. What these scores mean is not known")


def calibrate(slope):
    curve = {
        "slope": slope, "tail": 0.0, "intercept": 0.0, "quantiles": np.linspace(-1, 1, len(LEVELS)).tolist(),
        "thresholds": {},
    }  # fmt: skip
    return {"n_pairs": 50, "mrr": 0.5, "mrr_low": 0.4, "mrr_high": 0.6, "mrr_chance": 0.1, "curve": curve}


def test_a_network_that_knows_nothing_leaves_the_order_to_the_words(index):
    index.about["calibration"] = calibrate(0.0)
    ranking = rank_items(index, QUERY, top_k=9, words=ask(0.1), direction="video_to_music")
    assert name(ranking)[0] == "c" and name(ranking)[-1] == "a"
    assert all(item.fit is not None for item in ranking)  # the probability stays that of the media


def test_a_network_that_knows_much_outweighs_them(index):
    index.about["calibration"] = calibrate(40.0)
    assert name(rank_items(index, QUERY, top_k=9, words=ask(0.5), direction="video_to_music")) == list("abcde")


def test_words_and_variety_go_together_but_not_reranking(index):
    assert len(rank_items(index, QUERY, top_k=3, words=ask(), variety=0.5)) == 3
    assert len(rank_items(index, None, top_k=3, words=ask(), variety=0.5)) == 3
    with pytest.raises(ParameterError, match="cannot be combined with re-ranking"):
        rank_items(index, QUERY, top_k=3, words=ask(), reranking=Reranking(lambda ids: np.zeros(len(ids)), 0.5))
    with pytest.raises(ParameterError, match="nothing to search with"):
        rank_items(index, None, top_k=3)


def test_in_a_space_of_texts_items_are_compared_with_each_clause(index):
    texts = np.array([[0, 1], [1, 0]], np.float32)
    wanted = ask_in_space(read_clauses("dark, no drums"), texts, list("abcde"), VECTORS)
    assert name(rank_items(index, None, top_k=9, words=wanted))[0] == "d"
    assert name(rank_items(index, None, top_k=9, words=wanted))[-1] == "a"
    both = ask_in_space(read_clauses("dark, drums"), texts, list("abcde"), VECTORS)
    assert set(name(rank_items(index, None, top_k=2, words=both))) == {"b", "c"}


def test_an_index_without_items_and_a_library_of_which_nothing_is_known():
    empty = VectorIndex.build(VECTORS[:0], ITEMS[:0])
    assert rank_items(empty, None, top_k=3, words=ask()) == rank_items(empty, QUERY, top_k=3, words=ask()) == []
    others = VectorIndex.build(VECTORS, ITEMS.assign(id=list("vwxyz")))
    assert rank_items(others, None, top_k=3, words=ask()) == []
    assert name(rank_items(others, QUERY, top_k=9, words=ask())) == list("vwxyz")
