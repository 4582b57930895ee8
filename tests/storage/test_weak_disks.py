"""Disks without hard links, locks, flushing of folders, or renaming over what is open: everything runs, and is said."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from weak_system import can_refuse

from vmnet_pipeline.errors import StorageError, TuningError
from vmnet_pipeline.experiments.tuning import _hold_lock
from vmnet_pipeline.storage import atomic, locks, weak_disks
from vmnet_pipeline.storage.atomic import flush_file_system, replace_atomically, replace_folder
from vmnet_pipeline.storage.row_log import RowLog


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(weak_disks, "_warned", set())
    monkeypatch.setattr(weak_disks, "PATIENCE_S", 0.0)


def refuse_with(code):
    def refuse(*given, **options):
        raise OSError(code, os.strerror(code))

    return refuse


def refuse_when(real, condition, code):
    def call(*given, **options):
        if condition(*given):
            raise OSError(code, os.strerror(code), str(given[-1]))
        return real(*given, **options)

    return call


def write_everything(folder: Path):
    """Each primitive twice, over what the first one left."""
    for text in ("first", "second"):
        with replace_atomically(folder / "a.txt", durable=True) as temporary:
            temporary.write_text(text)
        with replace_folder(folder / "index") as temporary:
            (temporary / "b.txt").write_text(text)
        log = RowLog(folder / "log", {"name": "string"})
        log.append([{"name": text}])
        log.sync()
        flush_file_system(folder)
        with locks.lock_run(folder / "locks"), locks.share_writing(folder / "locks"):
            pass
    assert (folder / "a.txt").read_text() == (folder / "index/b.txt").read_text() == "second"
    assert RowLog(folder / "log", {"name": "string"}).read()["name"].to_pylist() == ["first", "second"]
    assert not [path for path in folder.rglob("*") if path.name.startswith((".tmp-", ".replaced-"))]


def is_folder(handle):
    return stat.S_ISDIR(os.fstat(handle).st_mode)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM, errno.ENOSYS])
def test_folders_that_cannot_be_flushed(tmp_path, monkeypatch, caplog, code):
    monkeypatch.setattr(os, "fsync", refuse_when(os.fsync, is_folder, code))
    write_everything(tmp_path)
    assert caplog.text == ""


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_files_that_cannot_be_flushed_are_told_of_once(tmp_path, monkeypatch, caplog, code):
    monkeypatch.setattr(os, "fsync", refuse_with(code))
    write_everything(tmp_path)
    assert caplog.text.count("cannot be flushed to this disk") == 1


def test_a_disk_that_fails_while_it_flushes_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", refuse_with(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"), replace_atomically(tmp_path / "a", durable=True) as path:
        path.write_text("x")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
def test_without_locks_one_is_told_to_take_care(tmp_path, monkeypatch, caplog, code):
    monkeypatch.setattr(fcntl, "flock", refuse_with(code))
    write_everything(tmp_path)
    with _hold_lock(tmp_path / "tune"):
        pass
    assert caplog.text.count("cannot be locked") == 1


def test_a_search_that_another_process_holds_is_still_refused(tmp_path):
    with (
        _hold_lock(tmp_path / "tune"),
        pytest.raises(TuningError, match="Another process is searching"),
        _hold_lock(tmp_path / "tune"),
    ):
        pass


def test_without_locks_temporary_folders_go_when_they_are_old(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refuse_with(errno.ENOLCK))
    leftovers = [tmp_path / f".tmp-index-{digit * 32}" for digit in "01"]
    for path in leftovers:
        path.mkdir()
    os.utime(leftovers[0], (1, 1))
    with replace_folder(tmp_path / "index"):
        pass
    assert [path.exists() for path in leftovers] == [False, True]


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EACCES, errno.EPERM, errno.ETXTBSY, errno.EEXIST])
def test_a_disk_that_renames_over_nothing(tmp_path, monkeypatch, caplog, code):
    def is_there(source, target, **options):
        return os.path.lexists(target)

    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, refuse_when(getattr(os, name), is_there, code))
    write_everything(tmp_path)
    assert caplog.text.count("was replaced in two steps") == 1


def test_a_file_that_is_open_for_a_moment_is_waited_for(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(weak_disks, "PATIENCE_S", 5.0)
    calls = []

    def is_busy(source, target, **options):
        calls.append(target)
        return len(calls) < 3 and Path(target).exists()

    (tmp_path / "a.txt").write_text("old")
    monkeypatch.setattr(os, "replace", refuse_when(os.replace, is_busy, errno.EBUSY))
    atomic.write_text_atomically(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert len(calls) == 3
    assert caplog.text == ""


def test_a_file_that_cannot_be_replaced_in_any_way_stays_and_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("old")
    monkeypatch.setattr(os, "replace", refuse_with(errno.EBUSY))
    with pytest.raises(StorageError, match=r"a\.txt cannot be replaced .* Close the programs"):
        atomic.write_text_atomically(tmp_path / "a.txt", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


WEAK = """
import errno, os, sys
rename = os.rename
def move(source, target, **options):
    target_is_open = any(
        os.path.realpath(f"/proc/self/fd/{name}") == os.path.realpath(target) for name in os.listdir("/proc/self/fd")
    )
    if os.path.isfile(target) and target_is_open:
        raise OSError(errno.EBUSY, "Device or resource busy")
    rename(source, target, **options)
os.rename = os.replace = move
sys.path.insert(0, HERE)
import weak_system
weak_system.refuse({name: code for name, code in weak_system.WEAK.items() if "chmod" not in name})
"""


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.skipif(not can_refuse(), reason="needs seccomp")
def test_the_whole_way_on_a_disk_that_can_little(project, tmp_path):
    from reference_data import make_reference_data

    make_reference_data(project.folder / "pairs")
    (tmp_path / "weak").mkdir()
    (tmp_path / "weak" / "sitecustomize.py").write_text(WEAK.replace("HERE", repr(str(Path(__file__).parent))))
    environment = {**project.environment, "PYTHONPATH": str(tmp_path / "weak")}
    for epochs in (1, 2):
        done = subprocess.run(
            [sys.executable, "-m", "kedro", "run", "--pipelines=train,evaluate", "--params",
             f"pairs_dir=pairs,collection=tiny,train.epochs={epochs},train.batch_size=8"],
            cwd=project.folder, env=environment, capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        assert "R@10" in done.stdout
        assert "not logged" not in done.stdout
        assert done.stderr.count("No hard links here") == (epochs == 1)
