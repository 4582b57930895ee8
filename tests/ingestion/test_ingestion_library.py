"""Items of a library: one file each, with one side."""

from __future__ import annotations

import pytest

from vmnet_pipeline.errors import IngestError
from vmnet_pipeline.ingestion.library import find_library_items

MP3, MP4 = b"ID3\x04" + bytes(60), b"\0\0\0\x18ftypisom" + bytes(60)


@pytest.fixture
def folder(tmp_path):
    for name, content in (("b.mp3", MP3), ("sub/a.mp4", MP4), ("a.mp3", MP3), ("notes.txt", b"hello")):
        path = tmp_path / "library" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "library"


def sides(items):
    return {item.id.partition("-")[0]: (bool(item.video), bool(item.audio), item.reason) for item in items}


def find(path, side="auto"):
    return find_library_items(path, side, lambda paths: set())


def test_audio_files_are_music_and_others_video(folder):
    assert sides(find(folder)) == {"a": (False, True, ""), "b": (False, True, ""), "sub": (True, False, "")}


def test_one_side_may_be_asked_for(folder):
    assert sides(find(folder, "music")) == dict.fromkeys(("a", "b", "sub"), (False, True, ""))
    found = sides(find(folder, "video"))
    assert found["sub"] == (True, False, "")
    assert found["a"] == (False, True, "no_video_file")


def test_one_file_is_a_library(folder):
    (item,) = find(folder / "b.mp3")
    assert (item.id, item.audio) == ("b", str(folder / "b.mp3"))


def test_a_table_may_have_one_column_of_paths(folder):
    table = folder / "media.csv"
    table.write_text("id,audio,licence\n1,a.mp3,CC-BY\n2,b.mp3,CC0\n3,,CC0\n")
    for place in (folder, table):
        found = find(place)
        assert [(item.id, item.video, bool(item.audio), item.reason) for item in found] == [
            ("1", "", True, ""), ("2", "", True, ""), ("3", "", False, "no_media_file"),
        ]  # fmt: skip


def test_what_is_no_library_is_told(tmp_path):
    with pytest.raises(IngestError, match="no library"):
        find(tmp_path / "none")
    with pytest.raises(IngestError, match="No media files"):
        find(tmp_path)
    (tmp_path / "media.csv").write_text("id,audio\n1,a.mp3\n1,b.mp3\n")
    with pytest.raises(IngestError, match="more than one row"):
        find(tmp_path)
