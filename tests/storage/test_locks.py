import json
import multiprocessing

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
