"""The HTTP interface, over the loopback, with a real worker behind it."""

import concurrent.futures
import contextlib
import json
import wave
from pathlib import Path

import httpx
import numpy as np
import pytest

from vmnet_pipeline.evaluation.calibration import LEVELS, Calibration
from vmnet_pipeline.evaluation.domain import know_items
from vmnet_pipeline.search.recommendation import rank_items


def ask(client, **body):
    return client.post("/v1/recommendations", json=body)


def test_by_id_the_other_side_is_ranked(client, service):
    answer = ask(client, id="0001", query="video", top_k=4).json()
    gallery = service.state.gallery
    video, music = gallery.sides["video"], gallery.sides["music"]
    scores = music.vectors @ video.vectors[video.rows["0001"]]
    ids = list(music.rows)
    assert answer["direction"] == "video_to_music"
    assert [item["id"] for item in answer["results"]] == [ids[i] for i in np.argsort(-scores)[:4]]
    np.testing.assert_allclose([item["score"] for item in answer["results"]], np.sort(scores)[::-1][:4], atol=1e-5)
    assert answer["results"][0]["metadata"]["title"].startswith("Clip ")
    assert client.get(answer["results"][0]["media"]).status_code == 200


@pytest.mark.parametrize("side", ["video", "music"])
def test_more_like_an_item_without_the_item(client, service, manifest, side):
    answer = ask(client, id="0001", query=side, same_side=True, top_k=4).json()
    own = service.state.gallery.sides[side]
    scores = own.vectors @ own.vectors[own.rows["0001"]]
    ids = [item_id for item_id in np.array(list(own.rows))[np.argsort(-scores)] if item_id != "0001"]
    assert answer["direction"] == f"{side}_to_{side}"
    assert [item["id"] for item in answer["results"]] == ids[:4]
    assert [item["rank"] for item in answer["results"]] == [1, 2, 3, 4]
    assert all(f"side={side}" in item["media"] for item in answer["results"])
    content = Path(manifest.loc["0001", "video_path" if side == "video" else "audio_path"]).read_bytes()
    params = {"query": side, "same_side": "true", "top_k": 2}
    uploaded = client.post("/v1/recommendations", params=params, content=content).json()
    assert [item["id"] for item in uploaded["results"]] == ["0001", ids[0]]


@pytest.mark.parametrize("side", ["video", "music"])
@pytest.mark.parametrize("form", ["plain", "multipart"])
def test_an_upload_gets_the_answers_of_the_item_that_it_is(client, manifest, service, side, form):
    path = Path(manifest.loc["0002", "video_path" if side == "video" else "audio_path"])
    sent = {"content": path.read_bytes()} if form == "plain" else {"files": {"file": (path.name, path.read_bytes())}}
    answer = client.post("/v1/recommendations", params={"query": side, "top_k": 3}, **sent).json()
    expected = ask(client, id="0002", query=side, top_k=3).json()
    assert [item["id"] for item in answer["results"]] == [item["id"] for item in expected["results"]]
    embedding = client.post("/v1/embeddings", params={"query": side}, **sent).json()["embedding"]
    np.testing.assert_allclose([embedding], service.state.gallery.find_vector("0002", side), atol=1e-4)
    assert list(service.uploads.path.iterdir()) == []


def test_the_answer_says_that_only_a_part_of_an_upload_could_be_read(client, tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.random.default_rng(0).integers(-9_000, 9_000, 8 * 16_000).astype("<i2").tobytes())
    whole = (tmp_path / "a.wav").read_bytes()
    for content, n in ((whole, 0), (whole[: len(whole) // 2], 1)):
        for route in ("recommendations", "embeddings"):
            answer = client.post(f"/v1/{route}", params={"query": "music"}, content=content).json()
            assert len(answer["warnings"]) == n
            assert all("cut off" in text and str(tmp_path) not in text for text in answer["warnings"])
    assert ask(client, id="0002").json()["warnings"] == []


def test_features_and_embeddings(client, service):
    pooled = np.random.default_rng(0).normal(size=200).round(3).tolist()
    embedding = client.post("/v1/embeddings", json={"features": pooled, "pooled": True, "query": "music"}).json()
    assert np.linalg.norm(embedding["embedding"]) == pytest.approx(1, abs=1e-5)
    by_features = ask(client, features=pooled, pooled=True, query="music").json()
    by_embedding = ask(client, embedding=embedding["embedding"], query="music").json()
    assert [item["id"] for item in by_features["results"]] == [item["id"] for item in by_embedding["results"]]
    for features in ([0.1, 0.2], [[0.1], [0.2, 0.3]], ["a"], [[0.5] * 200] * 3):
        wrong = ask(client, features=features, pooled=True, query="music")
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "bad_features")


@pytest.mark.parametrize("embedding", [[0.0] * 8, [0.5] * 7, [], [1e400] + [0.0] * 7])
def test_what_is_no_embedding(client, embedding):
    body = json.dumps({"embedding": embedding}).replace("Infinity", "1e400")
    for path in ("/v1/recommendations", "/v1/embeddings"):
        answer = client.post(path, content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_embedding")


@pytest.mark.parametrize("scale", [1e-300, 1e-50, 1.0, 1e50, 1e300])
def test_an_embedding_of_any_length_means_its_direction(client, scale):
    answer = client.post("/v1/embeddings", json={"embedding": [3 * scale, 0, 0, -4 * scale, 0, 0, 0, 0]})
    np.testing.assert_allclose(answer.json()["embedding"], [0.6, 0, 0, -0.8, 0, 0, 0, 0], rtol=1e-6)


def test_filters(client):
    answer = ask(client, id="0001", filters=["tag=rock"]).json()
    assert answer["results"]
    assert all("rock" in item["metadata"]["tags"] for item in answer["results"])
    wrong = ask(client, id="0001", filters=["colour=red"])
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "bad_filter")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "bad_request"),
        ({"id": "0001", "features": [1]}, 422, "bad_request"),
        ({"id": "0001", "top_k": 0}, 422, "bad_request"),
        ({"id": "0001", "unknown": 1}, 422, "bad_request"),
        ({"id": "nobody"}, 404, "no_such_item"),
    ],
)
def test_wrong_requests_are_told(client, body, status, code):
    answer = client.post("/v1/recommendations", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_the_kind_of_a_body_may_be_written_in_any_case(client):
    answer = client.post(
        "/v1/recommendations", content=b'{"id": "0001"}', headers={"content-type": "Application/JSON; charset=utf-8"}
    )
    assert answer.status_code == 200


def test_bodies_that_are_no_json(client):
    answer = client.post("/v1/recommendations", content=b"{", headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_request")


# --- uploads that cannot be used


def upload(client, content, **params):
    return client.post("/v1/recommendations", content=content, params=params)


def test_files_that_are_no_media(client, service, manifest):
    assert upload(client, b"").json()["error"]["code"] == "no_file"
    answer = upload(client, b"these are words, not a film " * 100)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "unknown_format")
    assert str(service.uploads.path) not in answer.text
    damaged = client.post("/v1/recommendations", content=b"--x\r\n", headers={"content-type": "multipart/form-data"})
    assert damaged.json()["error"]["code"] == "bad_form"
    cut = b'--x\r\ncontent-disposition: form-data; name="file"\r\n\r\nabc'
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/v1/recommendations", content=cut, headers=kind).json()["error"]["code"] == "bad_form"
    assert list(service.uploads.path.iterdir()) == []


def make_wav(seconds):
    import io
    import wave

    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.random.default_rng(0).integers(-9000, 9000, int(8000 * seconds)).astype("<i2").tobytes())
    return buffer.getvalue()


def test_the_wrong_side_and_a_long_file(client):
    assert upload(client, make_wav(2)).json()["error"]["code"] == "no_video_stream"
    assert upload(client, make_wav(2), query="music").status_code == 200
    answer = upload(client, make_wav(31), query="music")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "too_long")


def make_sound(seconds, tail):
    import io

    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=tail) as container:
        stream = container.add_stream("flac" if tail == "flac" else "libmp3lame", rate=8000, layout="mono")
        noise = np.random.default_rng(0).integers(-90, 90, 8000 * seconds).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(noise[None], format="s16", layout="mono")
        frame.sample_rate = 8000
        for packets in (stream.encode(frame), stream.encode(None)):
            container.mux(packets)
    return bytearray(buffer.getvalue())


def test_the_limit_on_length_is_one_on_what_is_there(client):
    """A file of two minutes that declares two seconds, and one of two seconds that declares a day."""
    long = make_sound(120, "flac")
    head = int.from_bytes(long[18:26], "big")
    long[18:26] = (head >> 36 << 36 | 2 * 8000).to_bytes(8, "big")
    answer = upload(client, bytes(long), query="music")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "too_long")
    short = make_sound(2, "mp3")
    place = max(short.find(b"Info"), short.find(b"Xing")) + 8
    short[place : place + 4] = (10_000_000).to_bytes(4, "big")
    assert upload(client, bytes(short), query="music").status_code == 200


def test_a_large_file_is_refused_by_its_header_and_without_one(client, service):
    limit = service.params.max_upload_bytes
    by_header = client.post("/v1/recommendations", content=b"x" * (limit + 1))
    assert (by_header.status_code, by_header.json()["error"]["code"]) == (413, "too_large")
    pieces = (b"x" * 65_536 for _ in range(limit // 65_536 + 2))
    assert client.post("/v1/recommendations", content=pieces).status_code == 413
    form = client.post("/v1/recommendations", files={"file": b"x" * (limit + 100)})
    assert form.status_code == 413
    body = json.dumps({"features": [1.5] * 300_000})
    answer = client.post("/v1/embeddings", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert list(service.uploads.path.iterdir()) == []


def test_more_uploads_than_places_are_refused_or_answered(live, service, manifest):
    content = Path(manifest.loc["0003", "audio_path"]).read_bytes()

    def send(_):
        return httpx.post(f"{live}/v1/recommendations", params={"query": "music"}, content=content, timeout=120)

    n_places = service.params.n_workers + service.params.max_waiting
    with contextlib.ExitStack() as held:
        for _ in range(n_places):
            held.enter_context(service.state.pool.take_place())
        refused = send(0)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "busy")
    assert int(refused.headers["retry-after"]) >= 1
    with concurrent.futures.ThreadPoolExecutor(12) as threads:
        statuses = [answer.status_code for answer in threads.map(send, range(12))]
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) >= n_places
    assert service.metrics.jobs._value.get() == 0


# --- items and their media


def test_items_and_ranges(client, manifest):
    item = client.get("/v1/items/0001").json()
    assert item["metadata"]["music"]["title"] == "Clip 0001"
    whole = Path(manifest.loc["0001", "video_path"]).read_bytes()
    answer = client.get(item["media"]["video"])
    assert answer.content == whole
    assert answer.headers["content-type"] in ("video/mp4", "video/webm")
    part = client.get(item["media"]["video"], headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole)}"
    assert client.get(item["media"]["video"], headers={"range": f"bytes={len(whole)}-"}).status_code == 416
    assert client.get("/v1/items/nobody").status_code == 404
    assert client.get("/v1/items/nobody/media").status_code == 404
    for wrong in ("/v1/items/..%2f..%2fetc%2fpasswd/media", "/../pyproject.toml", "/%2e%2e/app.py", "/app.py"):
        assert client.get(wrong).status_code == 404


def test_the_map_has_both_sides_of_every_item(client, service):
    content = client.get("/v1/map").json()
    n = len(service.state.gallery.sides["music"].positions)
    assert [point["side"] for point in content["points"]] == ["music"] * n + ["video"] * n
    assert all(-1 <= point[axis] <= 1 for point in content["points"] for axis in "xy")


# --- operation


def test_health_metrics_and_the_document(client):
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    ask(client, id="0001")
    text = client.get("/metrics").text
    assert 'vmnet_requests_total{method="POST",route="/v1/recommendations",status="200"}' in text
    assert 'vmnet_index_items{side="music"} 6.0' in text
    document = client.get("/openapi.json").json()
    body = document["paths"]["/v1/recommendations"]["post"]["requestBody"]["content"]
    assert body["application/json"]["examples"]
    assert "multipart/form-data" in body


def test_the_examples_of_the_document_are_valid():
    from vmnet_pipeline.serving.schemas import RESULT, SEARCH_EXAMPLES, Recommended, Search

    for example in SEARCH_EXAMPLES.values():
        Search.model_validate(example["value"])
    Recommended.model_validate(RESULT)


def test_a_document_of_openapi_resolves_its_references(client):
    document = client.get("/openapi.json").json()

    def walk(value):
        if isinstance(value, dict):
            if "$ref" in value:
                node = document
                for part in value["$ref"].removeprefix("#/").split("/"):
                    node = node[part]
            for item in value.values():
                walk(item)
        if isinstance(value, list):
            for item in value:
                walk(item)

    walk(document)


def test_headers_of_every_answer(client):
    for path in ("/", "/main.js", "/v1/map", "/nowhere", "/v1/items/0001/media"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


def test_other_pages_and_other_names_are_refused(client):
    foreign = client.get("/v1/map", headers={"origin": "https://example.org"})
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (403, "foreign_page")
    own = str(client.base_url).rstrip("/")
    assert client.get("/v1/map", headers={"origin": own}).status_code == 200
    assert client.get("/v1/map", headers={"host": "evil.example"}).status_code == 400


def test_an_error_of_ours_tells_nothing_of_the_inside(client, service, monkeypatch):
    def fail(*args):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(type(service.state.gallery), "describe_item", fail)
    answer = client.get("/v1/items/0001")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_long_body_is_parsed_by_a_worker(client):
    rows = [[0.5] * 1280] * 20
    long = client.post("/v1/recommendations", json={"features": rows, "top_k": 2, "filters": ["tag=rock"]})
    assert int(long.request.headers["content-length"]) > 65_536
    short = client.post("/v1/recommendations", json={"features": rows[:1], "top_k": 2, "filters": ["tag=rock"]})
    assert long.json() == short.json()
    assert len(long.json()["results"]) == 2
    wrong = client.post("/v1/embeddings", json={"features": [*rows, "x"]})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "bad_features")
    unknown = client.post("/v1/embeddings", json={"features": rows, "colour": 1})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (422, "bad_request")
    id_only = client.post("/v1/embeddings", json={"id": "0001", "embedding": [0.5] * 40_000})
    assert (id_only.status_code, id_only.json()["error"]["code"]) == (422, "bad_request")


@pytest.fixture
def calibrated(service, monkeypatch):
    curve = {"slope": 4.0, "tail": 0.0, "intercept": -1.0, "quantiles": list(LEVELS), "thresholds": {}}
    curve["thresholds"] = {"video_to_music": [{"pool_size": 2, "score": 1.5}]}
    figures = {"n_pairs": 30, "mrr": 0.3, "mrr_low": 0.2, "mrr_high": 0.4, "mrr_chance": 0.15}
    for side in service.state.gallery.sides.values():
        stored = Calibration(**figures, curve=curve).model_dump()
        monkeypatch.setitem(side.index.about, "calibration", stored)


def test_answers_have_the_probability_and_say_that_nothing_fits(client, calibrated, service, manifest):
    n_items = len(service.state.gallery.sides["music"].index)
    for query in ("video", "music"):
        path = Path(manifest.loc["0001", "video_path" if query == "video" else "audio_path"])
        uploaded = client.post("/v1/recommendations", params={"query": query}, content=path.read_bytes()).json()
        for answer in (ask(client, id="0001", query=query).json(), uploaded):
            for item in answer["results"]:
                odds = np.exp(4 * item["score"] - 1) / (n_items - 1)
                assert item["fit"] == pytest.approx(odds / (1 + odds), abs=1e-6)
                assert item["percentile"] == pytest.approx(100 * max(item["score"], 0), abs=1e-3)
            assert answer["remark"].startswith("Nothing in this library fits") is (query == "video")
            assert answer["in_domain"] is None  # this calibration knows no training items
    alike = ask(client, id="0001", query="music", same_side=True).json()
    assert alike["results"][0]["fit"] is None and alike["remark"] == ""


def test_a_query_unlike_what_was_trained_on_is_told(client, service, monkeypatch):
    own = service.state.gallery.find_vector("0001", "video").reshape(1, -1)
    known = know_items(np.repeat(own, 20, axis=0), range(20)).model_dump()
    stored = {"n_pairs": 30, "mrr": 0.3, "mrr_low": 0.2, "mrr_high": 0.4, "mrr_chance": 0.15, "known": {"video": known}}
    monkeypatch.setitem(service.state.gallery.sides["music"].index.about, "calibration", stored)
    usual, other = (ask(client, embedding=(sign * own[0]).tolist(), query="video").json() for sign in (1, -1))
    assert (usual["in_domain"], other["in_domain"]) == (True, False)
    assert other["remark"].startswith("This video is unlike everything that the network was trained on")


def test_without_calibration_the_answer_says_so(client):
    answer = ask(client, id="0001", query="video").json()
    assert answer["results"][0]["fit"] is None and answer["results"][0]["percentile"] is None
    assert answer["remark"].startswith("What these scores mean is not known")


def test_variety_is_that_of_the_library_for_an_id_and_a_file(client, service, manifest):
    gallery = service.state.gallery
    expected = rank_items(gallery.sides["music"].index, gallery.find_vector("0002", "video"), top_k=5, variety=0.9)
    ids = [item.id for item in expected]
    assert [item["id"] for item in ask(client, id="0002", top_k=5, variety=0.9).json()["results"]] == ids
    assert [item["id"] for item in ask(client, id="0002", top_k=5).json()["results"]] != ids
    content = Path(manifest.loc["0002", "video_path"]).read_bytes()
    uploaded = client.post("/v1/recommendations", params={"top_k": 5, "variety": 0.9}, content=content).json()
    assert [item["id"] for item in uploaded["results"]] == ids
    for bad in (-0.1, 1.1, "much"):
        assert ask(client, id="0002", variety=bad).status_code == 422
        assert client.post("/v1/recommendations", params={"variety": bad}, content=content).status_code == 422


def name(answer):
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["results"]]


def test_words_alone_rank_the_music(client, manifest):
    ids = sorted(manifest.index)
    answer = ask(client, text="rock, no piano", top_k=3)
    assert name(answer) == ids[::-1][:3]
    content = answer.json()
    assert (content["direction"], content["remark"]) == ("text_to_music", "")
    assert all(item["fit"] is None and -1 < item["score"] < 1 for item in content["results"])
    assert client.get(content["results"][0]["media"]).status_code == 200
    assert name(ask(client, text="-rock", top_k=3)) == ids[:3]
    assert name(ask(client, text="rock", filters=["tag=jazz"])) == [
        item for item in ids[::-1] if int(item) % 2 == int(ids[1]) % 2
    ]
    assert (
        "Not understood, and left out: 'a database schema'."
        in ask(client, text="rock, a database schema").json()["remark"]
    )


def test_words_count_with_an_item_an_embedding_features_and_a_file(client, service, manifest):
    ids, alone = sorted(manifest.index), name(ask(client, id="0001"))
    vector = service.state.gallery.find_vector("0001", "video")[0].tolist()
    path = Path(manifest.loc["0001", "video_path"])
    for weight, expected in ((0.0, alone), (1.0, ids[::-1])):
        words = {"text": "rock", "text_weight": weight}
        assert name(ask(client, id="0001", **words)) == expected
        assert name(ask(client, embedding=vector, **words)) == expected
        assert name(ask(client, features=[[0.5] * 1280], **words))[0] == (
            expected[0] if weight else name(ask(client, features=[[0.5] * 1280]))[0]
        )
        assert name(client.post("/v1/recommendations", params=words, content=path.read_bytes())) == expected
        kept = client.post("/v1/uploads", content=path.read_bytes()).json()["upload"]
        for _ in range(2):  # embedded, then known
            assert name(ask(client, upload=kept, **words)) == expected
    same = ask(client, id="0001", query="music", same_side=True, text="rock", text_weight=1.0)
    assert name(same) == [item for item in ids[::-1] if item != "0001"]
    assert same.json()["direction"] == "music_to_music"


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        ({"text": ""}, 422, "bad_text", "The text says nothing to search for; write"),
        ({"text": "\U0001f3b9"}, 422, "bad_text", "says nothing"),
        ({"text": "\0"}, 422, "bad_text", "says nothing"),
        ({"text": "x" * 1001}, 422, "bad_request", "text: String should have at most 1000 characters"),
        ({"text": "rock, " * 100}, 422, "bad_text", "has 100 parts; write at most 20"),
        ({"text": "a database schema"}, 422, "bad_text", "is not understood"),
        ({"text": ["rock"]}, 422, "bad_request", "text"),
        ({"text": None}, 422, "bad_request", "give one of id, upload, features and embedding"),
        ({"text": "rock", "text_weight": 1.5}, 422, "bad_request", "text_weight"),
        ({"text": "rock", "rerank": 0.5, "id": "0001"}, 422, "cannot_rerank", "omit `rerank` or `text`"),
        ({"text": "rock", "reasons": True}, 422, "no_reasons", "words have no reasons"),
        (
            {"text": "rock", "query": "music"},
            422,
            "no_words",
            "the video of this collection has no tags or descriptors",
        ),
        ({"text": "rock", "id": "none"}, 404, "no_such_item", "No item"),
        ({"text": "rock", "filters": ["mood=sad"]}, 422, "bad_filter", "no 'mood'"),
    ],
)
def test_words_that_cannot_be_searched_are_told(client, body, status, code, words):
    answer = ask(client, **body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert words in answer.json()["error"]["message"]


def test_embeddings_take_no_words(client):
    answer = client.post("/v1/embeddings", json={"text": "rock"})
    assert answer.status_code == 422


def test_words_wait_for_a_place_as_files_do(client, service):
    with contextlib.ExitStack() as places:
        with contextlib.suppress(Exception):
            while True:
                places.enter_context(service.state.pool.take_place())
        answer = ask(client, text="rock")
        assert answer.status_code == 429 and int(answer.headers["Retry-After"]) >= 1
    assert ask(client, text="rock").status_code == 200
