import os

import pytest

from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.ingestion.discovery import SourceItem, list_folder
from vmnet_pipeline.ingestion.manifest import build_manifest
from vmnet_pipeline.ingestion.probing import checksum_files, probe_files
from vmnet_pipeline.media.probe import probe_media
from vmnet_pipeline.types import MediaInfo, StreamInfo


class CountingProbe:
    """Tells of every file that is opened; `bad` files fail with their name as reason."""

    def __init__(self):
        self.paths = []

    def __call__(self, path):
        self.paths.append(path)
        name = os.path.basename(path)  # noqa: PTH119
        if name == "bug":
            raise ZeroDivisionError
        if name.startswith("bad-"):
            raise MediaError(name.removeprefix("bad-"), "broken")
        return MediaInfo("mp4", 2.0, 1, f"sum-{name}", StreamInfo("aac", None), None)


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "media"
    folder.mkdir()
    names = ["a", "b", "bad-undecodable_audio", "bad-unreadable", "bug"]
    for name in names:
        (folder / name).write_text(name)
    return [str(folder / name) for name in names]


def probe(files, folder, **options):
    counting = CountingProbe()
    rows = probe_files(files, counting, cache_dir=folder / "cache", **options)
    return rows.set_index("path").loc[files], [os.path.basename(path) for path in sorted(counting.paths)]  # noqa: PTH119


def test_an_unchanged_file_is_never_opened_again(files, tmp_path):
    first, opened = probe(files, tmp_path)
    assert opened == ["a", "b", "bad-undecodable_audio", "bad-unreadable", "bug"]
    assert first["checksum"].tolist()[:2] == ["sum-a", "sum-b"]
    assert first["audio_duration_s"].tolist()[:2] == [2.0, 2.0]
    assert first["video_codec"].isna().all()
    # what may be different next time is tried again, what lies in the file is not
    second, opened = probe(files, tmp_path)
    assert opened == ["bad-unreadable", "bug"]
    assert second.equals(first)


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_changed_file_is_probed_again(files, tmp_path, change):
    probe(files, tmp_path)
    if change == "size":
        stat = os.stat(files[0])  # noqa: PTH116
        with open(files[0], "a") as file:  # noqa: PTH123
            file.write("more")
        os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    else:
        os.utime(files[0], ns=(1, 1))
    assert probe(files[:3], tmp_path)[1] == ["a"]
    assert probe(files[:3], tmp_path)[1] == []


def test_another_version_of_the_decoder_looks_again(files, tmp_path, monkeypatch):
    probe(files, tmp_path)
    monkeypatch.setattr("vmnet_pipeline.ingestion.probing.version", lambda package: "999")
    assert probe(files[:3], tmp_path)[1] == ["a", "b", "bad-undecodable_audio"]


def test_a_kill_loses_little(files, tmp_path, monkeypatch):
    monkeypatch.setattr("vmnet_pipeline.ingestion.probing._FLUSH_ROWS", 1)

    class Killed(BaseException):
        pass

    def killed_at_third(path):
        if path == files[2]:
            raise Killed
        return CountingProbe()(path)

    with pytest.raises(Killed):
        probe_files(files, killed_at_third, cache_dir=tmp_path / "cache", n_workers=1)
    assert probe(files[:3], tmp_path)[1] == ["bad-undecodable_audio"]


def test_a_file_that_is_not_there_is_a_row_and_not_remembered(tmp_path):
    path = str(tmp_path / "none.mp4")
    (row,) = probe_files([path], probe_media, cache_dir=tmp_path / "cache").to_dict("records")
    assert row["reason"] == "missing_file"
    make_clip(tmp_path / "none.mp4", duration_s=1.0, width=64, height=48)
    (row,) = probe_files([path], probe_media, cache_dir=tmp_path / "cache").to_dict("records")
    assert (row["video_codec"], row["width"]) == ("h264", 64)


def test_the_manifest_from_the_cache_is_the_same(files, tmp_path):
    items = [SourceItem(str(k), path, path) for k, path in enumerate(files)]
    manifests = [build_manifest(items, CountingProbe(), cache_dir=tmp_path / "cache") for _ in range(2)]
    assert manifests[0].equals(manifests[1])
    assert manifests[0].equals(build_manifest(items, CountingProbe()))


def test_checksums_of_a_bare_folder_are_read_once(tmp_path, monkeypatch):
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.mp3").write_bytes(b"x")
    cache = tmp_path / "cache"
    first = list_folder(tmp_path / "media", None, cache_dir=cache)

    def refuse(path):
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr("vmnet_pipeline.media.probe.checksum_file", refuse)
    assert list_folder(tmp_path / "media", None, cache_dir=cache).equals(first)
    assert checksum_files([str(tmp_path / "none")], cache_dir=cache) == {str(tmp_path / "none"): ""}


def test_an_object_is_read_again_only_when_it_has_changed(remote, tmp_path, monkeypatch):
    (remote / "a.wav").write_bytes(b"one")
    paths = [f"{remote}/a.wav", f"{remote}/none.wav"]
    first = checksum_files(paths, cache_dir=tmp_path)
    assert first[paths[0]].startswith("sha256:")
    assert first[paths[1]] == ""
    with monkeypatch.context() as patch:
        patch.setattr("vmnet_pipeline.media.probe.checksum_file", lambda path: pytest.fail("read again"))
        assert checksum_files(paths[:1], cache_dir=tmp_path) == {paths[0]: first[paths[0]]}
    (remote / "a.wav").write_bytes(b"two")
    assert checksum_files(paths, cache_dir=tmp_path)[paths[0]] != first[paths[0]]
