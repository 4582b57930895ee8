"""What a search says of its scores: probability, percentile, and that nothing fits."""

import math

import numpy as np
import pandas as pd
import pytest

from vmnet_pipeline.errors import SearchIndexError
from vmnet_pipeline.evaluation.calibration import LEVELS, Calibration
from vmnet_pipeline.evaluation.domain import know_items
from vmnet_pipeline.search.index_files import load_index, save_index
from vmnet_pipeline.search.recommendation import rank_items
from vmnet_pipeline.search.reranking import Reranking
from vmnet_pipeline.search.vector_index import VectorIndex

VECTORS = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]], np.float32)
ITEMS = pd.DataFrame({"id": list("abcd"), "group": ["x", "y", "x", "y"]})
CALIBRATION = Calibration(
    n_pairs=40,
    mrr=0.5,
    mrr_low=0.4,
    mrr_high=0.6,
    mrr_chance=0.1,
    curve={
        "slope": 10.0,
        "tail": 0.0,
        "intercept": -5.0,
        "quantiles": np.linspace(-1, 1, len(LEVELS)).tolist(),
        "thresholds": {
            "video_to_music": [{"pool_size": 1, "score": 0.2}, {"pool_size": 4, "score": 0.9}],
            "music_to_video": [{"pool_size": 1, "score": 0.95}],
        },
    },
)


@pytest.fixture
def index():
    return VectorIndex.build(VECTORS, ITEMS, about={"calibration": CALIBRATION.model_dump(mode="json")})


def expect_fit(score, pool_size):
    return 1 / (1 + (pool_size - 1) / math.exp(10 * score - 5))


def rank(index, cosine=1.0, direction="video_to_music", **options):
    query = np.array([cosine, -math.sqrt(1 - cosine**2)], np.float32)
    return rank_items(index, query, **{"top_k": 4, "direction": direction, **options})


@pytest.mark.parametrize("direction", ["video_to_music", "music_to_video"])
def test_each_result_has_a_probability_for_the_items_searched_and_a_percentile(index, direction):
    ranking = rank(index, direction=direction)
    assert [item.fit for item in ranking] == pytest.approx([expect_fit(s, 4) for s in (1.0, 0.8, 0.6, 0.0)])
    assert ranking[0].percentile == 100.0
    assert ranking[3].percentile == pytest.approx(100 * LEVELS[52], abs=1)
    assert ranking.remark == ""


def test_filters_and_exclusion_make_the_library_smaller(index):
    assert rank(index, filters=["group=x"])[0].fit == pytest.approx(expect_fit(1.0, 2))
    assert rank(index, exclude=["d"])[0].fit == pytest.approx(expect_fit(1.0, 3))
    index.remove(["d"])
    assert rank(index)[0].fit == pytest.approx(expect_fit(1.0, 3))


def test_the_probability_is_that_of_the_cosine_whatever_the_order(index):
    align = Reranking(lambda ids: np.array([float(i == "c") for i in ids]), weight=1.0)
    found = {item.id: item.fit for item in rank(index)}
    for options in ({"reranking": align}, {"variety": 0.9}):
        ranking = rank(index, **options)
        assert [item.id for item in ranking] != list("abcd")
        assert {item.id: item.fit for item in ranking} == found


def test_it_is_said_that_nothing_fits_in_both_directions(index):
    said = "Nothing in this library fits: the best score, 0.850, is below 0.900, which the best answers of 95% of"
    assert rank(index, 0.85).remark.startswith(said)
    assert rank(index, 0.92).remark == ""
    assert rank(index, 0.92, "music_to_video").remark.startswith("Nothing in this library fits")
    # two items are a smaller library, whose best answers are lower
    assert rank(index, 0.85, filters=["group=x"]).remark == ""
    # what is not shown counts: the best answer is excluded from the results, not from the library of the others
    assert rank(index, 0.85, top_k=1, variety=1.0).remark.startswith(said)


def test_more_like_this_has_no_probability(index):
    for direction in ("music_to_music", ""):
        ranking = rank(index, direction=direction)
        assert {item.fit for item in ranking} == {item.percentile for item in ranking} == {None}
        assert ranking.remark == ""


@pytest.mark.parametrize("stored", [None, CALIBRATION.model_copy(update={"curve": None, "n_pairs": 5}).model_dump()])
def test_an_index_without_calibration_says_so(index, stored):
    index.about["calibration"] = stored
    ranking = rank(index)
    assert [item.fit for item in ranking] == [None] * 4
    assert ranking.remark.startswith("What these scores mean is not known: the network has fewer than 20 validation")


def test_a_model_at_chance_says_so_with_every_answer(index):
    for curve in (CALIBRATION.curve, None):
        index.about["calibration"] = CALIBRATION.model_copy(update={"mrr_low": 0.05, "curve": curve}).model_dump()
        assert rank(index).remark.endswith(
            "This model is not better than chance on its validation pairs (MRR 0.500, 95 % interval 0.050 to 0.600; "
            "chance 0.100; 40 pairs)."
        )


def test_a_query_unlike_what_the_network_was_trained_on_is_told():
    rows = np.random.default_rng(0).normal([4.0, 1.0], 0.3, (60, 2)).astype(np.float32)
    videos = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    known = {"video": know_items(videos, range(60))}
    about = {"calibration": CALIBRATION.model_copy(update={"known": known}).model_dump(mode="json")}
    index = VectorIndex.build(VECTORS, ITEMS, about=about)
    usual, unlike = rank_items(index, videos[0], top_k=4, direction="video_to_music"), rank(index, 0.2)
    assert usual.in_domain is True
    assert usual.remark == ""
    assert unlike.in_domain is False
    assert unlike.remark.startswith("This video is unlike everything that the network was trained on (nearest item: ")
    assert "Nothing in this library fits" in unlike.remark
    assert rank(index, 0.2, "video_to_video").in_domain is False  # also for more like this
    for direction in ("music_to_video", "music_to_music", ""):  # of music nothing is known
        assert rank(index, 0.2, direction).in_domain is None


def test_no_result_no_remark(index):
    assert rank(index, exclude=list("abcd")).remark == ""


def test_a_stored_index_keeps_its_calibration_and_a_damaged_one_is_refused(index, tmp_path):
    save_index(tmp_path, index)
    assert rank(load_index(tmp_path)) == rank(index)
    index.about["calibration"]["curve"]["slope"] = -1
    save_index(tmp_path, index)
    with pytest.raises(SearchIndexError, match=r"calibration is damaged.*rebuild it"):
        load_index(tmp_path)
