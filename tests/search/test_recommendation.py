"""Ranking for an embedding and for a media file: filters, exclusion, re-ranking; and the examples of the docstrings."""

import doctest
import importlib
import json

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from vmnet_pipeline.cli import cli
from vmnet_pipeline.errors import ParameterError, SearchIndexError
from vmnet_pipeline.models.checkpoints import save_checkpoint
from vmnet_pipeline.search.index_files import load_index, save_index
from vmnet_pipeline.search.recommendation import rank_items, recommend, target_side
from vmnet_pipeline.search.reranking import Reranking
from vmnet_pipeline.search.vector_index import VectorIndex

VECTORS = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]], np.float32)
ITEMS = pd.DataFrame({"id": list("abcd"), "group": ["x", "y", "x", "y"], "bpm": [90.0, np.nan, 120.0, 100.0]})
QUERY = VECTORS[:1]


@pytest.fixture
def index():
    return VectorIndex.build(VECTORS, ITEMS)


def name(ranking):
    return [item.id for item in ranking]


def test_results_have_rank_score_and_metadata(index):
    ranking = rank_items(index, QUERY, top_k=2)
    assert [(item.rank, item.id) for item in ranking] == [(1, "a"), (2, "b")]
    assert [item.score for item in ranking] == pytest.approx([1.0, 0.8])
    assert [item.metadata for item in ranking] == [{"group": "x", "bpm": 90.0}, {"group": "y", "bpm": None}]


def test_excluded_items_make_room_for_others(index):
    assert name(rank_items(index, QUERY, top_k=2, exclude=["a"])) == ["b", "c"]
    assert name(rank_items(index, QUERY, top_k=2, exclude={"b", "a", "unknown"})) == ["c", "d"]
    assert name(rank_items(index, QUERY, top_k=2, filters=["group=x"], exclude=["a"])) == ["c"]
    assert [item.rank for item in rank_items(index, QUERY, top_k=3, exclude=["a"])] == [1, 2, 3]
    assert rank_items(index, QUERY, top_k=3, exclude=list("abcd")) == []


def test_excluded_items_may_be_spelt_as_on_a_mac():
    index = VectorIndex.build(VECTORS, ITEMS.assign(id=["é", "b", "c", "d"]))
    assert name(rank_items(index, QUERY, top_k=2, exclude=["e\u0301"])) == ["b", "c"]


def test_reranking_looks_beyond_what_is_returned(index):
    asked = []

    def align(ids):
        asked.extend(ids)
        return np.array([float(item_id == "c") for item_id in ids])

    ranking = rank_items(index, QUERY, top_k=1, reranking=Reranking(align, weight=1.0, n_candidates=3))
    assert asked == ["a", "b", "c"]
    assert [(item.rank, item.id, item.score) for item in ranking] == [(1, "c", 1.0)]
    asked.clear()
    mixed = rank_items(index, QUERY, top_k=4, exclude=["a"], reranking=Reranking(align, 0.5, 2))
    assert asked == ["b", "c"]
    assert name(mixed) == ["c", "b", "d"]
    assert [item.score for item in mixed] == pytest.approx([0.8, 0.4, 0.0])


def test_what_cannot_be_searched_is_told(index):
    with pytest.raises(SearchIndexError, match="no 'mood' to filter by"):
        rank_items(index, QUERY, top_k=2, filters=["mood=sad"])


def test_the_target_is_the_other_side_or_the_same():
    assert [target_side("video", same_side=same) for same in (False, True)] == ["music", "video"]
    assert [target_side("music", same_side=same) for same in (False, True)] == ["video", "music"]


def test_reranking_needs_features(index, embedder):
    index.about["checkpoint"] = embedder.digest
    with pytest.raises(ParameterError, match="needs the features of the indexed items"):
        recommend(embedder, index, "a.wav", "music", rerank=0.5)


def test_recommend_and_its_command_leave_out_what_is_excluded(embedder, places, tmp_path, monkeypatch):
    importlib.import_module("kedro.framework.project")  # tells of its logging on stdout, outside of a project
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").touch()
    index = load_index(places / "music_index")
    assert name(recommend(embedder, index, "clip.mp4", "video")) == ["m2", "m1"]
    assert name(recommend(embedder, index, "clip.mp4", "video", exclude=["m2"], top_k=1)) == ["m1"]
    command = [
        "recommend",
        "clip.mp4",
        "--index-dir",
        str(places),
        "--checkpoint",
        str(places / "checkpoint"),
        "--json",
    ]
    done = CliRunner().invoke(cli, [*command, "--exclude", "m2", "--exclude", "m0"], catch_exceptions=False)
    assert [item["id"] for item in json.loads(done.stdout)["results"]] == ["m1"]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("vmnet_pipeline.inference.embedder", "Embedder"),
        ("vmnet_pipeline.search.vector_index", "VectorIndex"),
        ("vmnet_pipeline.search.recommendation", "recommend"),
    ],
)
def test_examples_in_docstrings_run(module, name, places):
    names = {"checkpoint": places / "checkpoint", "folder": places, "video": "clip.mp4"}
    item = getattr(importlib.import_module(module), name)
    tests = [test for test in doctest.DocTestFinder(recurse=False).find(item, name) if test.examples]
    assert tests
    for test in tests:
        test.globs |= names
        assert doctest.DocTestRunner().run(test).failed == 0


@pytest.fixture
def embedder():
    from vmnet_pipeline import Embedder
    from vmnet_pipeline.models.checkpoints import Checkpoint
    from vmnet_pipeline.models.factory import build_model

    torch.manual_seed(0)
    config = {
        "music_tower": "musicnn", "video_tower": "musicnn", "music_shape": [200], "video_shape": [1280],
        "embedding_dim": 2, "dropout": 0.1, "standardise": False,
    }  # fmt: skip
    return Embedder(Checkpoint(config, dict(build_model(**config).state_dict())))


@pytest.fixture
def places(embedder, tmp_path, monkeypatch):
    """A folder with a checkpoint and an index of two items; every file has the embedding of the second one."""
    from vmnet_pipeline import Embedder

    vectors = np.array([[0.6, 0.8], [1.0, 0.0]], np.float32)
    items = pd.DataFrame({"id": ["m1", "m2"], "title": ["One", "Two"]})
    save_index(tmp_path / "music_index", VectorIndex.build(vectors, items, about={"checkpoint": embedder.digest}))
    save_checkpoint(tmp_path / "checkpoint", embedder.checkpoint)
    monkeypatch.setattr(Embedder, "extract", lambda *_, **__: np.zeros((1, 1280), np.float32))
    monkeypatch.setattr(Embedder, "embed_feature", lambda *_: np.array([[1.0, 0.0]], np.float32))
    return tmp_path
