import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vmnet_pipeline.storage.atomic import (
    explain_disk_error,
    flush_file_system,
    remove_stale_temporaries,
    replace_atomically,
    replace_folder,
    write_text_atomically,
)
from vmnet_pipeline.storage.paths import (
    list_files,
)


def test_a_failing_writer_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text_atomically(path, "old")
    with pytest.raises(RuntimeError), replace_atomically(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_reader_sees_the_old_content_until_the_writer_is_done(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write_text_atomically(path, "old")
    with replace_atomically(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def write_in(folder, text):
    with replace_folder(folder) as temporary:
        (temporary / "a").write_text(text)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    write_in(tmp_path / "f", "old")
    with pytest.raises(RuntimeError), replace_folder(tmp_path / "f") as temporary:
        (temporary / "a").write_text("half")
        raise RuntimeError
    assert (tmp_path / "f" / "a").read_text() == "old"
    write_in(tmp_path / "f", "new")
    assert (tmp_path / "f" / "a").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.process
def test_what_a_killed_writer_of_a_folder_left_is_removed_by_the_next_one(tmp_path):
    command = (
        "import os, sys; from pathlib import Path; from vmnet_pipeline.storage.atomic import replace_folder\n"
        "with replace_folder(Path(sys.argv[1])) as temporary:\n"
        "    (temporary / 'a').write_text('half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", command, tmp_path / "f"], check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    other = tmp_path / left.name.replace("-f-", "-g-")
    other.mkdir()
    write_in(tmp_path / "f", "new")
    assert sorted(tmp_path.iterdir()) == [other, tmp_path / "f"]


def test_a_folder_that_another_writer_is_at_stays_and_the_last_one_wins(tmp_path):
    with replace_folder(tmp_path / "f") as temporary:
        write_in(tmp_path / "f", "first")
        assert (tmp_path / "f" / "a").read_text() == "first"
        (temporary / "a").write_text("second")
    assert (tmp_path / "f" / "a").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_many_writers_of_one_folder_at_once_leave_one_whole(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: write_in(tmp_path / "f", f"{k}"), range(200)))
    assert (tmp_path / "f" / "a").read_text().isdigit()
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_old_temporary_files_of_killed_writers_go(tmp_path):
    for name, age_s in ((".tmp-old", 4000), (".tmpVYKdPm", 4000), (".tmp-young", 10), ("mine", 4000), ("newest", 0)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (10**9 - age_s, 10**9 - age_s))
    remove_stale_temporaries(tmp_path, tmp_path / "newest")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-young", "mine", "newest"]
    remove_stale_temporaries(tmp_path / "none", tmp_path / "none" / "x")


def wrap(error):
    try:
        raise RuntimeError("Failed while saving to a.npy") from error
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a"), "Free some space"),
        (wrap(OSError(errno.EIO, "Input/output error")), "Check the disk"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "Correct the permissions"),
        (ValueError("I/O error: No space left on device (os error 28)"), "Free some space"),
        (RuntimeError("(sqlite3.OperationalError) database or disk is full"), "Free some space"),
    ],
)
def test_errors_of_the_disk_say_what_to_do(error, remedy):
    explained = explain_disk_error(error)
    assert remedy in str(explained)
    assert str(error) in str(explained)


def test_other_errors_are_not_of_the_disk():
    assert explain_disk_error(FileNotFoundError(errno.ENOENT, "No such file")) is None
    assert explain_disk_error(None) is None


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """What is flushed and renamed, in its order, by the kind of its name."""
    told, fsync, replace = [], os.fsync, type(tmp_path).replace

    def name(path):
        return "temporary" if str(path.name).startswith(".tmp-") else path.name

    def tell_fsync(handle):
        told.append(f"flush {name(Path(f'/proc/self/fd/{handle}').readlink())}")
        fsync(handle)

    def tell_replace(path, target):
        told.append(f"rename {name(path)}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", tell_fsync)
    monkeypatch.setattr(type(tmp_path), "replace", tell_replace)
    monkeypatch.setattr(type(tmp_path), "rename", tell_replace)
    return told


def test_what_shall_outlast_a_loss_of_power_is_on_the_disk_before_it_has_its_name(steps, tmp_path):
    folder = tmp_path / "f"
    write_text_atomically(folder / "a", "quick")
    assert steps == ["rename temporary"]
    steps.clear()
    write_text_atomically(folder / "a", "dear", durable=True)
    assert steps == ["flush temporary", "rename temporary", "flush f"]


def test_a_folder_is_on_the_disk_before_it_has_its_name(steps, tmp_path):
    with replace_folder(tmp_path / "f" / "g") as temporary:
        (temporary / "a").write_text("x")
    assert steps == ["flush a", "flush temporary", "rename temporary", "flush f"]


def test_a_file_system_that_is_not_there_cannot_be_flushed(tmp_path):
    flush_file_system(tmp_path)
    with pytest.raises(FileNotFoundError):
        flush_file_system(tmp_path / "none")


def test_a_file_appears_whole_or_not_at_all(remote):
    write_text_atomically(remote / "a.txt", "old")
    with pytest.raises(RuntimeError), replace_atomically(remote / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (remote / "a.txt").read_text() == "old"
    assert list(list_files(remote)) == ["a.txt"]
