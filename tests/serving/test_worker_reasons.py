"""Reasons over HTTP: a worker explains the answers to an item, to features and to an upload."""

from pathlib import Path

import pytest

from descriptor_pairs import AUDIO, FINGERPRINTS, VIDEO, draw_pairs, train
from vmnet_pipeline import Embedder
from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow, FeatureStore
from vmnet_pipeline.inference.reasons import explain_answers
from vmnet_pipeline.serving.worker import Task, _answer

PAIRS = draw_pairs(3, 9)
PAIRS.video[0, VIDEO.index("cuts")], PAIRS.music[0, AUDIO.index("tempo")] = 2.0, 60.0


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    return Embedder(train(tmp_path_factory.mktemp("state"), draw_pairs(500, 1)))


def write_features(folder, ids):
    for modality, side in (("audio", PAIRS.music), ("video", PAIRS.video)):
        results = tuple(FeatureResult(FeatureRow(i, "done", "s"), side[int(i)]) for i in ids)
        fingerprint = FINGERPRINTS[modality]
        FeatureStore(folder / fingerprint.backend).write(FeatureChunk(fingerprint, results))


@pytest.fixture
def features_dir(tmp_path):
    write_features(tmp_path, ["0", "1"])
    return tmp_path


def explain(embedder, **task):
    return _answer(embedder, Task("video", ids=("1", "0"), explains=True, **task))


def test_a_worker_explains_answers_to_a_stored_item_and_to_a_feature(embedder, features_dir):
    expected = tuple(explain_answers(embedder, "video", PAIRS.video[0], [PAIRS.music[1], PAIRS.music[0]]))
    assert any(expected)
    assert explain(embedder, item_id="0", features_dir=features_dir).reasons == expected
    embedded = _answer(embedder, Task("video", features=PAIRS.video[0], pooled=True, explains=True))
    assert (embedded.feature == PAIRS.video[0]).all() and embedded.embedding is not None
    assert explain(embedder, feature=embedded.feature, features_dir=features_dir).reasons == expected
    assert _answer(embedder, Task("video", features=PAIRS.video[0], pooled=True)).feature is None


def test_features_that_came_later_are_found_and_missing_ones_leave_answers_without_reasons(embedder, features_dir):
    task = Task("video", ids=("2", "0"), explains=True, feature=PAIRS.video[0], features_dir=features_dir)
    expected = explain_answers(embedder, "video", PAIRS.video[0], [PAIRS.music[2], PAIRS.music[0]])
    assert _answer(embedder, task).reasons == ("", expected[1])
    write_features(features_dir, ["2"])
    assert _answer(embedder, task).reasons == tuple(expected)
    assert explain(embedder, feature=PAIRS.video[0], features_dir=None).reasons == ("", "")
    assert explain(embedder, item_id="9", features_dir=features_dir).reasons == ("", "")
    assert explain(embedder, features_dir=features_dir).reasons == ("", "")


def test_where_features_are_no_descriptors_answers_have_none(client, manifest):
    content = Path(manifest.loc["0002", "video_path"]).read_bytes()
    uploaded = client.post("/v1/recommendations", params={"reasons": "true", "top_k": 2}, content=content)
    by_id = client.post("/v1/recommendations", json={"id": "0002", "reasons": True, "top_k": 2})
    for answer in (uploaded, by_id):
        assert [item["reasons"] for item in answer.json()["results"]] == ["", ""]
    vector = client.post("/v1/embeddings", json={"id": "0002"}).json()["embedding"]
    refused = client.post("/v1/recommendations", json={"embedding": vector, "reasons": True})
    assert refused.status_code == 422 and refused.json()["error"]["code"] == "no_reasons"
