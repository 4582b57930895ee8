"""Lists of items, columns, and uploads that are kept, over HTTP."""

from pathlib import Path

import numpy as np
import pytest

from cover_files import draw, write_track


def list_ids(client, **params):
    answer = client.get("/v1/items", params=params)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def test_items_are_listed_in_parts(client, manifest):
    ids = list(manifest.index)
    first = client.get("/v1/items", params={"side": "video", "limit": 4}).json()
    assert (first["side"], first["total"]) == ("video", len(ids))
    assert [item["id"] for item in first["items"]] == ids[:4]
    assert list_ids(client, side="video", limit=4, offset=4) == ids[4:]
    assert first["items"][0]["metadata"]["title"] == f"Clip {ids[0]}"
    link = str(client.get("/v1/items").url.join(first["items"][0]["media"]))
    assert client.get(link, headers={"Range": "bytes=0-9"}).status_code == 206


def test_items_are_found_by_words_and_filters(client, manifest):
    assert list_ids(client, text="CLIP 0003") == ["0003"]
    assert list_ids(client, text="rock 0002") == ["0002"]
    assert list_ids(client, text="rock 0001") == []
    rock = list_ids(client, filter="tag=rock")
    assert rock == list(manifest.index[1::2])
    assert list_ids(client, filter=["tag=rock", "group=song0"]) == rock[:1]
    assert list_ids(client, text="(.*", filter="duration<99") == []  # no pattern
    assert client.get("/v1/items", params={"filter": "colour=red"}).json()["error"]["code"] == "bad_filter"
    assert client.get("/v1/items", params={"text": "x" * 999}).status_code == 422


def test_columns_say_what_filters_can_use(client, service):
    columns = {column["name"]: column for column in client.get("/v1/columns").json()["music"]}
    assert {*columns} == {"title", "group", "tags", "duration_s"}
    assert columns["tags"]["values"] == ["ambient", "jazz", "rock"] and columns["tags"]["n_values"] == 3
    lengths = service.state.gallery.sides["music"].index.items["duration_s"]
    assert (columns["duration_s"]["least"], columns["duration_s"]["most"]) == (lengths.min(), lengths.max())
    for name, column in columns.items():
        condition = f"{name}={column['values'][0]}" if column["kind"] == "text" else f"{name}>={column['least']}"
        assert list_ids(client, filter=condition)


def keep(client, path):
    return client.post("/v1/uploads", content=Path(path).read_bytes()).json()


@pytest.mark.parametrize("side", ["video", "music"])
def test_a_kept_upload_is_asked_about_again_and_again(client, service, sounding, manifest, side):
    kept = keep(client, sounding)
    assert kept["audio_s"] == pytest.approx(kept["video_s"], abs=0.2)
    assert kept["size_bytes"] == Path(sounding).stat().st_size
    own = manifest.index[manifest["video_path"] == sounding][0]
    for filters in ([], ["tag=rock"]):
        asked = {"query": side, "filters": filters, "top_k": 3}
        answer = client.post("/v1/recommendations", json={"upload": kept["upload"], **asked}).json()
        expected = client.post("/v1/recommendations", json={"id": own, **asked}).json()
        assert [item["id"] for item in answer["results"]] == [item["id"] for item in expected["results"]]
    embedding = client.post("/v1/embeddings", json={"upload": kept["upload"], "query": side}).json()["embedding"]
    np.testing.assert_allclose([embedding], service.state.gallery.find_vector(own, side), atol=1e-4)
    assert client.get(f"/v1/uploads/{kept['upload']}").json() == kept
    part = client.get(f"/v1/uploads/{kept['upload']}/media", headers={"Range": "bytes=4-11"})
    assert part.content == Path(sounding).read_bytes()[4:12]


def test_a_kept_upload_is_embedded_once_for_each_side_and_reranked_and_explained(client, sounding, monkeypatch):
    from vmnet_pipeline.serving import app

    asked = []
    ask = app._embed

    async def count(task, params, state):
        asked.append(task)
        return await ask(task, params, state)

    monkeypatch.setattr(app, "_embed", count)
    body = {"upload": keep(client, sounding)["upload"], "query": "video"}
    for options in ({}, {"variety": 0.5}, {"reasons": True}, {"rerank": 0.3}, {"rerank": 0.5}):
        assert client.post("/v1/recommendations", json=body | options).status_code == 200
    assert [(task.with_pieces, bool(task.ids)) for task in asked if task.path] == [(False, False), (True, False)]


def test_what_is_no_upload(client, tmp_path):
    for path in ("/v1/uploads/nothing", "/v1/uploads/nothing/media", "/v1/uploads/..%2f..%2fetc"):
        assert client.get(path).status_code == 404
    answer = client.post("/v1/recommendations", json={"upload": "nothing"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_such_upload")
    both = client.post("/v1/recommendations", json={"upload": "nothing", "id": "0001"})
    assert both.status_code == 422
    answer = client.post("/v1/uploads", content=b"words, not a film " * 99)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "unknown_format")
    large = client.post("/v1/uploads", content=bytes(5 << 20))
    assert large.status_code == 413 and "--set max_upload_mb=8" in large.json()["error"]["message"]


def test_what_is_refused_is_not_kept(client, service):
    before = sorted(service.kept.folder.path.iterdir())
    client.post("/v1/uploads", content=b"words, not a film " * 99)
    assert sorted(service.kept.folder.path.iterdir()) == before


def test_covers(client, service, places):
    path = write_track(places.media_roots[0] / "cover.mp3", draw("JPEG"))
    files = service.state.gallery.files["music"]
    before, files["0004"] = files["0004"], path
    try:
        cover = client.get("/v1/items/0004/cover")
        assert (cover.status_code, cover.headers["content-type"]) == (200, "image/jpeg")
        assert cover.content[:2] == b"\xff\xd8" and len(cover.content) < 20_000
        assert client.get("/v1/items/0001/cover").status_code == 204
        assert client.get("/v1/items/nobody/cover").status_code == 404
    finally:
        files["0004"] = before


def test_one_answer_of_each_group(client, service):
    groups = service.state.gallery.sides["music"].index.items.set_index("id")["group"]
    everything = [item["id"] for item in client.post("/v1/recommendations", json={"id": "0001"}).json()["results"]]
    best = groups[everything].drop_duplicates().index
    for options in ({}, {"top_k": 2}):
        answer = client.post("/v1/recommendations", json={"id": "0001", "one_per_group": True, **options}).json()
        assert [item["id"] for item in answer["results"]] == list(best[: options.get("top_k")])
