"""Nothing of a request is in the log: of the service, of its workers and of the processes that decode."""

import json
import logging
import struct

import httpx
import pytest
from live_server import talk

FORGED = "x\n2026-01-01 00:00:00 ERROR forged \x1b[31m line\r\t\x00\x7f\u2028"


def make_wav(n_channels):
    """Sound of so many channels, which some decoders fail at in a way of their own."""
    data = b"\0\0" * n_channels * 1000
    form = struct.pack("<HHIIHH", 1, n_channels, 8000, 16000 * n_channels, 2 * n_channels % 65536, 16)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def send_everything(live):
    """Requests with words that could be found again."""
    port = int(live.rpartition(":")[2])
    long = json.dumps({"features": [[0.5] * 1280] * 20, FORGED: 1})
    bodies = [
        json.dumps({FORGED: 1}),
        long,
        json.dumps({"id": FORGED}),
        json.dumps({"id": "0001", "filters": [FORGED]}),
    ]
    json_type = {"content-type": "application/json"}
    with httpx.Client(base_url=live, timeout=60) as client:
        for body in bodies:
            for path in ("/v1/recommendations", "/v1/embeddings", "/v1/session"):
                client.post(path, content=body, headers=json_type)
        for content in (b"forged" * 100, make_wav(255), b"#EXTM3U\nforged"):
            client.post("/v1/embeddings?query=music", content=content)
        client.post("/v1/embeddings?query=video", files={"file": ("forged\n", make_wav(255))})
        client.post(
            "/v1/embeddings", content=b"forged", headers={"content-type": "multipart/form-data; boundary=forged"}
        )
        client.get("/v1/items/forged%0aline")
    talk(port, b"GET /forged HTTP/1.1\r\nforged forged\r\n\r\n")
    talk(port, b"FORGED / HTTP/1.1\r\n\r\n")


@pytest.fixture(scope="module")
def own(places):
    """A service whose workers are started by this module, while their output is caught."""
    from serving_collection import run_live

    from vmnet_pipeline.serving.config import ServeParams
    from vmnet_pipeline.serving.state import Service

    with run_live(Service(places, ServeParams(max_upload_mb=200, reload_every_s=0.05))) as address:
        yield address


@pytest.fixture
def log(caplog, capfd, own):
    import time

    caplog.set_level(logging.INFO)
    ends = time.monotonic() + 120
    while httpx.get(f"{own}/readyz").status_code != 200:
        assert time.monotonic() < ends
        time.sleep(0.1)
    yield caplog, capfd


def test_nothing_of_a_request_is_logged(log, own, monkeypatch):
    caplog, capfd = log
    monkeypatch.setattr(logging.getLogger("httpx"), "disabled", True)
    send_everything(own)
    messages = [record.getMessage() for record in caplog.records]
    assert any("A task failed" in message for message in messages)
    for message in messages:
        assert message.isprintable(), message
        assert "forged" not in message.lower(), message
        assert "upload-" not in message
        assert len(message) < 1500
    assert not [record for record in caplog.records if record.exc_info]
    out, err = capfd.readouterr()
    for text in (out, err):
        assert "upload-" not in text, text
        assert "Traceback" not in text, text
        assert "forged" not in text.lower()
