from vmnet_pipeline.ingestion import discovery as collect
from vmnet_pipeline.ingestion.listing import list_media_files
from vmnet_pipeline.storage.names import DiskNames
from vmnet_pipeline.storage.paths import (
    StoredFile,
    as_path,
)


def test_a_whole_bucket_may_be_the_media_folder(monkeypatch):
    found = dict.fromkeys(("a.mp4", "sub/b.mp4"), StoredFile(1, 0.0, "x"))
    monkeypatch.setattr("vmnet_pipeline.ingestion.listing.list_files", lambda folder, recursive: found)
    bucket = as_path("s3://bucket")
    paths = list_media_files(bucket, lambda doubtful: set(doubtful))
    assert paths == ["s3://bucket/a.mp4", "s3://bucket/sub/b.mp4"]
    assert collect.name_files(paths, bucket) == ["a", "sub/b"]
    assert collect.resolve_name(bucket, "x\\a.mp4", DiskNames()) == "s3://bucket/x/a.mp4"
