"""Processes that end when nobody has asked for it: the service and its workers."""

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from vmnet_pipeline.serving.errors import RefusedError
from vmnet_pipeline.serving.metrics import Metrics
from vmnet_pipeline.serving.worker import Task
from vmnet_pipeline.serving.worker_pool import EmbeddingPool

sys.path.insert(0, str(Path(__file__).parents[1] / "torture"))
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
