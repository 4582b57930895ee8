"""From a match to a finished video over HTTP: passages, renders, what an editor and the credits need."""

import json
import time
from pathlib import Path

import av
import pytest

from vmnet_pipeline.demo import make_clip

TONE_S = 9.0


@pytest.fixture(scope="module")
def song(service, places):
    """A track of the gallery that is longer than the videos."""
    path = make_clip(places.media_roots[0] / "long.mp3", seed=5, duration_s=TONE_S)
    files = service.state.gallery.files["music"]
    before = files["0003"]
    files["0003"] = path
    yield "0003"
    files["0003"] = before


@pytest.fixture
def film(client, sounding):
    return client.post("/v1/uploads", content=Path(sounding).read_bytes()).json()["upload"]


def test_the_part_that_fits_and_what_is_drawn(client, film, song):
    mix = {"video": {"upload": film}, "music": {"id": song}}
    found = client.post("/v1/passages", json=mix).json()
    best, track, video = found["passages"][0], found["track"], found["video"]
    assert track["duration_s"] == pytest.approx(TONE_S, abs=0.2)
    assert best["end_s"] - best["start_s"] == pytest.approx(video["duration_s"], abs=0.1) and not best["repeats"]
    assert 0 <= best["start_s"] <= track["duration_s"] - video["duration_s"] + 0.2
    assert len(track["energy_db"]) == pytest.approx(TONE_S * found["energy_hz"], abs=2)
    assert best["words"] and "agreement" not in best["words"]  # the stored feature is that of a shorter file
    assert set(track["bars_s"]) <= set(track["beats_s"])
    assert client.post("/v1/recommendations", json={"upload": film}).status_code == 200  # its feature is known now
    again = client.post("/v1/passages", json=mix).json()
    assert {*again} == {*found}


def test_of_items_of_the_collection(client, song, manifest):
    found = client.post("/v1/passages", json={"video": {"id": "0001"}, "music": {"id": song}}).json()
    assert found["video"]["duration_s"] == pytest.approx(manifest.loc["0001", "video_duration_s"], abs=0.2)


@pytest.mark.parametrize(
    ("mix", "status", "code"),
    [
        ({"video": {"id": "0001"}, "music": {"id": "nobody"}}, 404, "no_media"),
        ({"video": {"upload": "nothing"}, "music": {"id": "0001"}}, 404, "no_such_upload"),
        ({"video": {"id": "0001", "upload": "x"}, "music": {"id": "0001"}}, 422, "bad_request"),
        ({"video": {"id": "0001"}}, 422, "bad_request"),
    ],
)
def test_what_is_not_there(client, mix, status, code):
    for path in ("/v1/passages", "/v1/renders"):
        answer = client.post(path, json=mix)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_video_without_audio_is_no_music(client, tmp_path):
    silent = make_clip(tmp_path / "silent.mp4", duration_s=1.0, with_audio=False).read_bytes()
    upload = client.post("/v1/uploads", content=silent).json()["upload"]
    answer = client.post("/v1/renders", json={"video": {"id": "0001"}, "music": {"upload": upload}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "no_audio_stream")


def render(client, **order):
    state = client.post("/v1/renders", json=order).json()
    deadline = time.monotonic() + 120
    while state["state"] in ("waiting", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        state = client.get(f"/v1/renders/{state['render']}").json()
    return state


def test_a_finished_video_its_time_line_and_credits(client, film, song, places, tmp_path):
    order = {"video": {"upload": film}, "music": {"id": song}, "start_s": 2.0, "name": "../Trip 1.mp4"}
    state = render(client, **order, beats_s=[1.0, 2.5, 3.0, 99.0], cuts_s=[1.0])
    assert state["state"] == "done" and state["loudness_lufs"] == pytest.approx(-14, abs=0.5)
    address = f"/v1/renders/{state['render']}"
    sent = client.get(f"{address}/video")
    assert sent.headers["content-disposition"].startswith('attachment; filename="soundtrack.')
    assert len(sent.content) == state["size_bytes"]
    (tmp_path / "result").write_bytes(sent.content)
    with av.open(str(tmp_path / "result")) as container:
        assert [len(container.streams.video), len(container.streams.audio)] == [1, 1]
    assert client.get(f"{address}/video", headers={"Range": "bytes=0-9"}).status_code == 206
    timeline = client.get(f"{address}/timeline").text
    clips = [child for track in json.loads(timeline)["tracks"]["children"] for child in track["children"]]
    names = {clip["name"] for clip in clips if clip["OTIO_SCHEMA"].startswith("Clip")}
    assert names == {"..Trip 1.mp4", "Clip 0003.mp3"}
    marks = [(marker["name"], marker["marked_range"]["start_time"]) for marker in clips[0]["markers"]]
    assert [(name, round(at["value"] / at["rate"], 1)) for name, at in marks] == [
        ("cut", 1.0), ("beat", 0.5), ("beat", 1.0),
    ]  # fmt: skip
    words = client.get(f"{address}/credits").text
    assert "Clip 0003" in words and "0:02.0" in words
    for text in (timeline, words, json.dumps(state)):
        assert str(places.media_roots[0]) not in text and "file:" not in text


def test_a_failed_or_cancelled_one_has_no_files(client, film, song, service):
    state = render(client, video={"upload": film}, music={"id": song}, start_s=500.0)
    assert (state["state"], state["message"]) == (
        "failed", "The music ends before this place; choose an earlier one.",
    )  # fmt: skip
    for kind in ("video", "timeline", "credits"):
        answer = client.get(f"/v1/renders/{state['render']}/{kind}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_rendered")
    state = client.post("/v1/renders", json={"video": {"upload": film}, "music": {"id": song}}).json()
    client.post(f"/v1/renders/{state['render']}/cancel")
    while service.renders.find(state["render"]).is_open:
        time.sleep(0.02)
    assert client.get(f"/v1/renders/{state['render']}").json()["state"] == "cancelled"
    assert client.get("/v1/renders/nothing").json()["error"]["code"] == "no_such_render"
