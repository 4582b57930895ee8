"""Worker processes: what they make, and what becomes of items when a worker is lost."""

import os
import signal
from itertools import pairwise

import numpy as np
import pytest
from toy_backend import ToyBackend
from toy_bench import Bench

from vmnet_pipeline.errors import ExtractionError
from vmnet_pipeline.extraction import driver

pytestmark = pytest.mark.process

PROCESSES = {"executor": {"kind": "processes"}, "n_workers": 2}


def test_processes_make_what_threads_make(bench, tmp_path):
    orders = [str(n) for n in range(60)]
    bench.fill(*orders[:30], "bad", *orders[30:])
    rows = bench.extract(**PROCESSES)
    serial = Bench(tmp_path / "serial")
    serial.fill(*orders[:30], "bad", *orders[30:])
    serial.extract(executor={"kind": "serial"})
    assert sorted(row.id for row in rows) == [item.id for item in bench.items]
    assert set(bench.count_lines().values()) == {1}
    assert bench.status() == serial.status()
    assert bench.status()["030"] == "undecodable_audio"
    for path in serial.folder.glob("*.npy"):
        assert (bench.folder / path.name).read_bytes() == path.read_bytes()


def test_a_killed_worker_is_replaced_and_nothing_is_done_twice(bench):
    bench.fill(*[str(n) for n in range(80)])  # in batches of ten at first: the 14th is amid the second of a worker
    with bench.when_done(14, lambda: os.kill(bench.workers()[0], signal.SIGKILL)):
        bench.extract(ToyBackend(item_s=0.02), batch_size=1, **PROCESSES)
    bench.check_all_done_once()


def test_an_item_that_kills_its_worker_twice_is_a_failed_row(bench):
    bench.fill("1", "2", "poison", "3", "poison", *["4"] * 20)
    rows = {row.id: row for row in bench.extract(**PROCESSES)}
    assert {name: row.reason for name, row in rows.items() if row.status == "failed"} == {
        "002": "worker_died",
        "004": "worker_died",
    }
    assert "memory" in rows["002"].error
    assert len(rows) == len(bench.items) == len(bench.count_lines())
    assert set(bench.count_lines().values()) == {1}


@pytest.mark.parametrize("settings", [PROCESSES, {"executor": {"kind": "serial"}}])
def test_a_decoder_that_crashes_or_hangs_costs_one_item_and_no_worker(bench, settings, caplog):
    bench.fill("1", "crash", "2", "hang", *["3"] * 10)
    rows = {row.id: row for row in bench.extract(limits={"seconds": 1.0}, **settings)}
    failed = {name: row.reason for name, row in rows.items() if row.status == "failed"}
    assert failed == {"001": "decoder_crashed", "003": "timed_out"}
    assert "SIGKILL" in rows["001"].error
    assert len(rows) == len(bench.items)
    assert "tried again" not in caplog.text
    for item in ("001", "003"):
        (bench.media / f"{item}.txt").write_text("4")
    assert {row.id for row in bench.extract(**settings)} == {"001", "003"}
    assert set(bench.status().values()) == {"done"}


def test_an_item_that_hangs_is_ended_and_the_others_are_done(bench):
    bench.fill("1", "hang", *["2"] * 10)
    bench.extract(item_timeout_s=2.0, **PROCESSES)
    status = bench.status()
    assert status.pop("001") == "timeout"
    assert set(status.values()) == {"done"}


def test_what_may_lie_with_the_machine_is_tried_again_by_the_next_run(bench):
    bench.fill("1", "poison")
    bench.extract(**PROCESSES)
    assert bench.status() == {"000": "done", "001": "worker_died"}
    (bench.media / "001.txt").write_text("3")
    assert [row.id for row in bench.extract(**PROCESSES)] == ["001"]
    assert np.load(bench.folder / "001.npy") == 9.0


def test_workers_that_all_die_end_the_run_before_every_item_is_blamed(bench, monkeypatch):
    monkeypatch.setattr(driver, "MAX_LOST_ITEMS", 2)
    bench.fill(*["1"] * 20)
    with pytest.raises(ExtractionError, match=r"cause is not the items.*n_workers=1"):
        bench.extract(ToyBackend(crash_on_load=True), **PROCESSES)
    assert len(bench.status()) == 2


def test_no_worker_outlives_the_run(bench):
    bench.fill(*["1"] * 10)
    bench.extract(**PROCESSES)
    assert bench.workers() == []


def test_a_backend_that_cannot_be_pickled_is_an_error_that_says_so(bench):
    backend = ToyBackend()
    backend.lock = __import__("threading").Lock()
    bench.fill("1")
    with pytest.raises(ExtractionError, match=r"'toy' cannot be sent.*kind=serial"):
        bench.extract(backend, **PROCESSES)


def test_batches_shrink_towards_the_end(bench):
    class Counting:
        def size(self):
            return 2

    bench.fill(*["1"] * 300)
    waiting = driver.Driver(Counting(), None, bench.items)
    sizes = []
    while waiting._waiting:
        sizes.append(len(waiting._take_waiting()))
    assert sizes[0] == driver.MAX_BATCH
    assert sizes[-1] == 1
    assert all(later <= earlier for earlier, later in pairwise(sizes))
    assert sum(sizes) == 300
