"""Processes that end when nobody has asked for it: the service, a worker, one that loads, a decoder that is slow."""

import asyncio
import itertools
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from vmnet_pipeline.serving.config import ServeParams
from vmnet_pipeline.serving.errors import RefusedError
from vmnet_pipeline.serving.metrics import Metrics
from vmnet_pipeline.serving.worker import Task
from vmnet_pipeline.serving.worker_pool import EmbeddingPool

sys.path.insert(0, str(Path(__file__).parents[1] / "torture"))
sys.path.insert(0, str(Path(__file__).parents[1] / "media"))
from bad_readers import hang
from serve_process import ServeProcess, find_port, make_project


def wait_for(condition, seconds=60):
    ends = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < ends:
        time.sleep(0.02)
    return found


def list_below(pid):
    """Process ids of all children of a process, and of theirs."""
    found = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in thread.read_text(encoding="ascii").split():
            found += [int(child), *list_below(child)]
    return found


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def begin_upload(port):
    """An upload whose end does not come."""
    connection = socket.create_connection(("127.0.0.1", port))
    head = (
        "POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: video/mp4\r\nContent-Length: 1000000\r\n\r\n"
    )
    connection.sendall(head.encode() + b"x" * 500_000)
    return connection


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM])
def test_nothing_is_left_of_a_service_that_ends_during_an_upload(places, tmp_path, number):
    make_project(tmp_path / "project")
    process = ServeProcess(tmp_path / "project", places, port=find_port())
    try:
        process.start()
        pid = process._process.pid
        below = list_below(pid)
        assert len(below) >= 2  # a worker and its decoder
        with begin_upload(process.port):
            assert wait_for(lambda: list(process.temporary.glob("vmnet-uploads-*/upload-*")))
            os.kill(pid, signal.SIGSTOP)
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)
        process._process.wait(60)
        assert wait_for(lambda: not any(is_running(child) for child in below), 20), [p for p in below if is_running(p)]
        left = list(process.temporary.glob("vmnet-uploads-*"))
        assert bool(left) is (number == signal.SIGKILL)
        assert "Traceback" not in process.log.read_text()
        if left:
            process.start("/healthz")
            assert not left[0].exists()
    finally:
        process.end(signal.SIGKILL)


@pytest.fixture
def pool(places):
    made = EmbeddingPool(
        places.checkpoint, places.weights_dir, n_workers=1, max_waiting=1, file_timeout_s=60.0, metrics=Metrics()
    )
    made.start()
    assert not made.failure
    yield made
    made.close()


def test_a_worker_that_the_system_ends_is_not_the_fault_of_the_file(pool, manifest):
    """It is stopped, so that it is surely at work, and ended as by a lack of memory."""
    worker = pool._workers[0]._process
    os.kill(worker.pid, signal.SIGSTOP)
    killer = threading.Timer(0.5, os.kill, (worker.pid, signal.SIGKILL))
    killer.start()
    task = Task("music", path=manifest.loc["0001", "audio_path"])
    with pytest.raises(RefusedError) as caught:
        asyncio.run(pool.ask(task, 60))
    killer.join()
    assert (caught.value.status, caught.value.code) == (503, "lost_worker")
    assert caught.value.retry_after_s > 0
    assert asyncio.run(pool.ask(task, 60)).embedding.shape == (1, 8)


def test_all_reading_for_one_upload_has_one_budget():
    """Two calls that are each within the limit of one: the second is ended, and the worker goes on."""
    from multiprocessing import Pipe

    from vmnet_pipeline.errors import MediaError
    from vmnet_pipeline.media.sandbox import Sandbox
    from vmnet_pipeline.params import LimitParams
    from vmnet_pipeline.serving import worker

    ended = []

    class Embedder:
        sandbox = Sandbox(LimitParams(seconds=60.0))

        def extract(self, side, path, warnings):
            for _ in range(2):
                try:
                    self.sandbox.call(hang, path)
                except MediaError as error:
                    ended.append(error.reason)
            raise MediaError("timed_out", path)

    ours, theirs = Pipe()
    with Embedder.sandbox:
        Embedder.sandbox.start(1)
        thread = threading.Thread(target=worker._answer_all, args=(theirs, Embedder(), 1.0))
        thread.start()
        before, worker._check_media = worker._check_media, lambda *arguments: None
        try:
            for n in (1, 2):
                began = time.monotonic()
                ours.send(Task("music", path=__file__))
                assert ours.poll(50)
                assert ours.recv().reason == "timed_out"
                assert ended == ["timed_out"] * 2 * n
                assert time.monotonic() - began < 40  # two times the limit of one call would be 120 s
        finally:
            worker._check_media = before
        ours.close()
        thread.join()


def test_workers_that_end_while_they_load_are_started_again(places, caplog):
    """With longer and longer waits; until then uploads are told when to try again."""
    from vmnet_pipeline.serving.state import Service

    service = Service(places, ServeParams(reload_every_s=0.05))
    service.start()
    try:
        worker = service.state.pool._workers[0]
        first = wait_for(lambda: worker._process)
        assert wait_for(lambda: first.pid)
        os.kill(first.pid, signal.SIGKILL)
        assert wait_for(lambda: service.state.pool.failure)
        with pytest.raises(RefusedError) as caught, service.state.pool.take_place():
            pass
        assert (caught.value.status, caught.value.code, caught.value.retry_after_s) == (503, "no_networks", 10)
        assert "not loaded" in service.find_fault()
        assert wait_for(lambda: not service.find_fault(), 120)
        assert service.state.pool.failure == ""
        with service.state.pool.take_place():
            pass
    finally:
        service.close()
    assert caplog.text.count("are restarted") == 1


def test_the_waits_between_starts_grow(places, monkeypatch):
    from types import SimpleNamespace

    from vmnet_pipeline.serving import state

    service = state.Service(places, ServeParams())
    now, starts = [0.0], []
    monkeypatch.setattr(state, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(EmbeddingPool, "start", lambda pool: starts.append(now[0]))
    while now[0] < 400:
        service._start_workers()
        now[0] += 0.5
    gaps = [after - before for before, after in itertools.pairwise(starts)]
    assert gaps[:6] == [1, 2, 4, 8, 16, 32]
    assert set(gaps[6:]) == {60}
    service.uploads.remove()
