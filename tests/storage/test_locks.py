import contextlib
import fcntl
import json
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vmnet_pipeline.errors import FeatureStoreError
from vmnet_pipeline.storage.locks import lock_run, share_writing


def test_workers_of_one_array_share_a_store_and_keep_the_same_worker_and_whole_runs_away(tmp_path):
    index = tmp_path / "store" / "_index"
    with lock_run(index, (0, 2)), lock_run(index, (1, 2)):
        for shard in ((0, 2), None):
            with (
                pytest.raises(FeatureStoreError, match=r"store is being worked on by process \d+ on"),
                lock_run(index, shard),
            ):
                pass
    with lock_run(index):
        pass


def test_an_array_of_another_size_is_refused(tmp_path):
    with (
        lock_run(tmp_path, (0, 2)),
        pytest.raises(FeatureStoreError, match="being worked on"),
        lock_run(tmp_path, (0, 3)),
    ):
        pass


def test_the_lock_of_a_process_that_is_gone_is_no_obstacle(tmp_path):
    tmp_path.joinpath("lock").write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": "2020"}))
    with lock_run(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["host"] != "elsewhere"


def _write_for_a_while(folder, started, end):
    with share_writing(folder):
        started.set()
        end.wait(30)


@pytest.mark.process
def test_a_run_waits_for_writers_that_an_earlier_one_left(tmp_path, caplog):
    context = multiprocessing.get_context("spawn")
    started, end = context.Event(), context.Event()
    writer = context.Process(target=_write_for_a_while, args=(tmp_path, started, end))
    writer.start()
    assert started.wait(30)

    class End:
        """Lets the writer go as soon as somebody was seen to wait."""

        def filter(self, record):
            end.set()
            return True

    caplog.handler.addFilter(End())
    with lock_run(tmp_path):
        assert "Waiting for workers" in caplog.text
    writer.join()


def test_a_writer_is_seen_although_a_run_was_just_looking_for_writers(tmp_path):
    began, end = threading.Event(), threading.Event()

    def write():
        with share_writing(tmp_path):
            began.set()
            end.wait(30)

    with (tmp_path / "writers").open("a") as looking, contextlib.ExitStack() as at_the_end:
        fcntl.flock(looking, fcntl.LOCK_EX)
        writer = threading.Thread(daemon=True, target=write)
        at_the_end.callback(writer.join)
        at_the_end.callback(end.set)
        writer.start()
        began.wait(0.2)
        fcntl.flock(looking, fcntl.LOCK_UN)
        assert began.wait(30)
        with pytest.raises(BlockingIOError):
            fcntl.flock(looking, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_workers_that_start_at_once_do_not_take_each_other_for_an_array_of_another_size(tmp_path):
    for k in range(40):
        (tmp_path / f"lock-{k}-of-40").touch()  # left by an earlier array, which has ended
    n_workers = 8
    together = threading.Barrier(n_workers)

    def work(k):
        for _ in range(5):
            together.wait(30)
            with lock_run(tmp_path, (k, n_workers)):
                pass

    with ThreadPoolExecutor(n_workers) as pool:
        for worker in [pool.submit(work, k) for k in range(n_workers)]:
            worker.result()
