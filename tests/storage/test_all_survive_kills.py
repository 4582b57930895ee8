"""Every primitive of storage is killed before each system call that changes a file: old or new, never neither."""

from __future__ import annotations

import errno
import os
import shutil
import threading

import numpy as np
import pyarrow as pa
import pytest
import step_killer
from disk_store import make_store

from vmnet_pipeline.storage import exchange
from vmnet_pipeline.storage.arrays import ArrayWriter, read_array
from vmnet_pipeline.storage.atomic import (
    remove_stale_temporaries,
    replace_atomically,
    replace_folder,
    write_text_atomically,
)
from vmnet_pipeline.storage.checksummed import add_checksum, describe_files, parse_checksummed, read_frame, write_table
from vmnet_pipeline.storage.locks import lock_run, share_writing
from vmnet_pipeline.storage.mirror import Mirror
from vmnet_pipeline.storage.row_log import RowLog

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not step_killer.can_trace(), reason="no process can be stopped at its system calls"),
]

COLUMNS = {"id": "string", "n": "int64"}


def kill_everywhere(folder, prepare, act, check, *, at_least):
    """Prepare, act and be killed, check; once for every change that the act makes, and once to its end."""
    n_kills, how = 0, "killed"
    while how == "killed":
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        prepare()
        how, changes = step_killer.run_until(act, n_kills)
        assert how != "failed", changes
        try:
            check(how == "ended")
        except Exception as error:
            raise AssertionError(f"killed before {changes[-1:]}, number {n_kills} of {changes}") from error
        n_kills += 1
    assert n_kills > at_least, "hardly anything was changed"


class WriterError(Exception):
    pass


def write_folder(folder, text):
    with replace_folder(folder) as temporary:
        (temporary / "a").write_text(text)
        (temporary / "b").write_text(text)


def fail_to_write(folder):
    with pytest.raises(WriterError), replace_folder(folder) as temporary:
        (temporary / "a").write_text("half")
        raise WriterError


def read_folder(folder):
    first, second = (folder / "a").read_text(), (folder / "b").read_text()
    assert first == second
    return first


@pytest.fixture
def without_exchange(monkeypatch):
    """As on a file system that cannot exchange two names."""

    def refuse(first, second):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(exchange, "exchange", refuse)


def test_a_folder_is_the_old_one_or_the_new_one_at_every_moment(tmp_path):
    place = tmp_path / "lab"

    def check(has_ended):
        assert read_folder(place / "f") in ("new",) if has_ended else ("old", "new")
        found = read_folder(place / "f")
        fail_to_write(place / "f")
        assert read_folder(place / "f") == found
        write_folder(place / "f", "next")
        assert read_folder(place / "f") == "next"
        assert [entry.name for entry in place.iterdir()] == ["f"]

    kill_everywhere(
        place, lambda: write_folder(place / "f", "old"), lambda: write_folder(place / "f", "new"), check, at_least=12
    )


def test_a_writer_that_fails_after_a_kill_loses_nothing_where_names_cannot_be_exchanged(tmp_path, without_exchange):
    place = tmp_path / "lab"

    def check(has_ended):
        fail_to_write(place / "f")  # puts back what had stepped aside
        found = read_folder(place / "f")
        assert found == "new" if has_ended else found in ("old", "new")
        write_folder(place / "f", "next")
        assert read_folder(place / "f") == "next"
        assert [entry.name for entry in place.iterdir()] == ["f"]

    kill_everywhere(
        place, lambda: write_folder(place / "f", "old"), lambda: write_folder(place / "f", "new"), check, at_least=13
    )


@pytest.mark.parametrize("kind", ["exchanged", "renamed"])
def test_two_kills_in_a_row_and_a_failing_writer_lose_nothing(tmp_path, kind, request):
    if kind == "renamed":
        request.getfixturevalue("without_exchange")
    for first in range(6, 16):
        for second in range(0, 16, 3):
            place = tmp_path / f"{first}-{second}"
            place.mkdir()
            write_folder(place / "f", "old")
            step_killer.run_until(lambda place=place: write_folder(place / "f", "new"), first)
            step_killer.run_until(lambda place=place: write_folder(place / "f", "newer"), second)
            fail_to_write(place / "f")
            assert read_folder(place / "f") in ("old", "new", "newer")


def test_the_first_folder_is_there_whole_or_not_at_all(tmp_path):
    place = tmp_path / "lab"

    def check(has_ended):
        assert not has_ended or (place / "f").exists()
        assert not (place / "f").exists() or read_folder(place / "f") == "new"
        write_folder(place / "f", "next")
        assert [entry.name for entry in place.iterdir()] == ["f"]

    kill_everywhere(place, lambda: None, lambda: write_folder(place / "f", "new"), check, at_least=8)


def test_what_is_in_the_place_of_a_folder_makes_no_difference(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "far").mkdir()
    (tmp_path / "far/kept").write_text("x")
    (tmp_path / "link").symlink_to("far")
    for name in ("file", "empty", "link"):
        write_folder(tmp_path / name, "new")
        assert read_folder(tmp_path / name) == "new"
    assert (tmp_path / "far/kept").exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["empty", "far", "file", "link"]


def test_a_reader_never_finds_the_place_empty(tmp_path):
    write_folder(tmp_path / "f", "0")
    ended, missing = threading.Event(), []

    def read():
        while not ended.is_set():
            if not (tmp_path / "f").is_dir():
                missing.append(1)

    reader = threading.Thread(daemon=True, target=read)
    reader.start()
    with (tmp_path / "f/a").open() as kept:
        for number in range(300):
            write_folder(tmp_path / "f", str(number))
        assert kept.read() == "0"  # the old folder is kept by who has opened it
    ended.set()
    reader.join()
    assert missing == []


def test_the_names_are_exchanged_by_the_system_here(tmp_path):
    """Otherwise the tests above show the other way only."""
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    exchange.exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a/b").exists()
    with pytest.raises(FileNotFoundError):
        exchange.exchange(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_the_old_one_or_the_new_one(tmp_path, durable):
    place = tmp_path / "lab"

    def check(has_ended):
        assert (place / "a").read_text() in (("new",) if has_ended else ("old", "new"))
        with pytest.raises(WriterError), replace_atomically(place / "a", durable=durable) as temporary:
            temporary.write_text("half")
            raise WriterError
        assert (place / "a").read_text() in ("old", "new")
        for path in place.glob(".tmp*"):
            os.utime(path, (0, 0))
        remove_stale_temporaries(place, place / "a")
        assert [entry.name for entry in place.iterdir()] == ["a"]

    kill_everywhere(
        place,
        lambda: write_text_atomically(place / "a", "old"),
        lambda: write_text_atomically(place / "a", "new", durable=durable),
        check,
        at_least=5 if durable else 3,
    )


def test_old_temporaries_go_and_nothing_else_does(tmp_path):
    place = tmp_path / "lab"

    def prepare():
        for name in (".tmp-1", ".tmp-2", "mine", "newest"):
            (place / name).touch()
            os.utime(place / name, (0, 0) if name != "newest" else None)

    def check(has_ended):
        names = {entry.name for entry in place.iterdir()}
        assert {"mine", "newest"} <= names
        assert not has_ended or names == {"mine", "newest"}

    kill_everywhere(place, prepare, lambda: remove_stale_temporaries(place, place / "newest"), check, at_least=2)


def write_log(place, *ids, writer="w"):
    RowLog(place, COLUMNS, writer=writer).append([{"id": item_id, "n": 1} for item_id in ids])


def test_rows_are_all_there_after_a_kill_and_the_next_addition(tmp_path):
    place = tmp_path / "lab"

    def check(has_ended):
        write_log(place, "next")  # of a writer of the same name
        ids = RowLog(place, COLUMNS).read()["id"].to_pylist()
        assert {"old", "next"} <= set(ids) <= {"old", "new", "newer", "next"}
        assert not has_ended or ids == ["old", "new", "newer", "next"]

    kill_everywhere(place, lambda: write_log(place, "old"), lambda: write_log(place, "new", "newer"), check, at_least=3)


@pytest.mark.parametrize("cut", range(2, 30, 4))
def test_a_line_that_was_cut_takes_no_other_one_with_it(tmp_path, cut):
    write_log(tmp_path, "old")
    write_log(tmp_path, "half")
    path = tmp_path / "rows-w.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    write_log(tmp_path, "next")
    assert RowLog(tmp_path, COLUMNS).read()["id"].to_pylist() == ["old", "next"]


def test_compacting_loses_no_row(tmp_path):
    place = tmp_path / "lab"

    def prepare():
        write_log(place, "a", "b")
        log = RowLog(place, COLUMNS)
        log.compact(log.read())
        write_log(place, "c", writer="v")
        write_log(place, "d", writer="u")

    def compact():
        log = RowLog(place, COLUMNS)
        log.compact(log.read())

    def check(has_ended):
        ids = RowLog(place, COLUMNS).read()["id"].to_pylist()
        assert set(ids) == {"a", "b", "c", "d"}
        assert not has_ended or len(ids) == 4
        compact()
        assert RowLog(place, COLUMNS).is_compact()
        assert set(RowLog(place, COLUMNS).read()["id"].to_pylist()) == {"a", "b", "c", "d"}

    kill_everywhere(place, prepare, compact, check, at_least=5)


def test_a_lock_goes_with_its_holder(tmp_path):
    place = tmp_path / "lab"

    def hold():
        with lock_run(place), share_writing(place):
            write_text_atomically(place / "a", "x")

    def check(has_ended):
        with lock_run(place), share_writing(place):
            pass
        with lock_run(place, (1, 2)):
            pass

    kill_everywhere(place, lambda: None, hold, check, at_least=6)


def test_a_pull_that_was_killed_is_done_again_by_the_next(tmp_path, monkeypatch):
    place = tmp_path / "lab"

    def put(number):
        for name in ("a", "b", "last"):
            (store / name).write_text(str(number))

    def prepare():
        put(1)
        pull()
        (store / "b").unlink()
        put(2)

    def pull():
        return Mirror(store, str(place / "cache"), "last").pull()

    def check(has_ended):
        local = pull()
        assert {path.name: path.read_text() for path in local.iterdir()} == dict.fromkeys(("a", "b", "last"), "2")
        assert {path.read_text() for path in (place / "store").iterdir()} == {"2"}

    store = make_store(place / "store", monkeypatch)
    kill_everywhere(place, prepare, pull, check, at_least=10)


def test_arrays_tables_and_sealed_texts_are_whole_when_they_have_their_name(tmp_path):
    place = tmp_path / "lab"

    def write(number):
        with replace_folder(place / "f") as temporary:
            with ArrayWriter(temporary / "a.npy", (3,)) as writer:
                for _ in range(4):
                    writer.add(np.full((50, 3), number, np.float32))
            write_table(pa.table({"n": [number] * 5}), temporary / "t.parquet")
            files = describe_files(temporary, ("a.npy", "t.parquet"))
            (temporary / "c.json").write_text(add_checksum({"n": number, "files": files}))

    def check(has_ended):
        folder = place / "f"
        content = parse_checksummed((folder / "c.json").read_bytes())
        array, table = read_array(folder / "a.npy"), read_frame(folder / "t.parquet")
        assert content["files"] == describe_files(folder, ("a.npy", "t.parquet"))
        assert {content["n"], *array.ravel(), *table["n"]} == {content["n"]}
        assert array.shape == (200, 3)
        assert content["n"] == 2 if has_ended else content["n"] in (1, 2)

    pa.set_cpu_count(1)
    kill_everywhere(place, lambda: write(1), lambda: write(2), check, at_least=14)
