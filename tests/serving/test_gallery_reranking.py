"""Re-ranking over HTTP: the scores of the library, for an id, a file and features; and what cannot be re-ranked."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from serving_collection import VIDEO

from vmnet_pipeline import Embedder
from vmnet_pipeline.features.store import FeatureStore
from vmnet_pipeline.search.recommendation import rank_items, recommend
from vmnet_pipeline.search.reranking import PIECE_S, Reranking, align_stored


@pytest.fixture(scope="module")
def embedder(places):
    return Embedder.load(places.checkpoint, weights_dir=places.weights_dir)


def ask(client, **body):
    return client.post("/v1/recommendations", json=body)


def read(answer):
    return [(item["id"], pytest.approx(item["score"], abs=1e-4)) for item in answer.json()["results"]]


@pytest.mark.parametrize(("query", "same_side"), [("video", False), ("music", False), ("music", True)])
def test_scores_are_those_of_the_library(client, service, places, manifest, embedder, query, same_side):
    path = Path(manifest.loc["0002", "video_path" if query == "video" else "audio_path"])
    side = query if same_side else {"video": "music", "music": "video"}[query]
    store = FeatureStore(places.features / ("musicnn" if side == "music" else VIDEO["backend"]))
    index = service.state.gallery.sides[side].index
    options = {"same_side": same_side, "top_k": 4, "rerank": 0.5, "store": store}
    expected = recommend(embedder, index, path, query, **options)
    params = {"query": query, "same_side": same_side, "top_k": 4, "rerank": 0.5}
    answer = client.post("/v1/recommendations", params=params, content=path.read_bytes())
    assert [(item.id, item.score) for item in expected] == read(answer)
    whole = client.post("/v1/recommendations", params={**params, "rerank": 0}, content=path.read_bytes())
    assert read(whole) != read(answer)
    by_id = ask(client, id="0002", query=query, same_side=same_side, top_k=4, rerank=0.5)
    own = FeatureStore(places.features / ("musicnn" if query == "music" else VIDEO["backend"]))
    pieces = embedder.cut_pieces(query, PIECE_S).embed(own.load("0002"))
    reranking = Reranking(lambda ids: align_stored(embedder, pieces, side, store, ids), 0.5)
    vector, exclude = service.state.gallery.find_vector("0002", query), ["0002"] if same_side else []
    expected = rank_items(index, vector, top_k=4, exclude=exclude, reranking=reranking)
    assert [(item.id, item.score) for item in expected] == read(by_id)
    assert service.metrics.jobs._value.get() == 0


@pytest.mark.parametrize("n_times", [1, 20])
def test_features_over_time_are_cut_into_pieces(client, places, n_times):
    feature = FeatureStore(places.features / "musicnn").load("0001").repeat(n_times, axis=0)
    answer = ask(client, features=feature.tolist(), query="music", rerank=1.0, top_k=6)
    assert (int(answer.request.headers["content-length"]) > 65_536) == (n_times == 20)
    if n_times == 1:
        assert read(answer) == read(ask(client, id="0001", query="music", rerank=1.0, top_k=6))
    assert read(answer) != read(ask(client, features=feature.tolist(), query="music", top_k=6))


def test_what_cannot_be_reranked_is_told(client, service, places, tmp_path):
    def refuse(**body):
        answer = ask(client, rerank=0.5, **body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "cannot_rerank")
        assert str(places.features) not in answer.text
        return answer.json()["error"]["message"]

    assert "Send an id" in refuse(embedding=[1.0] * 8)
    assert "over time" in refuse(features=[0.5] * 200, pooled=True, query="music")
    assert "Pooled features" in refuse(features=[[0.5] * 200] * 40, pooled=True, query="music")
    assert ask(client, id="0001", rerank=1.5).json()["error"]["code"] == "bad_request"
    assert ask(client, id="unknown", rerank=0.5).json()["error"]["code"] == "no_such_item"
    stored = places.features / "musicnn" / "0003.npy"
    shutil.copy(stored, tmp_path)
    try:
        stored.unlink()
        assert "not available" in refuse(id="0001")
    finally:
        shutil.copy(tmp_path / "0003.npy", stored)
    assert ask(client, id="0001", rerank=0.5).status_code == 200
    service.places, before = replace(places, features=None), service.places
    try:
        assert "not available" in refuse(id="0001")
    finally:
        service.places = before
    assert service.metrics.jobs._value.get() == 0
