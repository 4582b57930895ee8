"""Which files are media is decided by their content, and every file that is not is counted and named."""

import logging

import av
import numpy as np
import pytest

from vmnet_pipeline.ingestion.discovery import find_items, list_folder
from vmnet_pipeline.ingestion.formats import MEDIA_SUFFIXES, judge_content, read_content, strip_suffix
from vmnet_pipeline.ingestion.manifest import build_manifest
from vmnet_pipeline.ingestion.probing import recognise_files
from vmnet_pipeline.media.probe import probe_media
from vmnet_pipeline.media.video import sample_frames

FILMS = {
    "a.f4v": ("f4v", "h264", "aac"),
    "a.3g2": ("3g2", "h264", "aac"),
    "a.mts": ("mpegts", "h264", "ac3"),
    "a.m2ts": ("mpegts", "h264", "ac3"),
    "a.mk3d": ("matroska", "h264", "aac"),
    "a.vob": ("vob", "mpeg2video", "mp2"),
    "a.nut": ("nut", "mpeg4", "aac"),
    "a.dat": ("mpeg", "mpeg1video", "mp2"),
    "a.download": ("mp4", "h264", "aac"),
    "a": ("matroska", "h264", "aac"),
    "a.mp4.part": ("mp4", "h264", "aac"),
    "a.bin": ("mpegts", "mpeg2video", "mp2"),
    "a.txt": ("avi", "mpeg4", "mp3"),
    "a.ogg": ("ogg", "libvpx", "vorbis"),
}
SOUNDS = {
    "a.mp2": ("mp2", "mp2"),
    "a.m4b": ("ipod", "aac"),
    "a.w64": ("w64", "pcm_s16le"),
    "a.tta": ("tta", "tta"),
    "a.au": ("au", "pcm_s16be"),
    "a.eac3": ("eac3", "eac3"),
    "a.song": ("flac", "flac"),
    "a": ("ogg", "vorbis"),
}


def encode(path, container, *codecs, duration_s=1.0):
    """A second of noise to see and a tone, in any container, under any name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=container) as output:
        streams = [add_stream(output, codec) for codec in codecs]
        for stream in streams:
            for frame in make_frames(stream, duration_s):
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    return path


def add_stream(output, codec):
    if av.codec.Codec(codec, "w").type == "audio":
        stream = output.add_stream(codec, rate=48_000)
        stream.layout = "stereo"
        stream.codec_context.options = {"strict": "experimental"}
        return stream
    stream = output.add_stream(codec, rate=25)
    stream.width, stream.height = 64, 48
    formats = [item.name for item in stream.codec.video_formats]
    stream.codec_context.options = {"strict": "unofficial"}  # mjpeg wants it
    stream.pix_fmt = "yuv420p" if "yuv420p" in formats else formats[0]
    return stream


def make_frames(stream, duration_s):
    if stream.type == "video":
        for number in range(int(25 * duration_s)):
            picture = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
            yield av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt)
        return
    tone = np.sin(np.arange(int(48_000 * duration_s)) * 0.05) * 8000
    samples = np.repeat(tone.astype(np.int16), 2)[None]
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
    frame.sample_rate = 48_000
    frame.pts = 0
    context = stream.codec_context
    resampler = av.AudioResampler(
        format=context.format, layout="stereo", rate=48_000, frame_size=context.frame_size or None
    )
    yield from resampler.resample(frame)


@pytest.mark.process
@pytest.mark.parametrize("name", FILMS)
def test_a_film_under_any_name_is_an_item(tmp_path, name):
    encode(tmp_path / name, *FILMS[name])
    manifest = build_manifest(find_items(tmp_path), probe_media)
    assert manifest[["id", "status", "error"]].values.tolist() == [[strip_suffix(name), "ok", ""]]
    assert list_folder(None, tmp_path)["id"].tolist() == [strip_suffix(name)]


@pytest.mark.process
@pytest.mark.parametrize(("name", "container", "codec"), [
    ("a.gif", "gif", "gif"), ("a.png", "apng", "apng"), ("a.mjpeg", "mjpeg", "mjpeg"), ("a.MJPG", "mjpeg", "mjpeg"),
])  # fmt: skip
def test_pictures_that_move_are_films(tmp_path, name, container, codec):
    encode(tmp_path / "audio/a.wav", "wav", "pcm_s16le")
    encode(tmp_path / "video" / name, container, codec)
    manifest = build_manifest(find_items(tmp_path), probe_media)
    assert manifest[["id", "status", "error", "video_codec"]].values.tolist() == [["a", "ok", "", codec]]
    assert manifest["video_duration_s"][0] == pytest.approx(1.0, abs=0.1)
    assert len(list(sample_frames(tmp_path / "video" / name, rate_hz=5.0))) >= 5


@pytest.mark.process
@pytest.mark.parametrize("name", ["a.sbc", "a.aptx"])
def test_raw_sound_is_known_by_its_name(tmp_path, name):
    codec = name[2:]
    encode(tmp_path / "audio" / name, codec, codec)
    encode(tmp_path / "video/a.m2v", "mpeg2video", "mpeg2video")
    manifest = build_manifest(find_items(tmp_path), probe_media)
    assert manifest[["id", "status", "error", "audio_codec"]].values.tolist() == [["a", "ok", "", codec]]


@pytest.mark.process
@pytest.mark.parametrize("name", SOUNDS)
def test_sound_under_any_name_is_the_other_side(tmp_path, name):
    encode(tmp_path / "audio" / name, *SOUNDS[name])
    encode(tmp_path / "video/a.m2v", "mpeg2video", "mpeg2video")
    manifest = build_manifest(find_items(tmp_path), probe_media)
    assert manifest[["id", "status", "error"]].values.tolist() == [["a", "ok", ""]]
    assert list_folder(tmp_path / "audio", None)["id"].tolist() == ["a"]


@pytest.mark.process
def test_every_file_that_is_left_out_is_counted_and_named(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    encode(tmp_path / "clip.mkv", "matroska", "h264", "aac")
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "noise.bin").write_bytes(np.random.default_rng(1).bytes(5000))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/cover.jpg").write_bytes(b"\xff\xd8\xff\xe0" + b"\0" * 100)
    assert [item.id for item in find_items(tmp_path)] == ["clip"]
    (line,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert line.startswith("3 files are left out")
    for name in ("notes.txt", "noise.bin", "sub/cover.jpg", "1 x .txt"):
        assert name in line


def test_a_long_list_is_cut_in_the_log_and_whole_at_level_debug(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "vmnet_pipeline.ingestion.listing")
    (tmp_path / "a.mp4").write_bytes(b"x")
    for number in range(30):
        (tmp_path / f"{number:02d}.txt").write_text("words")
    find_items(tmp_path)
    short, full = (record.getMessage() for record in caplog.records)
    assert "30 x .txt" in short
    assert "'19.txt' and 10 more" in short
    assert "'29.txt'" in full


def test_a_bare_folder_of_video_leaves_sound_out_and_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    encode(tmp_path / "film.mkv", "matroska", "h264", "aac")
    encode(tmp_path / "song.mp3", "mp3", "mp3")
    encode(tmp_path / "film2.ogg", "ogg", "libvpx", "vorbis")
    assert sorted(list_folder(None, tmp_path)["id"]) == ["film", "film2"]
    assert "1 files are left out" in caplog.text
    assert "they are audio without video (1 x .mp3): 'song.mp3'" in caplog.text


@pytest.mark.parametrize(
    ("head", "content"),
    [
        (b"", "other"),
        (b"just words, any length " * 50, "other"),
        ("Wörter\n".encode("cp1252"), "other"),
        ("Wörter\n".encode("utf-16"), "other"),
        (b"\x89PNG\r\n\x1a\n", "other"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 25 + b"\0\0\0\x08acTL", "unknown"),
        (b"GIF89a" + b"\0" * 30, "other"),
        (b"GIF89a" + b"\0" * 775 + b"!\xff\x0bNETSCAPE2.0\3\1\0\0", "unknown"),
        (b"PK\3\4" + b"\0" * 30, "other"),
        (b"\x93NUMPY\1\0v\0", "other"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "other"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "other"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "audio"),
        (b"ID3\4\0\0", "audio"),
        (b"\xff\xfb\x90\x64\0\0", "audio"),
        (b"RIFF\x24\0\0\0AVI LIST", "unknown"),
        (b"\0\0\0\x18ftypisom\0\0\2\0", "unknown"),
        (b"YUV4MPEG2 W64 H48 F25:1\nFRAME\n" + b"P" * 4000, "unknown"),
        (b"\x1aE\xdf\xa3", "unknown"),
    ],
)
def test_what_the_first_bytes_tell(head, content):
    assert judge_content(head) == content


def test_text_is_told_without_asking_ffmpeg(tmp_path):
    """So that a folder of very many text files costs a glance each: nothing is started for them."""
    for number in range(200):
        (tmp_path / f"{number}.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nwords\n")
    (tmp_path / "a.mp4").write_bytes(b"x")

    def refuse(doubtful):
        raise AssertionError(doubtful)

    assert [item.id for item in find_items(tmp_path, refuse)] == ["a"]


def test_pipes_and_missing_files_hold_nothing(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    assert read_content(str(tmp_path / "pipe")) == "other"
    assert read_content(str(tmp_path / "none")) == "other"


@pytest.mark.process
def test_what_was_recognised_is_kept_until_the_file_changes(tmp_path, monkeypatch):
    film = encode(tmp_path / "film.data", "matroska", "h264", "aac")
    noise = tmp_path / "noise"
    noise.write_bytes(b"\0\1" * 3000)
    paths = [str(film), str(noise)]
    assert recognise_files(paths, cache_dir=tmp_path / "cache") == {str(film)}
    monkeypatch.setattr("vmnet_pipeline.ingestion.probing.Sandbox.call", None)
    assert recognise_files(paths, cache_dir=tmp_path / "cache") == {str(film)}


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("a.mp4", "a"), ("dir.x/a", "dir.x/a"), ("Song feat. X", "Song feat. X"), ("take 1.2", "take 1.2"),
        ("a.mp3.mp4", "a.mp3"), ("a.part", "a"), (".mp4", ".mp4"), ("x/a.M2TS", "x/a"),
    ],
)  # fmt: skip
def test_what_counts_as_a_suffix(path, stem):
    assert strip_suffix(path) == stem


def test_every_suffix_is_lower_case_with_a_dot():
    assert all(suffix[0] == "." and suffix == suffix.lower() for suffix in MEDIA_SUFFIXES)
