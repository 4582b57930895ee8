"""Workers that end while they load are started again."""

import itertools
import os
import signal
import time

import pytest

from vmnet_pipeline.serving.config import ServeParams
from vmnet_pipeline.serving.errors import RefusedError
from vmnet_pipeline.serving.worker_pool import EmbeddingPool


def wait_for(condition, seconds=60):
    ends = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < ends:
        time.sleep(0.02)
    return found


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
