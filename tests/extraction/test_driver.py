"""Drivers that are killed, interrupted, starved or started twice."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from toy_bench import find_children, read_lines

from vmnet_pipeline.errors import FeatureStoreError
from vmnet_pipeline.features.store import FeatureStore

pytestmark = pytest.mark.process

KINDS = [{"executor": {"kind": "serial"}}, {"executor": {"kind": "processes"}, "n_workers": 2}]
SLOW = {"item_s": 0.05}


def wait_until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("settings", KINDS)
def test_a_killed_driver_loses_nothing_that_was_finished(bench, settings):
    bench.fill(*[str(n) for n in range(40)])
    process = bench.start(backend=SLOW, batch_size=1, **settings)
    read_lines(process, 8)
    process.kill()
    process.wait()
    done = [name for name, status in bench.status().items() if status == "done"]
    before = bench.written_at()
    assert 6 <= len(done) < 40
    rows = bench.extract(batch_size=1, **settings)
    assert not {row.id for row in rows} & set(done)
    after = bench.written_at()
    assert all(after[f"{name}.npy"] == before[f"{name}.npy"] for name in done)
    bench.check_all_done_once()


def test_workers_do_not_outlive_a_killed_driver_and_what_it_left_is_no_obstacle(bench):
    bench.fill("1", "sleep", "2", "sleep", "3")
    process = bench.start(executor={"kind": "processes"}, n_workers=2)
    read_lines(process, 2)
    workers = find_children(process.pid)
    assert len(workers) == 2
    process.kill()
    process.wait()
    wait_until(lambda: not any(is_running(worker) for worker in workers))
    for item in ("001", "003"):
        (bench.media / f"{item}.txt").write_text("4")
    bench.extract()
    bench.check_all_done_once()


@pytest.mark.parametrize("settings", KINDS)
def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(bench, settings):
    bench.fill(*[str(n) for n in range(200)])
    process = bench.start(backend=SLOW, batch_size=1, **settings)
    read_lines(process, 5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to driver and workers
    _, errors = process.communicate(timeout=30)
    assert process.returncode not in (0, None)
    assert "run the same command to continue" in errors
    assert errors.count("KeyboardInterrupt") <= 1, "a worker was interrupted by itself"
    assert not list(bench.folder.glob(".tmp-*"))
    assert 4 <= len(bench.status()) < 200
    bench.extract(**settings)
    bench.check_all_done_once()


def test_a_second_run_on_a_store_is_refused_and_told_who_holds_it(bench):
    bench.fill(*[str(n) for n in range(60)])
    first = bench.start(backend=SLOW, batch_size=1, executor={"kind": "serial"})
    read_lines(first, 3)
    with pytest.raises(FeatureStoreError, match=rf"worked on by process {first.pid} on .*, started 2"):
        bench.extract()
    with pytest.raises(FeatureStoreError, match=rf"process {first.pid}"):
        bench.extract(array={"worker": 0, "n_workers": 2})
    assert first.poll() is None
    first.communicate(timeout=60)
    bench.check_all_done_once()
    assert bench.extract() == []


def test_what_the_first_run_finished_after_the_plan_is_not_done_again(bench):
    from toy_backend import ToyBackend

    from vmnet_pipeline.extraction.driver import extract_missing
    from vmnet_pipeline.params import ExtractParams

    bench.fill("1", "2", "3")
    plan = list(bench.items)
    bench.extract()
    assert list(extract_missing(ToyBackend(), plan, FeatureStore(bench.folder), ExtractParams())) == []
    bench.check_all_done_once()


@pytest.mark.parametrize("settings", KINDS)
def test_a_full_disk_is_one_clear_error_and_no_half_file(bench, settings):
    bench.fill("1", "2", "3")
    size = 100_000
    process = bench.start(backend={"size": size}, max_file_bytes=size, **settings)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "FeatureStoreError: Cannot write to the feature store" in errors
    assert "everything finished so far is kept" in errors
    assert [path.name for path in bench.folder.iterdir()] == ["_index"]
    assert bench.status() == {}


def test_a_place_that_cannot_be_written_is_one_clear_error(bench):
    bench.fill("1")
    bench.folder.write_text("a file where the store should be")
    with pytest.raises(FeatureStoreError, match=r"Cannot write to the feature store .*correct the permissions"):
        bench.extract()


def test_workers_of_an_array_job_share_a_collection_and_a_store(bench):
    bench.fill(*[str(n) for n in range(40)])
    arrays = [{"worker": worker, "n_workers": 3} for worker in range(3)]
    runs = [bench.start(array=array, executor={"kind": "serial"}, backend={"item_s": 0.01}) for array in arrays]
    planned = []
    for run in runs:
        output, errors = run.communicate(timeout=60)
        assert run.returncode == 0, errors
        planned.append(int(output.split()[0]))
    assert sum(planned) == 40
    assert min(planned) > 0
    bench.check_all_done_once()


def test_a_clock_that_has_jumped_back_does_not_make_old_rows_the_newer_ones(bench):
    bench.fill("1", "2")
    bench.extract()
    for path in (bench.folder / "_index").glob("rows-*.jsonl"):
        os.utime(path, (time.time() + 86_400, time.time() + 86_400))  # written when the clock was a day ahead
    (bench.media / "000.txt").write_text("3")
    bench.items[0] = replace(bench.items[0], checksum="sha256:other")
    assert [row.id for row in bench.extract()] == ["000"]
    store = FeatureStore(bench.folder)
    assert store.rows["000"].source_checksum == "sha256:other"
    store.compact()
    assert FeatureStore(bench.folder).load("000") == 9.0
    assert bench.extract() == []
