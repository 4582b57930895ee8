import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.errors import IngestError, MediaError
from vmnet_pipeline.ingestion.discovery import find_items, list_folder
from vmnet_pipeline.ingestion.manifest import build_manifest, check_usable, describe_counts, summarise_manifest
from vmnet_pipeline.ingestion.schemas import MANIFEST_COLUMNS
from vmnet_pipeline.ingestion.tables import read_ids
from vmnet_pipeline.media.probe import probe_media
from vmnet_pipeline.params import IngestParams
from vmnet_pipeline.pipelines.ingest.nodes import ingest_media


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """Real files: two good videos, a silent one, a sound, and two copies."""
    folder = tmp_path_factory.mktemp("clips")
    make_clip(folder / "a.mp4", seed=1, duration_s=1.0, width=64, height=48)
    make_clip(folder / "b.webm", seed=2, duration_s=1.0, width=64, height=48)
    make_clip(folder / "silent.mp4", seed=3, duration_s=1.0, width=64, height=48, with_audio=False)
    make_clip(folder / "song.ogg", seed=4, duration_s=1.0, with_video=False)
    (folder / "sub").mkdir()
    (folder / "sub/a copy.mp4").write_bytes((folder / "a.mp4").read_bytes())
    (folder / "garbage.mp4").write_bytes(b"no video at all" * 100)
    (folder / "empty.mkv").write_bytes(b"")
    (folder / "notes.txt").write_text("not media")
    return folder


def test_a_folder_of_videos_with_files_that_cannot_be_used(clip_folder):
    manifest = build_manifest(find_items(clip_folder), probe_media)
    assert dict(manifest.dtypes.astype(str)) == MANIFEST_COLUMNS
    rows = manifest.set_index("id")
    assert rows.loc["a", "status"] == "ok"
    assert rows.loc["b", "status"] == "ok"
    assert rows.loc["a", "video_codec"] == "h264"
    assert rows.loc["b", "audio_codec"] == "opus"
    assert abs(rows.loc["a", "video_duration_s"] - 1.0) < 0.2
    assert rows.loc["silent", "reason"] == "no_audio_stream"
    assert rows.loc["song", "reason"] == "no_video_file"
    assert rows.loc["garbage", "reason"] == "unknown_format"
    assert rows.loc["empty", "reason"] == "empty_file"
    (copy,) = [item_id for item_id in rows.index if item_id.startswith("sub")]
    assert rows.loc[copy, ["status", "duplicate_of", "group"]].tolist() == ["duplicate", "a", "a"]
    summary = summarise_manifest(manifest)
    assert (summary["n_items"], summary["n_usable"], summary["n_duplicates"], summary["n_failed"]) == (7, 2, 1, 4)
    assert summary["failures_by_reason"]["no_audio_stream"] == 1
    assert describe_counts(summary) == (
        "7 items: 2 usable in 2 groups, 1 duplicates, 4 failed "
        "(1 empty_file, 1 no_audio_stream, 1 no_video_file, 1 unknown_format)"
    )


def test_ids_stay_when_the_folder_grows(tmp_path):
    touch(tmp_path / "007.mp4", tmp_path / "x/y.mp4")
    before = {item.video: item.id for item in find_items(tmp_path)}
    touch(tmp_path / "006.mp4", tmp_path / "x/z.mp4")
    after = {item.video: item.id for item in find_items(tmp_path)}
    assert before.items() <= after.items()
    assert after[str(tmp_path / "007.mp4")] == "007"


def test_files_that_differ_in_their_suffix_alone_are_two_items(tmp_path):
    touch(tmp_path / "a.mp4", tmp_path / "a.webm", tmp_path / "b.mp4")
    assert sorted(item.id for item in find_items(tmp_path)) == ["a.mp4", "a.webm", "b"]


def test_audio_and_video_folders_are_matched_by_relative_path(tmp_path):
    touch(tmp_path / "audio/1.mp3", tmp_path / "audio/s/2.flac", tmp_path / "audio/3.wav")
    touch(tmp_path / "video/1.mp4", tmp_path / "video/s/2.MKV", tmp_path / "video/4.webm")
    items = {item.id: item for item in find_items(tmp_path)}
    assert items["1"].audio.endswith("audio/1.mp3")
    assert items["1"].video.endswith("video/1.mp4")
    (nested,) = [item for item_id, item in items.items() if item_id.startswith("s-2")]
    assert nested.reason == ""
    assert items["3"].reason == "no_video_file"
    assert items["4"].reason == "no_audio_file"


def test_two_files_for_one_side_of_an_item_are_an_error_that_names_both(tmp_path):
    touch(tmp_path / "audio/1.mp3", tmp_path / "audio/1.wav", tmp_path / "video/1.mp4")
    with pytest.raises(IngestError, match=r"1\.mp3 and .*1\.wav.*media\.csv"):
        find_items(tmp_path)


@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_media_csv_names_the_pairs(tmp_path, separator):
    rows = [
        ["id", "video", "audio", "group"],
        ["007", "v/a.mp4", "", "g"],
        ["b", "v/b.mp4", "s/b.mp3", ""],
        ["c", "", "", ""],
    ]
    (tmp_path / "media.csv").write_text("\n".join(separator.join(row) for row in rows), encoding="utf-8-sig")
    touch(tmp_path / "other.mp4")
    items = {item.id: item for item in find_items(tmp_path)}
    assert list(items) == ["007", "b", "c"]
    assert items["007"].audio == items["007"].video == str(tmp_path / "v/a.mp4")
    assert items["007"].group == "g"
    assert items["b"].audio == str(tmp_path / "s/b.mp3")
    assert items["c"].reason == "no_video_file"
    assert find_items(tmp_path / "media.csv") == list(items.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,video\na,1.mp4\na,2.mp4\n", "more than one row with the id a"),
        ("id,video\n\u00e9,1.mp4\ne\u0301,2.mp4\n", "more than one row with the id \u00e9"),
        ("id,video\n,1.mp4\n", r"has 1 row\(s\) without an id"),
        ("name,video\na,1.mp4\n", "has no column id"),
        ("id,video\n", "has no rows"),
        ("", "has no column"),
        ('id,video\n"a,1.mp4\n', "cannot be read as a csv file"),
    ],
)
def test_faults_of_a_media_csv(tmp_path, text, message):
    (tmp_path / "media.csv").write_text(text)
    with pytest.raises(IngestError, match=message):
        find_items(tmp_path)


def test_a_media_csv_that_is_no_text(tmp_path):
    (tmp_path / "media.csv").write_bytes(b"id,video\n\x00\x01\xff,1.mp4\n")
    with pytest.raises(IngestError, match="it is not text"):
        find_items(tmp_path)


def test_wrong_and_empty_folders_say_what_to_do(tmp_path):
    with pytest.raises(IngestError, match=r"There is no folder .*none.*media_dir=FOLDER"):
        find_items(tmp_path / "none")
    with pytest.raises(IngestError, match="No media files in"):
        find_items(tmp_path)
    touch(tmp_path / "a.mp4")
    with pytest.raises(IngestError, match="is a file"):
        find_items(tmp_path / "a.mp4")
    with pytest.raises(IngestError, match="kedro demo-media"):
        find_items(tmp_path / "data/01_raw/demo")


def test_hidden_files_are_left_out_and_counted(tmp_path, caplog):
    caplog.set_level("INFO")
    touch(tmp_path / "a.mp4", tmp_path / ".hidden.mp4", tmp_path / ".git/x.mp4", tmp_path / "mp4")
    assert [item.id for item in find_items(tmp_path)] == ["a"]
    assert "2 files are left out" in caplog.text
    assert "they are hidden" in caplog.text


def test_one_song_under_two_videos_ties_their_groups(tmp_path):
    from vmnet_pipeline.ingestion.discovery import SourceItem
    from vmnet_pipeline.types import MediaInfo, StreamInfo

    def probe(path):
        if path == "bug":
            raise ZeroDivisionError
        if path == "bad":
            raise MediaError("undecodable_video", "broken")
        return MediaInfo("mp4", 1.0, 1, f"sum-{path}", StreamInfo("aac", 1.0), StreamInfo("h264", 1.0))

    items = [
        SourceItem("1", "v1", "song"),
        SourceItem("2", "v2", "song", "z"),
        SourceItem("3", "v3", "other", "z"),
        SourceItem("4", "v4", "v4"),
        SourceItem("5", "bad", "x"),
        SourceItem("6", "bug", "x"),
    ]
    rows = build_manifest(items, probe).set_index("id")
    assert rows.loc["1", "group"] == rows.loc["2", "group"] == rows.loc["3", "group"]
    assert rows.loc["4", "group"] == "4"
    assert rows.loc["5", "reason"] == "undecodable_video"
    assert rows.loc["6", "reason"] == "internal_error"


def test_a_collection_of_which_nothing_can_be_used_is_an_error(clip_folder, tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"garbage")
    manifest = build_manifest(find_items(tmp_path), probe_media)
    with pytest.raises(IngestError, match=r"None of the 1 items.*1 x unknown_format"):
        check_usable(manifest, tmp_path)


def test_a_bare_folder_makes_a_manifest_of_one_side(tmp_path):
    touch(tmp_path / "a.mp3", tmp_path / "007.wav", tmp_path / "clip.mp4")
    manifest = list_folder(tmp_path, None)
    assert manifest["audio_checksum"].str.startswith("sha256:2d711642").all()
    assert (manifest["video_checksum"] == "").all()
    assert sorted(manifest["id"]) == ["007", "a", "clip"]
    assert (manifest["audio_path"] != "").all()
    assert (manifest["video_path"] == "").all()
    assert sorted(list_folder(None, tmp_path)["id"]) == ["clip"]
    with pytest.raises(IngestError, match="video_dir=FOLDER"):
        list_folder(None, tmp_path / "none")
    with pytest.raises(IngestError, match="No audio files"):
        list_folder((tmp_path / "empty").mkdir() or tmp_path / "empty", None)


def test_file_names_that_are_no_text_fail_alone(clip_folder, tmp_path):
    names = [b"good.mp4", b"bad\xff.mp4", b"new\nline.mp4", "emoji\N{GRINNING FACE}.mp4".encode()]
    for name in names:
        shutil.copy(clip_folder / "a.mp4", os.path.join(os.fsencode(tmp_path), name))  # noqa: PTH118
    os.mkfifo(tmp_path / "pipe.mp4")
    manifest = build_manifest(find_items(tmp_path), probe_media).set_index("video_path")
    (bad,) = [path for path in manifest.index if "xff" in path]
    assert manifest.loc[bad, "reason"] == "unsupported_name"
    assert manifest.loc[str(tmp_path / "pipe.mp4"), "reason"] == "not_a_file"
    assert (manifest["status"] != "failed").sum() == 3
    manifest.reset_index().to_parquet(tmp_path / "manifest.parquet")


def test_a_media_csv_in_a_folder_whose_name_is_no_text_fails_with_a_reason(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff"))
    folder.mkdir()
    (folder / "media.csv").write_text("id,video\na,a.mp4\n")
    (item,) = find_items(folder)
    assert item.reason == "unsupported_name"
    assert "not valid UTF-8" in item.error
    assert build_manifest([item], probe_media)["status"].tolist() == ["failed"]


def test_what_is_left_out_of_a_bare_folder_is_said(tmp_path, caplog):
    for name in (b"good.mp3", b"bad\xff.mp3"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    assert list_folder(tmp_path, None)["id"].tolist() == ["good"]
    assert "1 files are left out" in caplog.text


def test_addresses_that_are_refused_fail_alone(clip_folder, tmp_path):
    lines = ["id,video", f"good,{clip_folder / 'a.mp4'}", "web,http://127.0.0.1:9/x.mp4", "file,file:///etc/passwd"]
    (tmp_path / "media.csv").write_text("\n".join(lines))
    rows = build_manifest(find_items(tmp_path), probe_media).set_index("id")
    assert rows["status"].to_dict() == {"good": "ok", "web": "failed", "file": "failed"}
    assert rows.loc["web", "error"].startswith("http://127.0.0.1:9/x.mp4")


def test_a_folder_that_cannot_be_read_is_told(clip_folder, tmp_path, caplog, monkeypatch):
    (tmp_path / "closed").mkdir()
    touch(tmp_path / "open.mp4")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read everything
    assert [item.id for item in find_items(tmp_path)] == ["open"]
    assert f"{str(tmp_path / 'closed')!r} cannot be read, its files are left out: Permission denied" in caplog.text


@pytest.mark.process
def test_ingestion_reads_in_child_processes(clip_folder, tmp_path):
    manifest, summary = ingest_media(IngestParams(media_dir=str(clip_folder)), tmp_path / "cache")
    expected = build_manifest(find_items(clip_folder), probe_media)
    pd.testing.assert_frame_equal(manifest, expected)
    rule = "every item is one of its own by names without their last number"
    assert summary == {**summarise_manifest(expected), "group_rule": rule}
    (tmp_path / "slow").mkdir()
    shutil.copy(clip_folder / "a.mp4", tmp_path / "slow" / "a.mp4")
    impatient = IngestParams(media_dir=str(tmp_path / "slow"), limits={"seconds": 1e-4})
    with pytest.raises(IngestError, match=r"1 x timed_out"):
        ingest_media(impatient, tmp_path / "cache")
    patient, _ = ingest_media(IngestParams(media_dir=str(tmp_path / "slow")), tmp_path / "cache")
    assert list(patient["status"]) == ["ok"]


def test_ids_of_a_csv_are_text(tmp_path):
    (tmp_path / "train.csv").write_text("id\n007\n\n1e5\n")
    assert read_ids(tmp_path / "train.csv") == ("007", "1e5")


def test_the_three_shapes_of_a_media_folder(remote):
    for name in (
        "one/a.mp4",
        "one/sub/b.mp4",
        "one/.hidden/c.mp4",
        "one/notes.txt",
        "two/audio/x.mp3",
        "two/video/x.mp4",
    ):
        (remote / name).write_bytes(b"1")
    items = find_items(str(remote / "one"))
    assert [(item.id, item.video) for item in items] == [
        ("a", f"{remote}/one/a.mp4"),
        (items[1].id, f"{remote}/one/sub/b.mp4"),
    ]
    (pair,) = find_items(str(remote / "two"))
    assert (pair.id, pair.audio) == ("x", f"{remote}/two/audio/x.mp3")
    (remote / "three/media.csv").write_text("id,video\n007,a.mp4\n8,s3://elsewhere/b.mp4\n")
    items = find_items(str(remote / "three"))
    assert [(item.id, item.video) for item in items] == [
        ("007", f"{remote}/three/a.mp4"),
        ("8", "s3://elsewhere/b.mp4"),
    ]
    with pytest.raises(IngestError, match="no folder"):
        find_items(str(remote / "four"))
