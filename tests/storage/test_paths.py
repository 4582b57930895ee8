"""Places in an object store, on the one that fsspec keeps in memory."""

import pytest

from vmnet_pipeline.datasets import FeatureStoreDataset
from vmnet_pipeline.errors import StorageError
from vmnet_pipeline.features.store import FeatureStore
from vmnet_pipeline.storage.paths import (
    as_path,
    configure_storage,
    get_configuration,
    list_files,
    local_copy,
    name_local,
)


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


def test_listing_tells_paths_sizes_and_versions(remote):
    assert list_files(remote) == {}
    (remote / "a.txt").write_bytes(b"123")
    (remote / "sub/b.txt").write_bytes(b"1")
    assert list(list_files(remote)) == ["a.txt"]
    assert {name: found.size_bytes for name, found in list_files(remote, recursive=True).items()} == {
        "a.txt": 3,
        "sub/b.txt": 1,
    }
    before = list_files(remote)["a.txt"].version
    (remote / "a.txt").write_bytes(b"456")
    assert list_files(remote)["a.txt"].version != before


def test_a_local_copy_of_a_folder_ends_with_its_block(remote):
    (remote / "model/sub/b.txt").write_bytes(b"1")
    with local_copy(remote / "model") as local:
        assert (local / "sub/b.txt").read_bytes() == b"1"
    assert not local.exists()
