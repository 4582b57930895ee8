"""Places in an object store, on the one that fsspec keeps in memory."""

import contextlib
import json
import os
import pickle
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from vmnet_pipeline.datasets import FeatureStoreDataset, PackedPairsDataset
from vmnet_pipeline.errors import FeatureStoreError, IngestError, StorageError
from vmnet_pipeline.extraction.planning import plan_extraction
from vmnet_pipeline.features.maintenance import collect_garbage, describe_store, drop_broken, verify_store
from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow, FeatureStore
from vmnet_pipeline.ingestion import discovery as collect
from vmnet_pipeline.ingestion.discovery import find_items
from vmnet_pipeline.ingestion.ids import name_collection
from vmnet_pipeline.ingestion.listing import list_media_files
from vmnet_pipeline.ingestion.probing import checksum_files
from vmnet_pipeline.ingestion.splits import Split, find_user_split
from vmnet_pipeline.pairs.packing import FeatureSide, plan_pairs
from vmnet_pipeline.params import IngestParams
from vmnet_pipeline.prefetch import run_ahead
from vmnet_pipeline.storage import leases as claims
from vmnet_pipeline.storage import locks
from vmnet_pipeline.storage import mirror as mirrors
from vmnet_pipeline.storage.atomic import replace_atomically, write_text_atomically
from vmnet_pipeline.storage.locks import lock_run, share_writing
from vmnet_pipeline.storage.mirror import Mirror
from vmnet_pipeline.storage.names import DiskNames
from vmnet_pipeline.storage.paths import (
    StoredFile,
    as_path,
    configure_storage,
    copy_to_local,
    get_configuration,
    list_files,
    local_copy,
    name_local,
)
from vmnet_pipeline.storage.row_log import RowLog
from vmnet_pipeline.types import Fingerprint, MediaItem


@pytest.fixture
def place():
    """A folder that no other test knows."""
    return as_path(f"memory://bucket-{uuid.uuid4().hex}/project")


# --- places


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/a", "file:///etc/passwd", "ftp://a/b", "s3://a::http://b", "zip://a"]
)
def test_only_object_stores_are_taken(url):
    with pytest.raises(StorageError, match="cannot be used"):
        as_path(url)


def test_a_url_with_a_password_is_refused_without_repeating_it():
    with pytest.raises(StorageError, match=r"credentials\.yml") as caught:
        as_path("s3://key:hush@bucket/media")
    assert "hush" not in str(caught.value)


def test_credentials_are_in_no_text_of_a_path():
    path = as_path("memory://bucket/a", {"secret": "hush"}) / "b.npy"
    assert path.storage_options == {"use_listings_cache": False, "secret": "hush"}
    dataset = FeatureStoreDataset(filepath="memory://bucket/a", credentials={"secret": "hush"})
    for thing in (
        str(path),
        repr(path),
        repr(FeatureStore(path)),
        str(dataset),
        repr(dataset),
        str(dataset._describe()),
    ):
        assert "hush" not in thing
        assert "bucket/a" in thing


def test_configured_options_reach_every_file_system_and_are_told_to_other_processes():
    import fsspec
    import fsspec.config

    try:
        configure_storage({"gs": {"project": "own"}})
        assert fsspec.config.conf["gs"] == {"project": "own"}
        assert get_configuration()["gs"] == {"project": "own"}
    finally:
        del fsspec.config.conf["gs"]
    for wrong in ({"s3": "key"}, {"http": {}}, {"key": "hush"}):
        with pytest.raises(StorageError, match=r"credentials\.yml") as caught:
            configure_storage(wrong)
        assert "hush" not in str(caught.value)


def test_what_cannot_be_remote_has_a_local_place(tmp_path):
    assert name_local("s3://bucket/a/b", "cache") == "cache/s3/bucket/a/b"
    assert name_local(tmp_path / "a", "cache") == str(tmp_path / "a")


def test_collections_of_two_buckets_differ():
    names = {name_collection(url) for url in ("s3://one/clips", "s3://two/clips", "s3://two/clips/media.csv")}
    assert len(names) == 3
    assert all(name.startswith("clips-") for name in names)
    assert name_collection("s3://one/clips/") == name_collection("s3://one/clips")


def test_a_url_stays_one_in_the_parameters(tmp_path):
    assert IngestParams(media_dir="s3://bucket/media").media_dir == "s3://bucket/media"
    assert IngestParams(media_dir=tmp_path).media_dir == str(tmp_path)


# --- files


def test_a_file_appears_whole_or_not_at_all(place):
    write_text_atomically(place / "a.txt", "old")
    with pytest.raises(RuntimeError), replace_atomically(place / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (place / "a.txt").read_text() == "old"
    assert list(list_files(place)) == ["a.txt"]


def test_listing_tells_paths_sizes_and_versions(place):
    assert list_files(place) == {}
    (place / "a.txt").write_bytes(b"123")
    (place / "sub/b.txt").write_bytes(b"1")
    assert list(list_files(place)) == ["a.txt"]
    assert {name: found.size_bytes for name, found in list_files(place, recursive=True).items()} == {
        "a.txt": 3,
        "sub/b.txt": 1,
    }
    before = list_files(place)["a.txt"].version
    (place / "a.txt").write_bytes(b"456")
    assert list_files(place)["a.txt"].version != before


def test_an_object_whose_name_leads_out_of_its_folder_is_not_copied(place, tmp_path):
    (place / "ok.txt").write_bytes(b"1")
    (place / "sub/../../../evil.txt").write_bytes(b"1")
    assert list(list_files(place, recursive=True)) == ["ok.txt"]
    mirror = Mirror(place, str(tmp_path / "deep/cache"), "ok.txt")
    mirror.pull()
    with local_copy(place) as local:
        assert [path.name for path in local.rglob("*")] == ["ok.txt"]
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_local_copy_of_a_folder_ends_with_its_block(place):
    (place / "model/sub/b.txt").write_bytes(b"1")
    with local_copy(place / "model") as local:
        assert (local / "sub/b.txt").read_bytes() == b"1"
    assert not local.exists()


def test_a_mirror_fetches_only_what_has_changed(place, tmp_path):
    mine, yours = (Mirror(place, str(tmp_path / name), "last.json") for name in ("mine", "yours"))
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


def test_a_folder_is_fetched_once_for_all_who_want_it_at_once(place, tmp_path, monkeypatch):
    for name in ("a.npy", "last.json"):
        (place / name).write_text("one")
    copied = []

    def copy_slowly(source, local):
        copied.append(local.name)
        time.sleep(0.05)
        copy_to_local(source, local)

    monkeypatch.setattr("vmnet_pipeline.storage.mirror.copy_to_local", copy_slowly)
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: Mirror(place, str(tmp_path), "last.json").pull(), range(4)))
    (folder,) = folders
    assert [(folder / name).read_text() for name in ("a.npy", "last.json")] == ["one", "one"]
    assert copied == ["a.npy", "last.json"]


def test_a_folder_that_is_half_written_is_absent(place, tmp_path, monkeypatch):
    mirror = Mirror(place, str(tmp_path / "cache"), "last.json")
    mirror.local.mkdir(parents=True)
    for name in ("a.npy", "last.json"):
        (mirror.local / name).write_text("one")
    mirror.push()

    def fail(local, target):
        raise OSError("gone")

    monkeypatch.setattr("vmnet_pipeline.storage.mirror.upload", fail)
    with pytest.raises(OSError, match="gone"):
        mirror.push()
    assert not Mirror(place, str(tmp_path / "other"), "last.json").exists()


# --- rows


COLUMNS = {"id": "string", "n": "int64"}


def test_rows_of_several_writers_are_read_oldest_first_and_compacted(place):
    first, second = RowLog(place, COLUMNS, writer="a"), RowLog(place, COLUMNS, writer="a-1")
    for n in range(3):
        first.append([{"id": "x", "n": n}])
    second.append([{"id": "y", "n": 7}])
    RowLog(place, COLUMNS, writer="a").append([{"id": "z", "n": 9}])
    first.sync()
    assert len(list_files(place)) == 3
    assert RowLog(place, COLUMNS).read().to_pylist()[:3] == [{"id": "x", "n": n} for n in range(3)]
    assert [row["id"] for row in first.read_own().to_pylist()] == ["x", "x", "x", "z"]
    log = RowLog(place, COLUMNS)
    log.compact(log.read())
    assert list(list_files(place)) == ["rows.parquet"]
    assert len(log.read()) == 5
    assert log.is_compact()


def test_a_part_does_not_grow_for_ever(place, monkeypatch):
    monkeypatch.setattr("vmnet_pipeline.storage.row_log._PART_ROWS", 2)
    log = RowLog(place, COLUMNS)
    for n in range(5):
        log.append([{"id": "x", "n": n}])
    assert len(list_files(place)) == 3
    assert sorted(log.read()["n"].to_pylist()) == list(range(5))


# --- feature store


def make_result(item_id, source, value=1.0):
    return FeatureResult(FeatureRow(item_id, "done", source), np.full((2, 3), value, np.float32))


def write(place, *results):
    FeatureStore(place).write(FeatureChunk(Fingerprint("toy"), results))


def test_a_store_keeps_features_and_says_when_it_is_complete(place):
    dataset = FeatureStoreDataset(filepath=str(place))
    assert dataset.load().fingerprint() is None
    write(place, make_result("a", "s1"), FeatureResult(FeatureRow("b", "failed", "s2", reason="x"), None))
    assert not dataset.exists()
    store = dataset.load()
    assert store.done_ids() == ["a"]
    assert store.load("a").tolist() == np.ones((2, 3)).tolist()
    with pytest.raises(FeatureStoreError, match="other settings"):
        store.check_fingerprint(Fingerprint("other"))
    dataset.confirm()
    assert dataset.exists()
    assert set(list_files(place / "_index")) == {"complete.json", "fingerprint.json", "rows.parquet"}
    store.clear_complete()
    store.clear_complete()
    assert not dataset.exists()


def test_swapped_names_adopt_each_others_features_and_a_lost_file_is_made_again(place):
    write(place, make_result("a", "s1", 1.0), make_result("b", "s2", 2.0), make_result("c", "s3"))
    (place / "c.npy").unlink()
    items = [MediaItem("a", "", "s2"), MediaItem("b", "", "s1"), MediaItem("c", "", "s3"), MediaItem("d", "", "s4")]
    plan = plan_extraction(items, FeatureStore(place))
    assert [item.id for item in plan.missing] == ["c", "d"]
    assert plan.n_adopted == 2
    store = FeatureStore(place)
    assert (store.load("a")[0, 0], store.load("b")[0, 0]) == (2.0, 1.0)


def test_a_store_is_looked_after(place):
    write(place, make_result("a", "s1"), make_result("b", "s2"), make_result("c", "s3"))
    (place / "b.npy").write_bytes(b"damaged")
    (place / "c.npy").unlink()
    (place / "orphan.npy").write_bytes(b"1")
    store = FeatureStore(place)
    assert describe_store(store).n_done == 3
    found = verify_store(store)
    assert (found.damaged, found.missing) == (("b",), ("c",))
    assert drop_broken(store, ["a", "b", "c"]) == 2
    collect_garbage(store)
    assert list(list_files(place)) == ["a.npy"]


def test_a_checkpoint_is_opened(place):
    from vmnet_pipeline.inference.embedder import open_checkpoint
    from vmnet_pipeline.models.checkpoints import Checkpoint, save_checkpoint
    from vmnet_pipeline.models.factory import build_model

    config = {
        "music_tower": "musicnn", "video_tower": "musicnn", "music_shape": [4], "video_shape": [4],
        "embedding_dim": 8, "dropout": 0.1, "standardise": False,
    }  # fmt: skip
    tensors = dict(build_model(**config).state_dict())
    save_checkpoint(place / "vmnet_musicnn/checkpoint", Checkpoint(model_config=config, tensors=tensors))
    loaded = open_checkpoint(str(place / "vmnet_musicnn"))
    assert all(tensors[name].equal(tensor) for name, tensor in loaded.tensors.items())


def test_a_row_follows_its_file_however_many_are_on_their_way(place):
    store, reader = FeatureStore(place), FeatureStore(place)
    results = [make_result(f"{k:02}", f"s{k}") for k in range(20)]
    ids = []
    for row in store.add_all(iter(results)):
        ids.append(row.id)
        reader.reload()
        assert reader.done_ids() == ids
        assert reader.is_whole(row.id, row.checksum)
    assert ids == [f"{k:02}" for k in range(20)]


def test_requests_overlap_and_keep_their_order_and_their_errors():
    together = threading.Barrier(4)

    def call(item):
        together.wait(timeout=30)  # breaks unless four run at the same time
        if item == 5:
            raise ValueError("five")
        return item

    found = list(run_ahead(call, range(8), 4))
    assert [get() for get in found[:5]] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        found[5]()
    assert [get() for get in run_ahead(lambda item: item, [1, 2], 0)] == [1, 2]


def test_a_handle_can_be_sent_to_another_process(place):
    write(place, make_result("a", "s1"))
    folder = pickle.loads(pickle.dumps(FeatureStore(place).folder.absolute()))
    assert FeatureStore(folder).done_ids() == ["a"]


def test_packed_pairs_are_mapped_from_a_local_copy(place, tmp_path):
    write(place / "store", make_result("a", "s1"))
    side = FeatureSide("toy", FeatureStore(place / "store"), lambda feature: feature[0])
    pairs = plan_pairs(side, side, Split(("a",), (), ()), {})
    here = {"filepath": str(place / "pairs"), "cache_dir": str(tmp_path / "cache")}
    assert not PackedPairsDataset(**here).exists()
    PackedPairsDataset(**here).save(pairs)
    elsewhere = PackedPairsDataset(**{**here, "cache_dir": str(tmp_path / "elsewhere")})
    assert elsewhere.exists()
    loaded = elsewhere.load()
    assert loaded.ids == ("a",)
    assert isinstance(loaded.music, np.memmap)
    assert str(tmp_path / "elsewhere") in str(loaded.music.filename)


# --- claims


def test_one_run_at_a_time(place):
    with (
        lock_run(place),
        pytest.raises(FeatureStoreError, match=f"process {os.getpid()} on .*everything finished is kept"),
        lock_run(place),
    ):
        pass
    with lock_run(place):
        pass
    assert list_files(place / "claims") == {}


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
def test_workers_of_an_array_job_share_a_store(place, first, second, may):
    with lock_run(place, first):
        if may:
            with lock_run(place, second):
                pass
        else:
            with pytest.raises(FeatureStoreError, match="being worked on"), lock_run(place, second):
                pass


def test_a_claim_that_is_not_renewed_counts_for_nothing(place, monkeypatch):
    other = {"pid": 1, "host": "far", "started": "then", "machine": "another"}
    (place / "claims/run.0.json").write_text(json.dumps(other))
    with pytest.raises(FeatureStoreError, match="process 1 on far, started then"), lock_run(place):
        pass
    monkeypatch.setattr(claims, "EXPIRES_S", -1.0)
    with lock_run(place):
        assert "run.0.json" not in list_files(place / "claims")


def test_a_killed_process_of_this_machine_leaves_nothing_behind(place):
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = {"pid": int(child.stdout), "host": "h", "started": "then", "machine": claims._name_machine()}
    (place / "claims/run.0.json").write_text(json.dumps(dead))
    with lock_run(place):
        pass


def test_a_run_that_lost_its_claim_ends_with_an_error(place, monkeypatch):
    monkeypatch.setattr(claims, "RENEW_S", 0.01)
    with pytest.raises(FeatureStoreError, match="another one may have begun"), lock_run(place):
        (claim,) = [thread for thread in threading.enumerate() if thread.name == "claim"]
        for name in list_files(place / "claims"):
            (place / "claims" / name).unlink()
        claim.join(timeout=30)


def test_a_new_run_waits_for_those_that_still_write(place, monkeypatch):
    monkeypatch.setattr(locks, "REMOTE_POLL_S", 0.01)
    began = threading.Event()

    def run():
        with lock_run(place):
            began.set()

    with share_writing(place):
        thread = threading.Thread(target=run)
        thread.start()
        assert not began.wait(0.3)
    assert began.wait(30)
    thread.join()


@pytest.mark.parametrize("act", [describe_store, lambda store: store.done_ids(), lambda store: store.fingerprint()])
def test_a_store_that_cannot_be_reached_says_what_to_check(place, monkeypatch, act):
    def fail(*_, **__):
        raise ConnectionError("no route")

    write(place, make_result("a", "s1"))
    for name in ("open", "read_bytes", "read_text"):
        monkeypatch.setattr(type(place), name, fail)
    with pytest.raises(StorageError, match=r"no route.*Check the name, the network"):
        act(FeatureStore(place))


def test_features_are_not_damaged_because_the_network_is_gone(place, monkeypatch):
    write(place, make_result("a", "s1"))
    store = FeatureStore(place)

    def fail_at_feature(name):
        original = getattr(type(place), name)

        def call(path, *arguments, **options):
            if path.name == "a.npy":
                raise ConnectionError("no route")
            return original(path, *arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("open", "read_bytes"):
            patch.setattr(type(place), name, fail_at_feature(name))
        for act in (verify_store, lambda store: drop_broken(store, ["a"]), lambda store: store.load("a")):
            with pytest.raises(StorageError, match=r"no route.*Check the name, the network"):
                act(store)
    assert FeatureStore(place).done_ids() == ["a"]
    (place / "a.npy").unlink()
    assert not store.is_whole("a", "x")
    with pytest.raises(FeatureStoreError, match="extract again"):
        store.load("a")


# --- ingestion


def test_the_three_shapes_of_a_media_folder(place):
    for name in (
        "one/a.mp4",
        "one/sub/b.mp4",
        "one/.hidden/c.mp4",
        "one/notes.txt",
        "two/audio/x.mp3",
        "two/video/x.mp4",
    ):
        (place / name).write_bytes(b"1")
    items = find_items(str(place / "one"))
    assert [(item.id, item.video) for item in items] == [
        ("a", f"{place}/one/a.mp4"),
        (items[1].id, f"{place}/one/sub/b.mp4"),
    ]
    (pair,) = find_items(str(place / "two"))
    assert (pair.id, pair.audio) == ("x", f"{place}/two/audio/x.mp3")
    (place / "three/media.csv").write_text("id,video\n007,a.mp4\n8,s3://elsewhere/b.mp4\n")
    items = find_items(str(place / "three"))
    assert [(item.id, item.video) for item in items] == [
        ("007", f"{place}/three/a.mp4"),
        ("8", "s3://elsewhere/b.mp4"),
    ]
    with pytest.raises(IngestError, match="no folder"):
        find_items(str(place / "four"))


def test_a_whole_bucket_may_be_the_media_folder(monkeypatch):
    found = dict.fromkeys(("a.mp4", "sub/b.mp4"), StoredFile(1, 0.0, "x"))
    monkeypatch.setattr("vmnet_pipeline.ingestion.listing.list_files", lambda folder, recursive: found)
    bucket = as_path("s3://bucket")
    paths = list_media_files(bucket, lambda doubtful: set(doubtful))
    assert paths == ["s3://bucket/a.mp4", "s3://bucket/sub/b.mp4"]
    assert collect._name_files(paths, bucket) == ["a", "sub/b"]
    assert collect._resolve(bucket, "x\\a.mp4", DiskNames()) == "s3://bucket/x/a.mp4"


def test_a_split_of_ones_own_may_lie_beside_the_media(place):
    (place / "train.csv").write_text("id\n007\n")
    (place / "test.csv").write_text("id\na\n")
    assert find_user_split(None, str(place)) == Split(("007",), (), ("a",))


def test_an_object_is_read_again_only_when_it_has_changed(place, tmp_path, monkeypatch):
    (place / "a.wav").write_bytes(b"one")
    paths = [f"{place}/a.wav", f"{place}/none.wav"]
    first = checksum_files(paths, cache_dir=tmp_path)
    assert first[paths[0]].startswith("sha256:")
    assert first[paths[1]] == ""
    with monkeypatch.context() as patch:
        patch.setattr("vmnet_pipeline.media.probe.checksum_file", lambda path: pytest.fail("read again"))
        assert checksum_files(paths[:1], cache_dir=tmp_path) == {paths[0]: first[paths[0]]}
    (place / "a.wav").write_bytes(b"two")
    assert checksum_files(paths, cache_dir=tmp_path)[paths[0]] != first[paths[0]]


def test_a_manifest_is_read_and_written(place):
    from vmnet_pipeline.datasets import MediaManifestDataset
    from vmnet_pipeline.ingestion.discovery import SourceItem
    from vmnet_pipeline.ingestion.manifest import build_manifest

    dataset = MediaManifestDataset(filepath=str(place / "manifest.parquet"))
    with pytest.raises(Exception, match="no manifest"):
        dataset.load()
    manifest = build_manifest([SourceItem("007", "", "", "", "no_video_file", "x")], lambda path: None)
    dataset.save(manifest)
    pd.testing.assert_frame_equal(dataset.load(), manifest)


class KilledError(BaseException):
    """As if the process ended here; unlike a real end it runs `finally`, which the mirror has none of."""


@pytest.mark.parametrize("at", range(7))
def test_a_push_that_was_killed_is_completed_from_the_copy(place, tmp_path, monkeypatch, at):
    def fill(text):
        for name in ("a", "b", "last"):
            (mirror.local / name).write_text(text)

    mirror = Mirror(place / "f", str(tmp_path), "last")
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
        patch.setattr(type(place), "unlink", count(type(place).unlink))
        patch.setattr(mirrors, "write_text_atomically", count(mirrors.write_text_atomically))
        mirror.push()
        assert at >= n_steps
    local = Mirror(place / "f", str(tmp_path), "last").pull()
    found = {(local / name).read_text() for name in ("a", "b", "last")}
    assert found in ({"new"}, {"old"})
    assert {(place / "f" / name).read_text() for name in ("a", "b", "last")} in ({"new"}, {"old"})
    assert found == {"new"} or at == 0
