"""Requests as clients of all kinds send them: HEAD, wrong types, pages of other sites, parts beyond the end."""

import json
import time
from pathlib import Path

import httpx
import pytest
from live_server import run_with

GETS = (
    "/", "/main.js", "/icon.svg", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/map", "/v1/items/0001",
    "/v1/items/0001/media", "/v1/items/0001/media?side=video", "/v1/items/nobody", "/v1/items/nobody/media", "/nowhere",
)  # fmt: skip


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_a_body(client, path):
    whole, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    varying = {"date", "content-length"} if path in ("/metrics", "/readyz") else {"date"}
    assert {name: value for name, value in head.headers.items() if name not in varying} == {
        name: value for name, value in whole.headers.items() if name not in varying
    }
    assert client.get("/healthz").text == "ok\n"  # the connection is in order


def test_head_of_a_part_and_of_what_takes_posts_only(client):
    part = client.head("/v1/items/0001/media?side=video", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.headers["content-length"], part.content) == (206, "10", b"")
    assert client.head("/v1/recommendations").status_code == client.get("/v1/recommendations").status_code == 404
    assert 'method="HEAD",route="/v1/items/{item_id}/media"' in client.get("/metrics").text


# --- types of bodies

QUERY = b'{"id": "0001"}'


@pytest.mark.parametrize(
    ("kind", "body", "status", "words"),
    [
        ("application/x-www-form-urlencoded", QUERY, 422, "Content-Type: application/json"),  # `curl -d`
        (None, QUERY, 422, "Content-Type: application/json"),
        ("text/plain", b"\xef\xbb\xbf\r\n [1, 2]", 422, "Content-Type: application/json"),
        ("application/jsonp", QUERY, 422, "Content-Type: application/json"),
        ("application/vnd.api+json", QUERY, 422, "Content-Type: application/json"),
        (
            "application/x-www-form-urlencoded",
            b"id=0001&query=video",
            422,
            "with `Content-Type: application/x-www-form",
        ),
        (None, b"id: 0001", 422, "without a `Content-Type`"),
        ("application/json; charset=utf-16", '{"id": "0001"}'.encode("utf-16"), 422, "UTF-8"),
        ("application/json; charset=utf-7", QUERY, 422, "UTF-8"),
        ("application/json", b"", 422, "body is empty"),
        ("application/json", b" \r\n", 422, "body is empty"),
        (None, b"", 400, "send a media file"),
        ("video/mp4", b"", 400, "send a media file"),
        ("a" * 2000, b"x", 422, "too long"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/recommendations", "/v1/embeddings"])
def test_a_body_of_another_type_is_named(client, path, kind, body, status, words):
    answer = client.post(path, content=body, headers={} if kind is None else {"content-type": kind})
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "kind", ["application/json;charset=UTF-8", 'application/json; charset="utf-8"', "Application/JSON"]
)
def test_json_in_utf8_may_say_so(client, kind):
    answer = client.post("/v1/recommendations", content=QUERY, headers={"content-type": kind})
    assert answer.status_code == 200, answer.text


def test_a_body_that_is_compressed_is_named(client):
    for kind in ("application/json", "video/mp4"):
        answer = client.post(
            "/v1/embeddings", content=b"\x1f\x8b", headers={"content-type": kind, "content-encoding": "gzip"}
        )
        assert (answer.status_code, "Content-Encoding" in answer.text) == (422, True)


def test_a_form_without_its_file_is_named(client):
    other = client.post("/v1/embeddings", files={"clip": b"x"})
    assert (other.status_code, other.json()["error"]["code"]) == (400, "no_file")
    assert "field `file`" in other.json()["error"]["message"]
    empty = client.post("/v1/embeddings", files={"file": b""})
    assert (empty.status_code, empty.json()["error"]["code"]) == (400, "no_file")


def test_media_of_any_type_are_taken(client, manifest):
    content = Path(manifest.loc["0001", "audio_path"]).read_bytes()
    for headers in ({}, {"content-type": "application/x-www-form-urlencoded"}, {"content-type": "audio/mpeg"}):
        assert client.post("/v1/embeddings?query=music", content=content, headers=headers).status_code == 200


# --- messages


@pytest.mark.parametrize("n", [1000, 100_000])
def test_a_long_name_of_a_key_makes_no_long_message(client, n):
    body = json.dumps({"'" + "/" * n: 1})
    answer = client.post("/v1/recommendations", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert len(answer.content) < 1000
    for path in ("/v1/session", "/v1/embeddings"):
        assert (
            len(client.post(path, content=body[:7000] + '": 1}', headers={"content-type": "application/json"}).content)
            < 1000
        )


def test_the_loop_does_not_wait_for_a_message(live):
    """With the path of 170,000 slashes that was looked for in it, everybody waited for 18 s."""
    import threading

    body = json.dumps({"'" + "/" * 170_000: 1}).encode()
    slow = threading.Thread(
        daemon=True,
        target=lambda: httpx.post(
            f"{live}/v1/embeddings", content=body, headers={"content-type": "application/json"}, timeout=60
        ),
    )
    slow.start()
    longest = 0.0
    while slow.is_alive():
        began = time.monotonic()
        assert httpx.get(f"{live}/healthz").status_code == 200
        longest = max(longest, time.monotonic() - began)
    slow.join()
    assert longest < 5.0


# --- pages of other sites


@pytest.mark.parametrize("path", ["/v1/map", "/v1/items/0001", "/v1/items/0001/media", "/metrics", "/v1/items/nobody"])
@pytest.mark.parametrize(
    ("site", "is_refused"),
    [("cross-site", True), ("same-site", True), ("CROSS-SITE", True), ("same-origin", False), ("none", False)],
)
def test_what_another_site_embeds_is_refused(client, path, site, is_refused):
    answer = client.get(path, headers={"sec-fetch-site": site, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"})
    assert (answer.status_code == 403) is is_refused
    if is_refused:
        assert answer.json()["error"]["code"] == "foreign_page"
    assert client.get("/", headers={"sec-fetch-site": site}).status_code == 200  # a link to the page


def test_another_site_that_is_allowed_may_ask(service, live):
    with run_with(service, allowed_origins=("https://a.example",)) as port:
        address = f"http://127.0.0.1:{port}/v1/map"
        headers = {"sec-fetch-site": "cross-site", "origin": "https://a.example"}
        assert httpx.get(address, headers=headers).status_code == 200
        assert httpx.get(address, headers={**headers, "origin": "https://b.example"}).status_code == 403
        assert httpx.get(address, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    with run_with(service, allowed_origins=("*",)) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/v1/map", headers={"sec-fetch-site": "cross-site"}).status_code == 200


# --- parts of files


def test_a_part_beyond_the_end_is_told_as_every_error(client, manifest):
    path = "/v1/items/0001/media?side=video"
    size = Path(manifest.loc["0001", "video_path"]).stat().st_size
    for wanted in (f"bytes={size}-", f"bytes={size}-{size + 5}", "bytes=" + "9" * 30 + "-", "bytes=-0"):
        answer = client.get(path, headers={"range": wanted})
        assert (answer.status_code, answer.json()["error"]["code"]) == (416, "bad_range")
        assert answer.headers["content-range"] == f"bytes */{size}"
        head = client.head(path, headers={"range": wanted})
        assert (head.status_code, head.content) == (416, b"")
    for wanted, expected in (
        (f"bytes={size - 1}-", (206, 1)),
        ("bytes=0-0", (206, 1)),
        (f"bytes=0-{size * 2}", (200, size)),
        ("bytes=-5", (206, 5)),
        (f"bytes=-{size * 9}", (200, size)),
        ("bytes=5-2", (200, size)),
        ("bytes=0-1,5-6", (200, size)),
        ("items=0-1", (200, size)),
    ):
        answer = client.get(path, headers={"range": wanted})
        assert (answer.status_code, len(answer.content)) == expected, wanted


def test_a_part_is_of_the_file_that_was_asked_for_before(client):
    path = "/v1/items/0001/media"
    tag = client.get(path).headers["etag"]
    assert client.get(path, headers={"range": "bytes=0-1", "if-range": tag}).status_code == 206
    assert client.get(path, headers={"range": "bytes=0-1", "if-range": '"other"'}).status_code == 200


def test_links_hold_wherever_a_proxy_shows_the_service(client):
    found = client.post("/v1/recommendations", json={"id": "0001"})
    item = client.get("/v1/items/0001")
    for answer, link in ((found, found.json()["results"][0]["media"]), (item, item.json()["media"]["video"])):
        assert not link.startswith("/")
        assert str(answer.url.join(link)).startswith(f"{client.base_url}/v1/items/".replace("//v1", "/v1"))
        assert client.get(answer.url.join(link)).status_code == 200
        shown = httpx.URL(f"https://a.example/music{answer.url.path}").join(link)
        assert shown.path.startswith("/music/v1/items/")
