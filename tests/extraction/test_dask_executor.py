"""A real Dask scheduler with worker processes, on loopback."""

import signal
import sys
import time
from concurrent.futures import CancelledError

import distributed
import pytest
from toy_backend import ToyBackend
from toy_bench import end_group, start_process

from vmnet_pipeline.errors import ExtractionError
from vmnet_pipeline.extraction import dask_executor as cluster
from vmnet_pipeline.extraction.executor import Event

pytestmark = pytest.mark.process


@pytest.fixture
def dask(tmp_path):
    """Address of a scheduler and its two workers."""
    place = tmp_path / "scheduler.json"
    common = ["--scheduler-file", str(place), "--no-dashboard"]
    run = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", *common]
    started = [start_process(run)]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--host", "127.0.0.1", "--nthreads", "1"]
    for _ in range(2):
        started.append(start_process([*worker, "--no-nanny", "--local-directory", str(tmp_path), *common]))
    deadline = time.monotonic() + 30
    while not place.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with distributed.Client(scheduler_file=str(place), set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        address = client.scheduler.address
    yield address, started
    for process in started:
        end_group(process)


def test_a_cluster_that_loses_a_worker_finishes_every_item_once(bench, dask, monkeypatch):
    address, (_, victim, _) = dask
    monkeypatch.setattr(cluster, "POLL_S", 0.1)
    bench.fill(*[str(n) for n in range(60)])
    with bench.when_done(7, victim.kill):  # in batches of seven at first
        rows = bench.extract(ToyBackend(item_s=0.05), batch_size=1, executor={"address": address})
    assert victim.wait() == -signal.SIGKILL
    assert len(rows) == 60
    bench.check_all_done_once()


def test_an_item_that_kills_two_workers_of_a_cluster_is_a_failed_row(bench, dask, monkeypatch, tmp_path):
    address, (_, *workers) = dask
    monkeypatch.setattr(cluster, "POLL_S", 0.1)
    bench.fill("1", "poison", "2")
    third = start_process([*workers[0].args])
    try:
        rows = {row.id: row for row in bench.extract(executor={"kind": "dask", "address": address})}
    finally:
        end_group(third)
    assert rows["001"].reason == "worker_died"
    assert {rows["000"].status, rows["002"].status} == {"done"}


@pytest.mark.parametrize("error", [TimeoutError(), CancelledError()])
def test_a_worker_that_ends_before_it_has_sent_its_rows_has_died(monkeypatch, error):
    class Future:
        status = "finished"

        def result(self, timeout=None):
            if timeout is None:
                pytest.fail("waits for ever")
            raise error

        def cancel(self, force):
            self.status = "cancelled"

    class Client:
        def nthreads(self):
            return {"tcp://127.0.0.1:1": 1}

    monkeypatch.setattr(cluster, "_connect", lambda address: Client())
    executor = cluster.DaskExecutor(None, "tcp://127.0.0.1:2")
    (worker,) = executor.ready()
    executor._futures[worker] = Future()
    assert executor._look_at(worker) == Event(worker, "died")
    assert executor._futures == {}


@pytest.mark.slow
def test_a_run_after_a_killed_driver_waits_for_the_batches_that_go_on(bench, dask, caplog):
    bench.fill(*[str(n) for n in range(40)])
    executor = {"kind": "dask", "address": dask[0]}
    driver = bench.start(backend={"item_s": 0.1}, batch_size=1, executor=executor)
    deadline = time.monotonic() + 60
    while sum(bench.count_lines().values()) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    bench.extract(executor=executor)
    assert "Waiting for workers of an earlier run" in caplog.text
    bench.check_all_done_once()


def test_no_scheduler_at_the_address_is_one_clear_error(bench, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_WAIT_S", 0.5)
    bench.fill("1")
    with pytest.raises(ExtractionError, match=r"No Dask scheduler answers at tcp://127.0.0.1:9 .*Start it"):
        bench.extract(executor={"kind": "dask", "address": "tcp://127.0.0.1:9"})
