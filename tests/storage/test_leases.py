"""Runs that share a remote folder, where no lock of the system holds."""

import json
import os
import signal
import subprocess
import sys
import threading

import disk_store
import pytest

from vmnet_pipeline.errors import FeatureStoreError
from vmnet_pipeline.storage import leases, locks
from vmnet_pipeline.storage.locks import lock_run, share_writing
from vmnet_pipeline.storage.paths import (
    list_files,
)


def test_one_run_at_a_time(remote):
    with (
        lock_run(remote),
        pytest.raises(FeatureStoreError, match=f"process {os.getpid()} on .*everything finished is kept"),
        lock_run(remote),
    ):
        pass
    with lock_run(remote):
        pass
    assert list_files(remote / "claims") == {}


@pytest.mark.parametrize(
    ("first", "second", "may"),
    [
        ((0, 2), (1, 2), True),
        ((0, 2), (0, 2), False),
        ((0, 2), (1, 3), False),
        ((0, 2), None, False),
        (None, (0, 2), False),
    ],
)
def test_workers_of_an_array_job_share_a_store(remote, first, second, may):
    with lock_run(remote, first):
        if may:
            with lock_run(remote, second):
                pass
        else:
            with pytest.raises(FeatureStoreError, match="being worked on"), lock_run(remote, second):
                pass


def test_a_lease_that_is_not_renewed_counts_for_nothing(remote, monkeypatch):
    other = {"pid": 1, "host": "far", "started": "then", "machine": "another"}
    (remote / "claims/run.0.json").write_text(json.dumps(other))
    with pytest.raises(FeatureStoreError, match="process 1 on far, started then"), lock_run(remote):
        pass
    monkeypatch.setattr(leases, "EXPIRES_S", -1.0)
    with lock_run(remote):
        assert "run.0.json" not in list_files(remote / "claims")


@pytest.mark.process
def test_a_killed_process_of_this_machine_leaves_nothing_behind(remote):
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = {"pid": int(child.stdout), "host": "h", "started": "then", "machine": leases._name_machine()}
    (remote / "claims/run.0.json").write_text(json.dumps(dead))
    with lock_run(remote):
        pass


def work_and_be_killed(store, kill_at):
    """A process that takes a run's lease and one for writing; its exit status."""
    pid = os.fork()
    if pid == 0:
        disk_store.DiskStore.n_requests, disk_store.DiskStore.kill_at = 0, kill_at
        try:
            with lock_run(store), share_writing(store):
                (store / "x").write_text("1")
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


@pytest.mark.process
def test_a_process_killed_at_any_request_keeps_nobody_out(tmp_path, monkeypatch):
    store, n_kills = disk_store.make_store(tmp_path, monkeypatch), 0
    while work_and_be_killed(store, n_kills) == signal.SIGKILL:
        with lock_run(store), share_writing(store):
            pass
        left = list_files(store / "claims")  # what tells the time is removed when it is old
        assert {name.partition(".")[0] for name in left} <= {"clock"}
        for name in left:
            (store / "claims" / name).unlink()
        n_kills += 1
    assert n_kills > 5


def test_a_run_that_lost_its_lease_ends_with_an_error(remote, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_S", 0.01)
    before = set(threading.enumerate())
    with pytest.raises(FeatureStoreError, match="another one may have begun"), lock_run(remote):
        (lease,) = [thread for thread in set(threading.enumerate()) - before if thread.name == "lease"]
        for name in list_files(remote / "claims"):
            (remote / "claims" / name).unlink()
        lease.join(timeout=30)


def test_a_new_run_waits_for_those_that_still_write(remote, monkeypatch):
    monkeypatch.setattr(locks, "REMOTE_POLL_S", 0.01)
    began = threading.Event()

    def run():
        with lock_run(remote):
            began.set()

    with share_writing(remote):
        thread = threading.Thread(daemon=True, target=run)
        thread.start()
        assert not began.wait(0.3)
    assert began.wait(30)
    thread.join()
