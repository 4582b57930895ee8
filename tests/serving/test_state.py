"""What happens over time: new indexes, lost workers, keys, time limits."""

import asyncio
import contextlib
import copy
import dataclasses
import os
import socket
import subprocess
import threading
import time

import httpx
import numpy as np
import pandas as pd
import pytest
from serving_collection import run_live
from serving_middleware import call_guard

from vmnet_pipeline.commands.serve import read_host
from vmnet_pipeline.errors import MediaError, SearchIndexError
from vmnet_pipeline.search.index_files import load_index, save_index
from vmnet_pipeline.serving.auth import ApiKey
from vmnet_pipeline.serving.config import ServeParams
from vmnet_pipeline.serving.errors import RefusedError
from vmnet_pipeline.serving.gallery import _read_words, load_gallery
from vmnet_pipeline.serving.metrics import Metrics
from vmnet_pipeline.serving.schemas import Search
from vmnet_pipeline.serving.worker import Task
from vmnet_pipeline.serving.worker_pool import EmbeddingPool


def test_a_new_index_is_taken_up_and_no_request_is_lost(live, service, places):
    """One more version of the music index, while requests run one after the other."""
    before, statuses, versions, ending = service.state.gallery.version, [], [], threading.Event()

    def ask():
        with httpx.Client(base_url=live, timeout=60) as client:
            while not ending.is_set():
                answer = client.post("/v1/recommendations", json={"id": "0001"})
                statuses.append(answer.status_code)
                versions.append(answer.json().get("version"))

    thread = threading.Thread(daemon=True, target=ask)
    thread.start()
    index = load_index(places.output / "music_index")
    save_index(places.output / "music_index", index)
    deadline = time.monotonic() + 60
    while versions[-1:] in ([], [before]) and time.monotonic() < deadline:
        time.sleep(0.01)
    ending.set()
    thread.join()
    assert set(statuses) == {200}
    assert versions[-1] not in (None, before)


def test_a_damaged_or_foreign_index_is_not_taken_up(places, service, tmp_path):
    import shutil

    output = tmp_path / "output"
    shutil.copytree(places.output, output)
    load_gallery(dataclasses.replace(places, output=output), 10)
    index = load_index(output / "video_index")
    index.about = {"checkpoint": "another"}
    save_index(output / "video_index", index)
    with pytest.raises(SearchIndexError, match="does not belong to the embeddings"):
        load_gallery(dataclasses.replace(places, output=output), 10)
    with pytest.raises(SearchIndexError, match="there is no search index"):
        load_gallery(dataclasses.replace(places, output=tmp_path / "nothing"), 10)


def test_an_index_of_another_checkpoint_gets_workers_of_its_own(places, tmp_path):
    import shutil

    from serving_collection import make_checkpoint, write_side

    from vmnet_pipeline import Embedder
    from vmnet_pipeline.serving.state import Service

    moved = dataclasses.replace(places, output=tmp_path / "output", checkpoint=tmp_path / "checkpoint")
    shutil.copytree(places.output, moved.output)
    shutil.copytree(places.checkpoint, moved.checkpoint)
    service = Service(moved, ServeParams())  # its workers are never started
    first = service.state
    make_checkpoint(moved.checkpoint, places.weights_dir, seed=2)
    digest = Embedder.load(moved.checkpoint, weights_dir=places.weights_dir).digest
    items = first.gallery.sides["music"].index.items
    for side in ("music", "video"):
        write_side(moved.output, side, np.eye(len(items), 8, dtype=np.float32), items, digest)
    service.reload()
    try:
        assert not service.find_fault()
        assert service.state.pool is not first.pool
        assert service.state.gallery.checkpoint == digest != first.gallery.checkpoint
        answer = asyncio.run(
            service.state.pool.ask(Task("video", features=np.full(1280, 0.5, np.float32), pooled=True), 60)
        ).embedding
        assert answer.shape == (1, 8)
    finally:
        service.close()


def make_pool(places, file_timeout_s, metrics=None):
    return EmbeddingPool(
        places.checkpoint,
        places.weights_dir,
        n_workers=1,
        max_waiting=1,
        file_timeout_s=file_timeout_s,
        metrics=metrics or Metrics(),
    )


def kill(worker):
    os.kill(worker._process.pid, 9)
    worker._process.end()


def test_a_worker_that_hangs_or_crashes_is_replaced(live, service, manifest):
    pool = service.state.pool
    task = Task("music", path=manifest.loc["0001", "audio_path"])
    lost = service.metrics.lost_workers._value.get()
    with pytest.raises(RefusedError) as caught:
        asyncio.run(pool.ask(task, 1e-6))
    assert (caught.value.status, caught.value.code) == (504, "timeout")
    assert service.metrics.lost_workers._value.get() == lost + 1
    expected = service.state.gallery.find_vector("0001", "music")
    np.testing.assert_allclose(asyncio.run(pool.ask(task, 60)).embedding, expected, atol=1e-4)
    kill(pool._workers[0])
    np.testing.assert_allclose(asyncio.run(pool.ask(task, 60)).embedding, expected, atol=1e-4)


def test_a_file_that_takes_too_long_costs_no_worker(places, service, manifest):
    metrics = Metrics()
    pool = make_pool(places, 1e-6, metrics)
    pool.start()
    try:
        process = pool._workers[0]._process.pid
        with pytest.raises(RefusedError) as caught:
            asyncio.run(pool.ask(Task("music", path=manifest.loc["0001", "audio_path"]), 60))
        assert (caught.value.status, caught.value.code) == (422, "timed_out")
        assert pool._workers[0]._process.pid == process
        assert pool._workers[0].is_alive
        assert metrics.lost_workers._value.get() == 0
    finally:
        pool.close()


def test_a_worker_that_was_started_after_a_training_answers_nothing(places, tmp_path):
    """Its embeddings lie in another space than those of the index."""
    import shutil

    from serving_collection import make_checkpoint

    moved = dataclasses.replace(places, checkpoint=tmp_path / "checkpoint")
    shutil.copytree(places.checkpoint, moved.checkpoint)
    pool = make_pool(moved, file_timeout_s=60)
    task = Task("video", features=np.full(1280, 0.5, np.float32), pooled=True)
    pool.start()
    try:
        before = asyncio.run(pool.ask(task, 60)).embedding
        make_checkpoint(moved.checkpoint, places.weights_dir, seed=2)
        np.testing.assert_array_equal(asyncio.run(pool.ask(task, 60)).embedding, before)
        kill(pool._workers[0])
        with pytest.raises(RefusedError) as caught:
            asyncio.run(pool.ask(task, 60))
        assert (caught.value.status, caught.value.code) == (503, "other_checkpoint")
        make_checkpoint(moved.checkpoint, places.weights_dir, seed=1)
        np.testing.assert_array_equal(asyncio.run(pool.ask(task, 60)).embedding, before)
    finally:
        pool.close()


def test_a_process_that_cannot_be_started_is_told(places, monkeypatch, caplog):
    def refuse(*arguments, **options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    pool = make_pool(places, file_timeout_s=60)
    pool.start()
    with pytest.raises(RefusedError) as caught, pool.take_place():
        pass
    pool.close()
    assert (caught.value.status, caught.value.code) == (503, "no_networks")
    assert "no process can be started" in pool.failure
    assert "embedding workers failed to start" in caplog.text


def test_workers_that_are_loaded_while_the_service_closes_are_ended(places, monkeypatch):
    """A new checkpoint comes, and its network is still being loaded when the service is told to end."""
    from vmnet_pipeline.serving import state as module

    loading, loaded, closed = threading.Event(), threading.Event(), []

    class Pool:
        def __init__(self, digest):
            self.digest = digest

        def start(self):
            if self.digest == "new":
                loading.set()
                assert loaded.wait(60)

        def close(self):
            closed.append(self)

    gallery = load_gallery(places, 10)
    service = module.Service(places, ServeParams(reload_every_s=0.01))
    service.state = module.State(gallery, Pool(gallery.checkpoint))
    monkeypatch.setattr(module, "read_version", lambda places: "newer")
    monkeypatch.setattr(module, "load_gallery", lambda places, n: dataclasses.replace(gallery, checkpoint="new"))
    monkeypatch.setattr(service, "_make_pool", lambda: Pool("new"))
    service.start()
    assert loading.wait(60)
    service.close()
    loaded.set()
    service._watcher.join()
    assert service.state.pool.digest == "new"
    assert service.state.pool in closed


def test_media_outside_the_roots_are_not_sent(places, service, tmp_path):
    gallery = load_gallery(dataclasses.replace(places, media_roots=(tmp_path,)), 10)
    assert gallery.files == {"music": {}, "video": {}}
    assert gallery.describe_item("0001")["media"] == {"music": None, "video": None}
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / "clip.mp4").symlink_to(secret)
    manifest = pd.read_parquet(places.manifest)
    manifest["video_path"] = str(root / "clip.mp4")
    manifest.to_parquet(tmp_path / "manifest.parquet")
    gallery = load_gallery(dataclasses.replace(places, manifest=tmp_path / "manifest.parquet", media_roots=(root,)), 10)
    with pytest.raises(RefusedError):
        gallery.open_file("0001", "video", (root,))
    (root / "clip.mp4").unlink()
    (root / "clip.mp4").write_bytes(b"good")
    file, path = gallery.open_file("0001", "video", (root,))
    with file:
        assert (file.read(), path.name) == (b"good", "clip.mp4")


def test_items_are_found_by_ids_as_a_mac_spells_them(places, tmp_path):
    gallery = load_gallery(places, 10)
    sides = {name: dataclasses.replace(side, positions={"é": 0}) for name, side in gallery.sides.items()}
    (tmp_path / "clip.mp4").write_bytes(b"good")
    gallery = dataclasses.replace(gallery, sides=sides, files={"music": {"é": tmp_path / "clip.mp4"}, "video": {}})
    assert gallery.describe_item("e\u0301")["id"] == "é"
    gallery.open_file("e\u0301", "music", (tmp_path,))[0].close()
    assert Search(id="e\u0301").id == "é"


def test_the_command_line_stays_light():
    import subprocess
    import sys

    code = (
        "import sys, vmnet_pipeline.cli; print([name for name in ('fastapi', 'torch', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- keys and time limits, at the guard alone

KEY = ApiKey("open sesame")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"x-api-key": "open"}, 401),
        ({"x-api-key": "open sesame"}, 200),
        ({"authorization": "Bearer open sesame"}, 200),
        ({"authorization": "Basic open sesame"}, 401),
        ({"cookie": f"vmnet_session={KEY.make_cookie()}"}, 200),
        ({"cookie": f'other="a\\; b c @; vmnet_session={KEY.make_cookie()}; last'}, 200),
        ({"cookie": "vmnet_session=open sesame"}, 401),
        ({"cookie": "vmnet_session="}, 401),
    ],
)
def test_a_key_is_asked_for(headers, status):
    assert call_guard("/v1/map", headers, key=KEY)[0] == status
    assert call_guard("/metrics", headers, key=KEY)[0] == status
    assert call_guard("/healthz", headers, key=KEY)[0] == 200
    assert call_guard("/v1/map", headers, key=ApiKey(None))[0] == 200


def test_a_request_that_takes_too_long_ends():
    params = ServeParams(request_timeout_s=0.01, media_timeout_s=60)
    status, body = call_guard("/v1/recommendations", {}, params=params, seconds=30)
    assert status == 504
    assert b"timeout" in body
    assert call_guard("/v1/items/a/media", {}, params=params, seconds=0.05)[0] == 200


def test_a_cookie_is_given_for_the_key(places):
    from vmnet_pipeline.serving.app import make_app
    from vmnet_pipeline.serving.state import Service

    app = make_app(Service(places, ServeParams()), KEY)  # without its lifespan: no worker is started
    transport = httpx.ASGITransport(app)

    async def visit():
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            assert (await client.get("/v1/map")).status_code == 401
            assert (await client.post("/v1/session", json={"key": "wrong"})).status_code == 401
            answer = await client.post("/v1/session", json={"key": "open sesame"})
            assert answer.status_code == 204
            assert "HttpOnly" in answer.headers["set-cookie"]
            assert "open sesame" not in answer.headers["set-cookie"]
            assert (await client.get("/v1/map")).status_code == 200
            assert (await client.get("/readyz")).status_code == 503
            early = await client.post("/v1/recommendations", content=b"x")
            assert (early.status_code, early.headers["retry-after"]) == (503, "10")

    asyncio.run(visit())


def test_a_page_that_is_allowed_may_ask_whether_it_may_send_the_key(places):
    from vmnet_pipeline.serving.app import make_app
    from vmnet_pipeline.serving.state import Service

    app = make_app(Service(places, ServeParams(allowed_origins=("https://a.example",))), KEY)

    async def ask(origin):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            headers = {"origin": origin, "access-control-request-method": "GET"}
            asked = await client.options("/v1/map", headers={**headers, "access-control-request-headers": "x-api-key"})
            answer = await client.get("/v1/map", headers={"origin": origin})
            return asked.status_code, asked.headers.get("access-control-allow-origin"), answer.status_code

    assert asyncio.run(ask("https://a.example")) == (200, "https://a.example", 401)
    assert asyncio.run(ask("https://b.example")) == (403, None, 403)


@pytest.mark.parametrize(
    ("host", "allowed", "status"),
    [
        ("127.0.0.1:8321", ("127.0.0.1",), 200),
        ("LOCALHOST", ("localhost",), 200),
        ("[::1]:8321", ("[::1]",), 200),
        ("a.example.org", ("*.example.org",), 200),
        ("anything", ("*",), 200),
        ("example.org", ("*.example.org",), 400),
        ("evilexample.org", ("*.example.org",), 400),
        ("", ("127.0.0.1",), 400),
    ],
)
def test_only_known_names_are_answered(host, allowed, status):
    assert call_guard("/main.js", {"host": host}, params=ServeParams(allowed_hosts=allowed))[0] == status


def has_ipv6():
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_is_served(service, host):
    other = copy.copy(service)
    other.params = service.params.model_copy(update={"allowed_hosts": ("127.0.0.1",)}).admit_host(read_host(host)[0])
    with run_live(other, lifespan="off", host=host) as address, httpx.Client(base_url=address) as client:
        assert address.startswith("http://[::1]:")
        assert [client.get(path).status_code for path in ("/", "/healthz", "/v1/map")] == [200, 200, 200]
        assert client.get("/v1/map", headers={"host": "[::2]"}).status_code == 400


def test_what_failed_is_told_without_words_of_the_request():
    from vmnet_pipeline.serving.errors import describe_failure

    def fail(error):
        try:
            raise error
        except Exception as caught:
            return describe_failure(caught)

    line = fail(FileNotFoundError(2, "No such file", "/srv/media/a clip.mp4"))
    assert line.startswith("FileNotFoundError ENOENT (in ")
    assert "test_state.fail:" in line
    assert fail(MediaError("no_audio_stream", "/srv/a: has no sound")).startswith("MediaError no_audio_stream (in ")
    assert fail(ValueError("a key\nof the client \x1b[31m")).startswith("ValueError (in ")


def test_the_log_tells_no_folder_where_words_have_nothing_to_ask_for(tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert _read_words(tmp_path, "music") is None
    assert tmp_path.name in caplog.text
    assert str(tmp_path) not in caplog.text
