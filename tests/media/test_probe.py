"""Probing: what is reported of good files, and how each kind of bad file is refused."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import tempfile
import wave
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from hostile import (
    OpenWatch,
    add_flac_cover,
    add_mp3_cover,
    draw_number,
    encode_png,
    encode_sound,
    encode_video,
    make_sine,
    overwrite,
    truncate,
    write_wav,
)

from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.media import container
from vmnet_pipeline.media.audio import decode_audio
from vmnet_pipeline.media.container import MEDIA_REASONS
from vmnet_pipeline.media.probe import checksum_file, probe_media
from vmnet_pipeline.media.video import sample_frames

if TYPE_CHECKING:
    from collections.abc import Iterator

READERS = {
    "probe": probe_media,
    "checksum": checksum_file,
    "audio": lambda path: decode_audio(path, sample_rate_hz=16_000),
    "video": lambda path: list(sample_frames(path)),
}


def refuse(reader: str, path: Path | str) -> str:
    """The reason for which a reader refuses a file; the message must name the file."""
    with pytest.raises(MediaError) as caught:
        READERS[reader](path)
    assert str(path) in str(caught.value)
    assert caught.value.reason in MEDIA_REASONS
    return caught.value.reason


# --- good files --------------------------------------------------------------------------------------------------


def test_sound_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, np.zeros((2, 22_050), np.int16), 44_100)
    info = probe_media(path)
    assert (info.container, info.duration_s, info.video) == ("wav", 0.5, None)
    assert info.size_bytes == path.stat().st_size
    assert info.checksum == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert info.audio is not None
    assert (info.audio.codec, info.audio.sample_rate_hz, info.audio.channels) == ("pcm_s16le", 44_100, 2)
    assert info.audio.duration_s == 0.5


def test_film_with_sound(tmp_path: Path) -> None:
    pictures = [draw_number(k) for k in range(50)]
    encode_video(tmp_path / "a.mp4", pictures, rate_hz=25, sound=(make_sine(2.0, 48_000), 48_000, "aac"))
    info = probe_media(tmp_path / "a.mp4")
    assert "mp4" in info.container.split(",")
    assert info.audio is not None
    assert info.video is not None
    assert (info.audio.codec, info.audio.sample_rate_hz, info.audio.channels) == ("aac", 48_000, 1)
    assert (info.video.codec, info.video.width, info.video.height) == ("h264", 80, 48)
    assert info.video.frame_rate_hz == 25.0
    assert info.video.duration_s == pytest.approx(2.0, abs=0.01)
    assert info.audio.duration_s == pytest.approx(2.0, abs=0.05)
    assert info.duration_s == pytest.approx(2.0, abs=0.05)


def test_size_is_that_of_the_upright_picture(tmp_path: Path) -> None:
    encode_video(tmp_path / "a.mp4", [draw_number(1)] * 3, rotation=(90.0, False, False))
    info = probe_media(tmp_path / "a.mp4")
    assert info.video is not None
    assert (info.video.width, info.video.height) == (48, 80)


@pytest.mark.parametrize("tail", ["mp3", "flac"])
def test_cover_picture_is_no_video(tmp_path: Path, tail: str) -> None:
    path = tmp_path / f"a.{tail}"
    if tail == "mp3":
        encode_sound(path, make_sine(1.0, 44_100), 44_100, "libmp3lame")
        add_mp3_cover(path, draw_number(1))
    else:
        encode_sound(path, make_sine(1.0, 44_100), 44_100, "flac", sample_format="s16")
        add_flac_cover(path, draw_number(1))
    with av.open(str(path)) as opened:
        assert len(opened.streams.video) == 1  # FFmpeg itself sees a video stream
    info = probe_media(path)
    assert info.video is None
    assert info.audio is not None
    assert refuse("video", path) == "no_video_stream"


def test_duration_is_measured_where_none_is_declared(tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    with av.open(str(path), "w", format="webm", options={"live": "1"}) as muxer:
        stream = muxer.add_stream("libvpx-vp9", rate=25)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        for k in range(75):
            frame = av.VideoFrame.from_ndarray(draw_number(k))
            frame.pts = k
            muxer.mux(stream.encode(frame))
        muxer.mux(stream.encode(None))
    with av.open(str(path)) as opened:
        assert opened.duration is None
    info = probe_media(path)
    assert info.video is not None
    assert info.video.duration_s == pytest.approx(3.0, abs=0.05)
    assert info.duration_s == info.video.duration_s


@pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a", "a.wav", "%03d.jpg", "a:b.mp3", "-i"])
def test_the_name_has_no_say(tmp_path: Path, name: str) -> None:
    encode_sound(tmp_path / "a.ogg", make_sine(1.0, 48_000), 48_000, "libopus", sample_format="flt")
    path = (tmp_path / "a.ogg").rename(tmp_path / name)
    info = probe_media(path)
    assert (info.container, info.audio is not None) == ("ogg", True)
    assert len(decode_audio(path, sample_rate_hz=16_000)) == 16_000


def test_relative_path_is_never_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wav(tmp_path / "http:x", make_sine(0.1, 16_000) * 32_000, 16_000)
    monkeypatch.chdir(tmp_path)
    assert probe_media("http:x").container == "wav"


# --- what is no media file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", READERS)
def test_missing_file(tmp_path: Path, reader: str) -> None:
    assert refuse(reader, tmp_path / "none.mp4") == "missing_file"
    (tmp_path / "file").write_bytes(b"x")
    assert refuse(reader, tmp_path / "file" / "none.mp4") == "missing_file"


@pytest.mark.parametrize("reader", READERS)
def test_what_is_not_a_regular_file(tmp_path: Path, reader: str) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")  # opening it for reading would block for ever
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "fifo.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        for path in (tmp_path / "fifo.mp4", tmp_path / "folder.mp4", tmp_path / "link.mp4", tmp_path / "s"):
            assert refuse(reader, path) == "not_a_file"
    assert refuse(reader, "/dev/zero") == "not_a_file"


@pytest.mark.parametrize("reader", READERS)
def test_empty_file(tmp_path: Path, reader: str) -> None:
    (tmp_path / "a.mp4").touch()
    assert refuse(reader, tmp_path / "a.mp4") == "empty_file"


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """A folder that everybody may enter, and no right to read what others closed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65_534)
        yield Path(folder)
        if is_root:
            os.seteuid(0)


@pytest.fixture
def closed_file(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    with tempfile.NamedTemporaryFile(suffix=".wav", delete=False) as file:
        path = Path(file.name)
    write_wav(path, np.zeros(1_600, np.int16), 16_000)
    path.chmod(0o000)
    request.addfinalizer(path.unlink)
    return path


@pytest.mark.parametrize("reader", READERS)
def test_file_without_permission(closed_file: Path, ordinary_user: Path, reader: str) -> None:
    assert refuse(reader, closed_file) == "unreadable"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ["a.mp4", "a.mp3", "a.wav"])
def test_garbage(tmp_path: Path, seed: int, name: str) -> None:
    (tmp_path / name).write_bytes(np.random.default_rng(seed).bytes(200_000))
    assert refuse("probe", tmp_path / name) in {"unknown_format", "no_media_stream", "undecodable_audio"}


@pytest.mark.parametrize(
    "content", [b"\0" * 100_000, b"hello\n" * 5_000, b"<html></html>", b"\x1b[31mred\x1b[0m\n" * 900]
)
def test_other_content(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    assert refuse("probe", tmp_path / "a.mp4") in {"unknown_format", "no_media_stream"}


def test_photo_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(encode_png(draw_number(3)))
    assert refuse("probe", tmp_path / "a.mp4") == "no_media_stream"
    assert refuse("video", tmp_path / "a.mp4") == "no_video_stream"


def test_film_truncated_before_its_index(tmp_path: Path) -> None:
    encode_video(tmp_path / "a.mp4", [draw_number(k) for k in range(50)])
    truncate(tmp_path / "a.mp4", 0.5)
    assert refuse("probe", tmp_path / "a.mp4") == "unknown_format"


def test_good_header_over_noise_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "a.mov"
    encode_video(path, [draw_number(k) for k in range(30)], codec="png", pixel_format="rgb24")
    path.write_bytes(path.read_bytes().replace(b"IHDR", b"XXXX"))
    assert refuse("probe", path) == "undecodable_video"
    info = probe_media(path, check=("audio",))
    assert info.video is not None


def test_bad_sound_beside_a_good_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    sound = make_sine(1.0, 44_100)
    encode_video(path, [draw_number(k) for k in range(25)], codec="ffv1", sound=(sound, 44_100, "pcm_f32le"))
    data = path.read_bytes().replace(b"A_PCM/FLOAT/IEEE", b"A_PCM/FLOAT/XXXX")
    path.write_bytes(data)
    assert refuse("probe", path) == "undecodable_audio"
    info = probe_media(path, check=("video",))
    assert info.video is not None
    assert (info.video.width, info.video.height) == (80, 48)


@pytest.mark.parametrize(("width", "height"), [(40_000, 16), (16, 40_000), (16_000, 16_000), (0, 48)])
def test_impossible_size_in_the_header(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "a.avi"
    encode_video(path, [draw_number(k) for k in range(3)], codec="ffv1")
    data = bytearray(path.read_bytes())
    at = data.index(b"strf") + 12  # chunk name, chunk size, header size; then width and height
    assert struct.unpack_from("<II", data, at) == (80, 48)
    struct.pack_into("<II", data, at, width, height)
    path.write_bytes(bytes(data))
    assert refuse("probe", path) == "frame_too_large"
    assert refuse("video", path) == "frame_too_large"


@pytest.mark.parametrize("reader", ["probe", "video"])
def test_impossible_size_inside_the_stream(tmp_path: Path, reader: str) -> None:
    path = tmp_path / "a.mov"
    encode_video(path, [draw_number(k) for k in range(3)], codec="png", pixel_format="rgb24")
    good, bad = struct.pack(">II", 80, 48), struct.pack(">II", 30_000, 30_000)
    data = path.read_bytes()
    assert data.count(b"IHDR" + good) == 3
    path.write_bytes(data.replace(b"IHDR" + good, b"IHDR" + bad))
    assert refuse(reader, path) in {"undecodable_video", "frame_too_large"}


def test_header_that_leads_to_a_place_no_file_has_is_overcome(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.wmv"
    encode_video(path, [draw_number(k) for k in range(3)], codec="wmv2")
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, 46, 1 << 62)  # size of the first object in the header
    path.write_bytes(bytes(data))
    for _ in range(2):
        assert probe_media(path).container == "asf"
    assert capfd.readouterr() == ("", "")


def test_absurd_number_of_streams(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as muxer:
        streams = [muxer.add_stream("pcm_s16le", rate=8_000, layout="mono") for _ in range(65)]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8_000, 0
            muxer.mux(stream.encode(frame))
    assert refuse("probe", path) == "too_many_streams"


# --- files that point to other files -----------------------------------------------------------------------------

PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-VERSION:3\n#EXTINF:2.0,\n{target}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{target}'\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("reader", ["probe", "audio", "video"])
def test_playlist_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, reader: str) -> None:
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "secret.ts"
    encode_video(secret, [draw_number(k) for k in range(50)])
    playlist = tmp_path / ("film.m3u8" if kind == "hls" else "film.ffconcat")
    playlist.write_text(PLAYLISTS[kind].format(target="secret.ts"))
    watch = OpenWatch(secret)
    try:
        with av.open(str(playlist)) as opened:  # FFmpeg left alone does follow it
            assert len(opened.streams.video) == 1
        assert watch.was_opened()
        disguised = playlist.rename(tmp_path / "film.mp4")
        assert refuse(reader, disguised) == "unknown_format"
        assert not watch.was_opened()
    finally:
        watch.close()


def test_playlist_is_held_off_without_the_list_of_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal by name is the second lock; the first one, no access to other files, holds alone."""
    monkeypatch.setattr(container, "_REFUSED_FORMATS", frozenset())
    monkeypatch.chdir(tmp_path)
    encode_video(tmp_path / "secret.ts", [draw_number(k) for k in range(50)])
    watch = OpenWatch(tmp_path / "secret.ts")
    try:
        for text in PLAYLISTS.values():
            (tmp_path / "film.mp4").write_text(text.format(target="secret.ts"))
            refuse("video", tmp_path / "film.mp4")
        assert not watch.was_opened()
    finally:
        watch.close()


# --- around ------------------------------------------------------------------------------------------------------


def test_nothing_is_written_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.mp3"
    encode_sound(path, make_sine(3.0, 44_100), 44_100, "libmp3lame")
    overwrite(path, 0.3, 0.6)
    capfd.readouterr()
    decode_audio(path, sample_rate_hz=16_000)
    assert capfd.readouterr() == ("", "")


def test_failures_leave_no_file_open(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"hello\n" * 5_000)
    for _ in range(20):
        refuse("probe", tmp_path / "a.mp4")
    assert str(tmp_path / "a.mp4") not in map(os.path.realpath, Path("/proc/self/fd").iterdir())


def test_wave_module_agrees_on_the_duration(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.zeros(12_345, np.int16), 8_000)
    with wave.open(str(tmp_path / "a.wav")) as file:
        expected_s = file.getnframes() / file.getframerate()
    assert probe_media(tmp_path / "a.wav").duration_s == pytest.approx(expected_s, abs=1e-6)
