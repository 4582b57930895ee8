"""Local copies of remote folders: whole, of the last version, each byte fetched once."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from vmnet_pipeline.storage import mirror as mirrors
from vmnet_pipeline.storage.mirror import Mirror
from vmnet_pipeline.storage.paths import (
    copy_to_local,
    list_files,
    local_copy,
)


def test_an_object_whose_name_leads_out_of_its_folder_is_not_copied(remote, tmp_path):
    (remote / "ok.txt").write_bytes(b"1")
    (remote / "sub/../../../evil.txt").write_bytes(b"1")
    assert list(list_files(remote, recursive=True)) == ["ok.txt"]
    mirror = Mirror(remote, str(tmp_path / "deep/cache"), "ok.txt")
    mirror.pull()
    with local_copy(remote) as local:
        assert [path.name for path in local.rglob("*")] == ["ok.txt"]
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_mirror_fetches_only_what_has_changed(remote, tmp_path):
    mine, yours = (Mirror(remote, str(tmp_path / name), "last.json") for name in ("mine", "yours"))
    assert not mine.exists()
    assert not mine.pull().exists()
    mine.local.mkdir(parents=True)
    for name in ("big.npy", "last.json", "gone.npy"):
        (mine.local / name).write_text("one")
    mine.push()
    (yours.pull() / "big.npy").write_text("touched")
    assert (yours.pull() / "big.npy").read_text() == "touched"  # nothing new: not fetched again
    (mine.local / "big.npy").write_text("two")
    (mine.local / "gone.npy").unlink()
    mine.push()
    assert (yours.pull() / "big.npy").read_text() == "two"
    assert not (yours.local / "gone.npy").exists()


def test_a_folder_is_fetched_once_for_all_who_want_it_at_once(remote, tmp_path, monkeypatch):
    for name in ("a.npy", "last.json"):
        (remote / name).write_text("one")
    copied = []

    def copy_slowly(source, local):
        copied.append(local.name)
        time.sleep(0.05)
        copy_to_local(source, local)

    monkeypatch.setattr("vmnet_pipeline.storage.mirror.copy_to_local", copy_slowly)
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: Mirror(remote, str(tmp_path), "last.json").pull(), range(4)))
    (folder,) = folders
    assert [(folder / name).read_text() for name in ("a.npy", "last.json")] == ["one", "one"]
    assert copied == ["a.npy", "last.json"]


def test_a_folder_that_is_half_written_is_absent(remote, tmp_path, monkeypatch):
    mirror = Mirror(remote, str(tmp_path / "cache"), "last.json")
    mirror.local.mkdir(parents=True)
    for name in ("a.npy", "last.json"):
        (mirror.local / name).write_text("one")
    mirror.push()

    def fail(local, target):
        raise OSError("gone")

    monkeypatch.setattr("vmnet_pipeline.storage.mirror.upload", fail)
    with pytest.raises(OSError, match="gone"):
        mirror.push()
    assert not Mirror(remote, str(tmp_path / "other"), "last.json").exists()


class KilledError(BaseException):
    """As if the process ended here; unlike a real end it runs `finally`, which the mirror has none of."""


@pytest.mark.parametrize("at", range(7))
def test_a_push_that_was_killed_is_completed_from_the_copy(remote, tmp_path, monkeypatch, at):
    def fill(text):
        for name in ("a", "b", "last"):
            (mirror.local / name).write_text(text)

    mirror = Mirror(remote / "f", str(tmp_path), "last")
    mirror.local.mkdir(parents=True)
    fill("old")
    mirror.push()
    fill("new")
    n_steps = 0

    def count(function):
        def step(*arguments, **options):
            nonlocal n_steps
            if n_steps == at:
                raise KilledError
            n_steps += 1
            return function(*arguments, **options)

        return step

    with monkeypatch.context() as patch, contextlib.suppress(KilledError):
        patch.setattr(mirrors, "upload", count(mirrors.upload))
        patch.setattr(type(remote), "unlink", count(type(remote).unlink))
        patch.setattr(mirrors, "write_text_atomically", count(mirrors.write_text_atomically))
        mirror.push()
        assert at >= n_steps
    local = Mirror(remote / "f", str(tmp_path), "last").pull()
    found = {(local / name).read_text() for name in ("a", "b", "last")}
    assert found in ({"new"}, {"old"})
    assert {(remote / "f" / name).read_text() for name in ("a", "b", "last")} in ({"new"}, {"old"})
    assert found == {"new"} or at == 0
