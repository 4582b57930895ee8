import json
import pickle

import numpy as np
import pytest

from tiny_features import make_feature, write_features
from vmnet_pipeline.datasets import FeatureStoreDataset
from vmnet_pipeline.errors import FeatureStoreError, StorageError
from vmnet_pipeline.features.maintenance import describe_store, drop_broken, verify_store
from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow, FeatureStore
from vmnet_pipeline.storage.checksummed import hash_file
from vmnet_pipeline.storage.paths import (
    list_files,
)
from vmnet_pipeline.types import Fingerprint

PRINT = Fingerprint("toy", {"width": 3})


def make_result(item_id, value=1.0, checksum="sha256:a"):
    return FeatureResult(FeatureRow(item_id, "done", checksum, n_valid=2), np.full((2, 3), value, np.float32))


def make_failure(item_id, reason="undecodable_audio", checksum="sha256:a"):
    return FeatureResult(FeatureRow(item_id, "failed", checksum, reason=reason, error="bad"), None)


def write(folder, *results, fingerprint=PRINT):
    FeatureStore(folder).write(FeatureChunk(fingerprint, results))


def test_what_is_written_is_read_back_with_its_row(tmp_path):
    write(tmp_path, make_result("007", 5.0), make_failure("bad"))
    store = FeatureStore(tmp_path)
    np.testing.assert_array_equal(store.load("007"), np.full((2, 3), 5.0, np.float32))
    assert store.rows["007"].shape == (2, 3)
    assert store.rows["007"].dtype == "float32"
    assert store.rows["bad"].reason == "undecodable_audio"
    assert store.done_ids() == ["007"]
    assert store.fingerprint() == PRINT
    # the contract with users: a plain npy file by the item's name
    assert np.load(tmp_path / "007.npy").shape == (2, 3)


def test_an_absent_folder_is_an_empty_store(tmp_path):
    store = FeatureStore(tmp_path / "none")
    assert store.rows == {}
    assert store.fingerprint() is None
    assert not store.is_complete()
    with pytest.raises(FeatureStoreError, match="no feature for item 'a'"):
        store.load("a")


def test_another_fingerprint_is_refused_and_the_difference_named(tmp_path):
    write(tmp_path, make_result("a"))
    with pytest.raises(FeatureStoreError, match=r"width 3, not 4.*save_dir"):
        write(tmp_path, make_result("b"), fingerprint=Fingerprint("toy", {"width": 4}))
    assert FeatureStore(tmp_path).done_ids() == ["a"]


def test_a_row_that_a_killed_writer_left_unfinished_is_not_counted(tmp_path):
    write(tmp_path, make_result("a"), make_result("b"))
    (rows,) = (tmp_path / "_index").glob("rows-*")
    rows.write_text(rows.read_text()[:-20])
    assert FeatureStore(tmp_path).done_ids() == ["a"]


def test_the_latest_row_counts_and_compacting_keeps_it(tmp_path):
    write(tmp_path, make_failure("a"))
    write(tmp_path, make_result("a", 2.0))
    write(tmp_path, make_result("b"))
    before = FeatureStore(tmp_path).rows
    assert before["a"].status == "done"
    FeatureStore(tmp_path).compact()
    assert [path.name for path in (tmp_path / "_index").glob("rows*")] == ["rows.parquet"]
    assert FeatureStore(tmp_path).rows == before


def test_a_failure_does_not_take_back_what_is_done_from_the_same_file(tmp_path):
    write(tmp_path, make_result("a"))
    write(tmp_path, make_failure("a"))
    assert FeatureStore(tmp_path).rows["a"].status == "done"


def test_a_media_file_that_changed_to_a_broken_one_is_failed(tmp_path):
    write(tmp_path, make_result("a"))
    write(tmp_path, make_failure("a", checksum="sha256:changed"))
    assert FeatureStore(tmp_path).rows["a"].status == "failed"
    assert FeatureStore(tmp_path).rows["a"].source_checksum == "sha256:changed"


def test_a_damaged_feature_is_named(tmp_path):
    write(tmp_path, make_result("a"))
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY garbage")
    with pytest.raises(FeatureStoreError, match=r"a\.npy cannot be read"):
        FeatureStore(tmp_path).load("a")


def test_a_pickle_in_a_feature_file_is_never_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    checksum = hash_file(tmp_path / "a.npy")  # whoever can write the file can write its row, too
    FeatureStore(tmp_path).add_rows([FeatureRow("a", "done", "sha256:a", checksum=checksum)])
    with pytest.raises(FeatureStoreError, match="it holds object, not numbers"):
        FeatureStore(tmp_path).load("a")


def test_the_checksum_of_a_row_is_that_of_the_file(tmp_path):
    write(tmp_path, make_result("a"))
    assert FeatureStore(tmp_path).rows["a"].checksum == hash_file(tmp_path / "a.npy")


def test_a_damaged_fingerprint_is_an_error_that_says_so(tmp_path):
    write(tmp_path, make_result("a"))
    path = tmp_path / "_index" / "fingerprint.json"
    path.write_text(path.read_text().replace('"backend": "', '"backend": "x'))
    with pytest.raises(FeatureStoreError, match=r"fingerprint\.json is damaged .*checksum"):
        FeatureStore(tmp_path).fingerprint()
    path.write_text(json.dumps({"x": 1}))
    with pytest.raises(FeatureStoreError, match="damaged"):
        FeatureStore(tmp_path).fingerprint()


def test_a_store_keeps_features_and_says_when_it_is_complete(remote):
    dataset = FeatureStoreDataset(filepath=str(remote))
    assert dataset.load().fingerprint() is None
    write_features(remote, make_feature("a", "s1"), FeatureResult(FeatureRow("b", "failed", "s2", reason="x"), None))
    assert not dataset.exists()
    store = dataset.load()
    assert store.done_ids() == ["a"]
    assert store.load("a").tolist() == np.ones((2, 3)).tolist()
    with pytest.raises(FeatureStoreError, match="other settings"):
        store.check_fingerprint(Fingerprint("other"))
    dataset.confirm()
    assert dataset.exists()
    assert set(list_files(remote / "_index")) == {"complete.json", "fingerprint.json", "rows.parquet"}
    store.clear_complete()
    store.clear_complete()
    assert not dataset.exists()


def test_a_row_follows_its_file_however_many_are_on_their_way(remote):
    store, reader = FeatureStore(remote), FeatureStore(remote)
    results = [make_feature(f"{k:02}", f"s{k}") for k in range(20)]
    ids = []
    for row in store.add_all(iter(results)):
        ids.append(row.id)
        reader.reload()
        assert reader.done_ids() == ids
        assert reader.is_whole(row.id, row.checksum)
    assert ids == [f"{k:02}" for k in range(20)]


def test_a_handle_can_be_sent_to_another_process(remote):
    write_features(remote, make_feature("a", "s1"))
    folder = pickle.loads(pickle.dumps(FeatureStore(remote).folder.absolute()))
    assert FeatureStore(folder).done_ids() == ["a"]


@pytest.mark.parametrize("act", [describe_store, lambda store: store.done_ids(), lambda store: store.fingerprint()])
def test_a_store_that_cannot_be_reached_says_what_to_check(remote, monkeypatch, act):
    def fail(*_, **__):
        raise ConnectionError("no route")

    write_features(remote, make_feature("a", "s1"))
    for name in ("open", "read_bytes", "read_text"):
        monkeypatch.setattr(type(remote), name, fail)
    with pytest.raises(StorageError, match=r"no route.*Check the name, the network"):
        act(FeatureStore(remote))


def test_features_are_not_damaged_because_the_network_is_gone(remote, monkeypatch):
    write_features(remote, make_feature("a", "s1"))
    store = FeatureStore(remote)

    def fail_at_feature(name):
        original = getattr(type(remote), name)

        def call(path, *arguments, **options):
            if path.name == "a.npy":
                raise ConnectionError("no route")
            return original(path, *arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("open", "read_bytes"):
            patch.setattr(type(remote), name, fail_at_feature(name))
        for act in (verify_store, lambda store: drop_broken(store, ["a"]), lambda store: store.load("a")):
            with pytest.raises(StorageError, match=r"no route.*Check the name, the network"):
                act(store)
    assert FeatureStore(remote).done_ids() == ["a"]
    (remote / "a.npy").unlink()
    assert not store.is_whole("a", "x")
    with pytest.raises(FeatureStoreError, match="extract again"):
        store.load("a")
