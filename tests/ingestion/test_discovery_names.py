"""Names: how systems spell them, and what folders of two sides are called."""

import unicodedata

import pytest

from vmnet_pipeline.errors import IngestError
from vmnet_pipeline.ingestion.discovery import find_items, list_folder
from vmnet_pipeline.ingestion.ids import is_id, name_collection
from vmnet_pipeline.ingestion.manifest import build_manifest
from vmnet_pipeline.ingestion.splits import Split, find_user_split
from vmnet_pipeline.media.probe import probe_media
from vmnet_pipeline.search.item_metadata import read_extra_columns

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Déjà vu") for form in ("NFC", "NFD"))


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


# --- composed and decomposed letters


@pytest.mark.parametrize("folder", ["", "Ünïted/"])
def test_sides_from_two_systems_are_pairs(tmp_path, folder):
    audio = tmp_path / "audio" / unicodedata.normalize("NFD", folder) / f"{DECOMPOSED}.mp3"
    video = tmp_path / "video" / unicodedata.normalize("NFC", folder) / f"{COMPOSED}.mp4"
    touch(audio, video)
    (item,) = find_items(tmp_path)
    assert (item.reason, item.audio, item.video) == ("", str(audio), str(video))
    assert item.id == COMPOSED if not folder else item.id.startswith("United-Deja_vu-")


@pytest.mark.parametrize(("written", "stored"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_a_media_csv_finds_files_under_their_other_spelling(tmp_path, written, stored):
    path = tmp_path / "media" / stored / f"{stored}.mp4"
    touch(path)
    (tmp_path / "media/media.csv").write_text(f"id,video,audio\n{written},{written}/{written}.mp4,\n", encoding="utf-8")
    (item,) = find_items(tmp_path / "media")
    assert (item.id, item.video, item.audio) == (COMPOSED, str(path), str(path))


def test_the_folder_itself_is_found_and_is_one_collection(tmp_path):
    touch(tmp_path / DECOMPOSED / "a.mp4")
    (item,) = find_items(tmp_path / COMPOSED)
    assert item.video == str(tmp_path / DECOMPOSED / "a.mp4")
    assert list_folder(None, tmp_path / COMPOSED)["video_path"].tolist() == [item.video]
    names = {name_collection(str(tmp_path / spelling)) for spelling in (COMPOSED, DECOMPOSED)}
    assert len(names) == 1


def test_both_spellings_in_one_folder_are_two_items(tmp_path):
    touch(tmp_path / f"{COMPOSED}.mp4", tmp_path / f"{DECOMPOSED}.mp4")
    items = find_items(tmp_path)
    assert len({item.id for item in items}) == 2
    assert {item.video for item in items} == {str(tmp_path / f"{name}.mp4") for name in (COMPOSED, DECOMPOSED)}


# --- which names are ids


@pytest.mark.parametrize(
    "name",
    ["-aBc_1", "_x9", "a b", "日本の歌", "Ä", "x (live) [HD]", "-", "a.b.c", "007", "1e5", "x" * 200, "it's & so on"],
)
def test_names_that_are_kept(tmp_path, name):
    assert is_id(name)
    touch(tmp_path / f"{name}.mp4")
    assert [item.id for item in find_items(tmp_path)] == [name]
    assert list_folder(None, tmp_path)["id"].tolist() == [name]


def test_ids_of_videos_of_the_web_in_a_media_csv(tmp_path, caplog):
    caplog.set_level("INFO")
    ids = ["-aBcDefGhIj", "_x9_______-", "dQw4w9WgXcQ", "dQw4w9WgXcq", "../../etc/x"]
    (tmp_path / "media.csv").write_text("id,video\n" + "".join(f"{i},{n}.mp4\n" for n, i in enumerate(ids)))
    items = find_items(tmp_path)
    assert [item.id for item in items[:2]] == ids[:2]
    assert len({item.id.casefold() for item in items}) == 5
    assert all(is_id(item.id) for item in items)
    assert "2 of 5 names differ from others in upper and lower case only" in caplog.text
    assert "'dQw4w9WgXcQ' -> dQw4w9WgXcQ-" in caplog.text
    assert "1 of 5 names cannot be file names" in caplog.text
    assert caplog.text.count("'../../etc/x' -> ") == 1


def test_in_a_bare_folder_the_stem_is_kept(tmp_path, caplog):
    names = ["-aBc_1", "_x", "a b", "Ä", "Abc", "abc", "Song? (Live): 1", "sub/deep"]
    touch(*(tmp_path / "in" / f"{name}.wav" for name in names))
    found = list_folder(tmp_path / "in", None, target=tmp_path / "out")
    assert sorted(found["id"]) == sorted([*names[:-1], "deep"])
    assert "digest" not in caplog.text


def test_stems_of_two_folders_keep_apart_and_are_the_same_on_both_sides(tmp_path):
    touch(
        tmp_path / "a/1/x.wav",
        tmp_path / "a/2/x.wav",
        tmp_path / "a/2/y.wav",
        tmp_path / "v/1/x.mp4",
        tmp_path / "v/2/y.mp4",
    )
    found = list_folder(tmp_path / "a", tmp_path / "v").set_index("id")
    assert len(found) == 3
    assert found.loc["y", "audio_path"].endswith("2/y.wav")
    assert found.loc["y", "video_path"].endswith("2/y.mp4")
    (first,) = [item_id for item_id in found.index if item_id.startswith("1-x-")]
    assert found.loc[first, "video_path"].endswith("1/x.mp4")


def test_on_a_disk_that_does_not_tell_case_names_keep_apart(tmp_path, monkeypatch):
    touch(tmp_path / "Abc.wav", tmp_path / "abc.wav", tmp_path / "what?.wav")
    monkeypatch.setattr("vmnet_pipeline.ingestion.discovery.is_case_sensitive", lambda folder: False)
    ids = list_folder(tmp_path, None, target=tmp_path / "out")["id"].tolist()
    assert len({item_id.casefold() for item_id in ids}) == 3
    assert not any("?" in item_id for item_id in ids)


# --- digests that are equal


# --- folders of two sides


@pytest.mark.parametrize(
    ("audio", "video"),
    [
        ("Audio", "Video"),
        ("AUDIO", "videos"),
        ("audios", "VIDEOS"),
        ("Music", "clips"),
        ("songs", "Films"),
        ("sounds", "movies"),
        ("Sound", "movie"),
        ("tracks", "clip"),
    ],
)
def test_folders_of_two_sides_by_other_names(tmp_path, audio, video):
    touch(tmp_path / audio / "1.mp3", tmp_path / video / "1.mp4")
    (item,) = find_items(tmp_path)
    assert (item.reason, item.audio) == ("", str(tmp_path / audio / "1.mp3"))


def test_folders_that_may_be_two_sides_but_share_no_name(tmp_path, caplog):
    touch(tmp_path / "Music/theme.mp3", tmp_path / "Clips/1.mp4")
    reasons = {item.id.partition("-")[0]: item.reason for item in find_items(tmp_path)}
    assert reasons == {"Music": "no_video_file", "Clips": ""}
    assert "have no file name in common, so every video is paired with its own audio" in caplog.text


def test_one_side_without_the_other_is_said(tmp_path, caplog):
    touch(tmp_path / "Audio/1.mp3", tmp_path / "mp4/1.mp4")
    find_items(tmp_path)
    assert "has Audio/ and no video/, so every video is paired with its own audio" in caplog.text


def test_two_folders_for_one_side_are_said(tmp_path, caplog):
    touch(tmp_path / "audio/1.mp3", tmp_path / "Audio/1.mp3", tmp_path / "video/1.mp4")
    (item,) = find_items(tmp_path)
    assert item.audio == str(tmp_path / "audio/1.mp3")
    assert "Audio next to it is not" in caplog.text


# --- links to folders


def test_links_to_folders_are_followed_and_loops_end(tmp_path, caplog):
    caplog.set_level("INFO")
    media, disk = tmp_path / "media", tmp_path / "other disk"
    touch(media / "a.mp4", disk / "b.mp4", disk / "deep/c.mp4")
    (media / "more").symlink_to(disk)
    (media / "again").symlink_to(media / "zz real")
    touch(media / "zz real/d.mp4")
    (media / "loop").symlink_to(media)
    (media / "up").symlink_to(tmp_path)
    (disk / "deep/back").symlink_to(media, target_is_directory=True)
    (disk / "self").symlink_to(disk)
    (media / "broken").symlink_to(tmp_path / "none")
    found = sorted(item.video.removeprefix(str(media)) for item in find_items(media))
    assert found == ["/a.mp4", "/more/b.mp4", "/more/deep/c.mp4", "/zz real/d.mp4"]
    assert caplog.text.count("it leads to one that is read already") == 5


def test_sides_that_are_links(tmp_path):
    touch(tmp_path / "x/1.mp3", tmp_path / "y/sub/1.mp4")
    (tmp_path / "media").mkdir()
    (tmp_path / "media/audio").symlink_to(tmp_path / "x")
    (tmp_path / "media/video").mkdir()
    (tmp_path / "x/sub").mkdir()
    (tmp_path / "x/1.mp3").rename(tmp_path / "x/sub/1.mp3")
    (tmp_path / "media/video/sub").symlink_to(tmp_path / "y/sub")
    (item,) = find_items(tmp_path / "media")
    assert item.reason == ""


# --- paths of another system


def test_paths_with_backslashes(tmp_path):
    touch(tmp_path / "clips/v0.mp4", tmp_path / "odd\\name.mp4")
    (tmp_path / "media.csv").write_text("id,video,audio\na,clips\\v0.mp4,.\\clips\\v0.mp4\nb,odd\\name.mp4,\n")
    first, second = find_items(tmp_path)
    assert (first.video, first.audio) == (str(tmp_path / "clips/v0.mp4"),) * 2
    assert second.video == str(tmp_path / "odd\\name.mp4")


def test_a_missing_file_of_a_media_csv_is_looked_for_in_any_case(tmp_path):
    touch(tmp_path / "clips/v0.mp4")
    (tmp_path / "media.csv").write_text("id,video\na,Clips\\V0.MP4\nb,clips/V0.mp4\nc,clips/none.mp4\n")
    errors = build_manifest(find_items(tmp_path), probe_media)["error"].tolist()
    assert f"no such file ({tmp_path}/clips/v0.mp4 there differs in upper and lower case only)" in errors[0]
    assert "no such file (v0.mp4 there differs in upper and lower case only)" in errors[1]
    assert errors[2].endswith("none.mp4: no such file; check the path")


def test_tables_are_found_in_any_case(tmp_path):
    touch(tmp_path / "v0.mp4", tmp_path / "v1.mp4")
    (tmp_path / "Media.CSV").write_text("id,video,title\nmine,v0.mp4,Dawn\n")
    (tmp_path / "Train.csv").write_text("id\nmine\n")
    (tmp_path / "TEST.CSV").write_text("id\nother\n")
    assert [item.id for item in find_items(tmp_path)] == ["mine"]
    assert read_extra_columns(tmp_path)["title"].tolist() == ["Dawn"]
    assert find_user_split(None, tmp_path) == Split(("mine",), (), ("other",))


def test_groups_are_one_in_either_spelling(tmp_path):
    touch(tmp_path / "a.mp4", tmp_path / "b.mp4")
    (tmp_path / "media.csv").write_text(f"id,video,group\na,a.mp4,{COMPOSED}\nb,b.mp4,{DECOMPOSED}\n", encoding="utf-8")
    assert {item.group for item in find_items(tmp_path)} == {COMPOSED}


@pytest.mark.parametrize("sound", ["1.mp3", "wav/1.wav", "train/audio/1.flac"])
def test_sound_called_as_a_video_is_asked_about(tmp_path, caplog, sound):
    touch(tmp_path / "train/video/1.mp4", tmp_path / "train/video/2.mp4", tmp_path / "3.mp3")
    find_items(tmp_path)
    assert "audio files have the name of a video" not in caplog.text
    touch(tmp_path / sound)
    find_items(tmp_path)
    assert (
        f"1 audio files have the name of a video, e.g. {tmp_path / sound} and {tmp_path}/train/video/1.mp4"
        in caplog.text
    )


def test_a_hint_where_names_differ_in_case_only(tmp_path):
    touch(tmp_path / "audio/Song.mp3", tmp_path / "video/song.mp4")
    errors = [item.error for item in find_items(tmp_path)]
    assert errors == [
        "'Song' has no partner in video/; 'song' there differs in case only",
        "'song' has no partner in audio/; 'Song' there differs in case only",
    ]


def test_two_files_of_one_name_are_told_apart_or_named(tmp_path, caplog):
    touch(tmp_path / "audio/1.mp3", tmp_path / "video/1.mp4", tmp_path / "video/1.mp3")
    (item,) = find_items(tmp_path)
    assert item.video.endswith("1.mp4")
    assert "another file of the same name is used (1 x .mp3): '1.mp3'" in caplog.text
    touch(tmp_path / f"audio/{COMPOSED}.mp3", tmp_path / f"audio/{DECOMPOSED}.mp3")
    with pytest.raises(IngestError, match="Two files claim the item"):
        find_items(tmp_path)
