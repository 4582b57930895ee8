"""Files of several tracks: the one that is read is the best of those that can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from hostile import draw_number, encode_png, make_sine, mux_sound, read_number

from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.media.audio import decode_audio
from vmnet_pipeline.media.container import find_audio_stream
from vmnet_pipeline.media.parts import open_parts
from vmnet_pipeline.media.probe import probe_media
from vmnet_pipeline.media.video import sample_frames

if TYPE_CHECKING:
    from pathlib import Path

RATE_HZ = 48_000
TONES_HZ = (300.0, 700.0, 1_500.0)
NAMES = {"mp4": [(b"mp4a", b"apac"), (b"esds", b"dapa")], "mkv": [(b"A_AAC", b"A_APA")]}
PICTURE_NAMES = {"mp4": [(b"avc1", b"xyz1"), (b"avcC", b"xyzC")], "mkv": [(b"V_MPEG4/ISO/AVC", b"V_XYZ04/ISO/AVC")]}


def write_sounds(path: Path, *dispositions: int) -> None:
    """One AAC track per disposition, each of another tone."""
    with av.open(str(path), "w") as muxer:
        streams = [muxer.add_stream("aac", rate=RATE_HZ) for _ in dispositions]
        for stream, disposition in zip(streams, dispositions, strict=True):
            stream.codec_context.layout, stream.disposition = "mono", Disposition(disposition)
        streams[0].codec_context.bit_rate = 256_000  # which makes it FFmpeg's choice
        for stream, tone_hz in zip(streams, TONES_HZ, strict=False):
            mux_sound(muxer, stream, make_sine(1.0, RATE_HZ, tone_hz)[None], "mono", "fltp")


def write_films(path: Path, n_tracks: int, cover: bytes = b"") -> None:
    """Tracks of pictures that show the track's number from 1 on."""
    with av.open(str(path), "w") as muxer:
        streams: list[Any] = [muxer.add_stream("libx264", rate=25) for _ in range(n_tracks)]
        attached: Any = muxer.add_stream("png", rate=25) if cover else None
        if cover:
            attached.width, attached.height, attached.pix_fmt = 80, 48, "rgb24"
            attached.disposition = Disposition.attached_pic
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt, stream.disposition = 80, 48, "yuv420p", Disposition.default
        for number, stream in enumerate(streams, 1):
            for k in range(25):
                frame = av.VideoFrame.from_ndarray(draw_number(number))
                frame.pts = k
                muxer.mux(stream.encode(frame))
            muxer.mux(stream.encode(None))
        if cover:
            packet = av.Packet(cover)
            packet.stream, packet.pts, packet.dts = attached, 0, 0
            muxer.mux(packet)


def rename(path: Path, names: list[tuple[bytes, bytes]], n_tracks: int) -> None:
    """Give the first tracks a codec that nobody knows."""
    head, mark, tracks = path.read_bytes().partition(b"moov" if path.suffix == ".mp4" else b"\x16\x54\xae\x6b")
    for known, unknown in names:
        assert tracks.count(known) >= n_tracks
        tracks = tracks.replace(known, unknown, n_tracks)
    path.write_bytes(head + mark + tracks)


def spoil_packets(path: Path, kind: str, n_tracks: int) -> None:
    """Leave decoders that open, and nothing that they can decode, to the first tracks of a kind."""
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        spoilt = [stream for stream in container.streams if stream.type == kind][:n_tracks]
        for packet in container.demux(*spoilt):
            if packet.size:
                data = bytes(packet)
                place = content.index(data, packet.pos or 0)
                content[place : place + len(data)] = bytes([255]) * len(data)
    path.write_bytes(content)


def hear_tone(path: Path) -> int:
    """Frequency of the loudest tone in Hz."""
    sound = decode_audio(path, sample_rate_hz=16_000)
    return int(np.argmax(np.abs(np.fft.rfft(sound[:8_000], 16_000))))


@pytest.mark.parametrize("tail", NAMES)
def test_sound_without_decoder_leaves_the_place_to_the_next(tmp_path: Path, tail: str) -> None:
    path = tmp_path / f"a.{tail}"
    write_sounds(path, Disposition.default, Disposition.default)
    rename(path, NAMES[tail], 1)
    info = probe_media(path)
    assert info.audio is not None
    assert (info.audio.codec, info.audio.channels) == ("aac", 1)
    assert abs(hear_tone(path) - TONES_HZ[1]) < 5


@pytest.mark.parametrize("tail", NAMES)
def test_of_those_that_can_be_decoded_the_default_goes_first(tmp_path: Path, tail: str) -> None:
    path = tmp_path / f"a.{tail}"
    write_sounds(path, Disposition.default, 0, Disposition.default)
    rename(path, NAMES[tail], 1)
    assert abs(hear_tone(path) - TONES_HZ[2]) < 5


def test_a_track_for_those_who_hear_badly_goes_last(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    write_sounds(path, Disposition.default, Disposition.hearing_impaired, 0)
    rename(path, NAMES["mkv"], 1)
    assert abs(hear_tone(path) - TONES_HZ[2]) < 5


def test_of_good_tracks_the_choice_stays_that_of_ffmpeg(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_sounds(path, Disposition.default, Disposition.default, 0)
    with open_parts(path) as parts:
        opened = next(iter(parts))
        assert find_audio_stream(opened) is opened.streams.best("audio")


@pytest.mark.parametrize("tail", ["mp4", "mkv"])
def test_sound_that_its_decoder_cannot_decode_leaves_the_place_to_the_next(tmp_path: Path, tail: str) -> None:
    path, found = tmp_path / f"a.{tail}", list[str]()
    write_sounds(path, Disposition.default, Disposition.default)
    spoil_packets(path, "audio", 1)
    info = probe_media(path).audio
    assert info is not None
    assert info.duration_s == pytest.approx(1.0, abs=0.1)
    assert abs(hear_tone(path) - TONES_HZ[1]) < 5
    decode_audio(path, sample_rate_hz=16_000, warnings=found)
    assert "another one is used" in found[-1]
    assert "another one is used" in info.warning


@pytest.mark.parametrize("tail", ["mp4", "mkv"])
@pytest.mark.parametrize("n_parts", [1, 2])
def test_pictures_that_their_decoder_cannot_decode_leave_the_place_to_the_next(
    tmp_path: Path, tail: str, n_parts: int
) -> None:
    path, found = tmp_path / f"a.{tail}", list[str]()
    write_films(path, 3)
    spoil_packets(path, "video", 2)
    path.write_bytes(path.read_bytes() * n_parts)
    info = probe_media(path).video
    assert info is not None
    assert {read_number(picture) for _, picture in sample_frames(path, warnings=found)} == {3}
    assert "another one is used" in found[-1]
    assert "another one is used" in info.warning


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_file_of_which_no_track_decodes(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.mkv"
    write_sounds(path, Disposition.default, 0) if kind == "audio" else write_films(path, 2)
    spoil_packets(path, kind, 2)
    read: Any
    for read in (probe_media, hear_tone if kind == "audio" else lambda path: list(sample_frames(path))):
        with pytest.raises(MediaError) as caught:
            read(path)
        assert caught.value.reason == f"undecodable_{kind}"


@pytest.mark.parametrize("tail", NAMES)
def test_file_of_which_no_sound_can_be_decoded(tmp_path: Path, tail: str) -> None:
    path = tmp_path / f"a.{tail}"
    write_sounds(path, Disposition.default, 0)
    rename(path, NAMES[tail], 2)
    for read in (probe_media, hear_tone):
        with pytest.raises(MediaError) as caught:
            read(path)
        assert caught.value.reason == "undecodable_audio"


@pytest.mark.parametrize("tail", PICTURE_NAMES)
def test_pictures_without_decoder_leave_the_place_to_the_next(tmp_path: Path, tail: str) -> None:
    path = tmp_path / f"a.{tail}"
    write_films(path, 2)
    rename(path, PICTURE_NAMES[tail], 1)
    info = probe_media(path)
    assert info.video is not None
    assert info.video.codec == "h264"
    assert {read_number(picture) for _, picture in sample_frames(path)} == {2}


@pytest.mark.parametrize("tail", PICTURE_NAMES)
def test_film_of_which_no_picture_can_be_decoded(tmp_path: Path, tail: str) -> None:
    path = tmp_path / f"a.{tail}"
    write_films(path, 2)
    rename(path, PICTURE_NAMES[tail], 2)
    for read in (probe_media, lambda path: list(sample_frames(path))):
        with pytest.raises(MediaError) as caught:
            read(path)
        assert caught.value.reason == "undecodable_video"


def test_a_cover_does_not_stand_in_for_pictures_without_decoder(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_films(path, 1, cover=encode_png(draw_number(9)))
    with av.open(str(path)) as opened:
        assert [bool(s.disposition & Disposition.attached_pic) for s in opened.streams.video] == [False, True]
    rename(path, PICTURE_NAMES["mp4"], 1)
    with pytest.raises(MediaError) as caught:
        list(sample_frames(path))
    assert caught.value.reason == "undecodable_video"
