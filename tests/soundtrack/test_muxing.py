"""What else is in a video: subtitles, joined recordings, times that contradict each other."""

from __future__ import annotations

from fractions import Fraction

import av
import pytest

from scenes import make_noise, read_packets, write_music, write_video
from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.params import MixParams
from vmnet_pipeline.soundtrack.muxing import _Placer, check_format, survey_film
from vmnet_pipeline.soundtrack.render import render


def write_subtitled(path, video):
    """A copy of a Matroska file with two subtitles in German."""
    with av.open(str(video)) as source, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(source.streams.video[0], opaque=True)
        texts = out.add_mux_stream("subrip")
        texts.metadata["language"], texts.time_base = "deu", Fraction(1, 1000)
        packets = []
        for packet in source.demux():
            if packet.size:
                packet.stream, packet.dts = copy, packet.pts
                packets.append(packet)
        for k, text in enumerate(("Hallo", "Welt")):
            packet = av.Packet(text.encode())
            packet.stream, packet.time_base, packet.duration = texts, Fraction(1, 1000), 300
            packet.pts = packet.dts = 200 + 400 * k
            packets.append(packet)
        out.mux(sorted(packets, key=lambda packet: packet.pts * packet.time_base))
    return path


@pytest.mark.process
@pytest.mark.long
def test_subtitles_are_kept_where_the_format_holds_them(tmp_path):
    video = write_subtitled(tmp_path / "a.mkv", write_video(tmp_path / "plain.mkv", 1.0, b_frames=0))
    music, settings = write_music(tmp_path / "m.wav", make_noise(2.0)), MixParams(own_sound="mute")
    report = render(video, music, output=tmp_path / "b.mkv", settings=settings)
    assert read_packets(tmp_path / "b.mkv", "subtitles") == [(0.2, b"Hallo"), (0.6, b"Welt")]
    with av.open(str(tmp_path / "b.mkv")) as container:
        assert container.streams.subtitles[0].language == "deu"
    assert report.warnings == []
    report = render(video, music, output=tmp_path / "b.mp4", settings=settings)
    assert report.warnings == ["mp4 cannot hold its subtitles (srt); left out"]
    assert read_packets(tmp_path / "b.mp4") == read_packets(video)


def test_of_joined_recordings_the_first_is_told(tmp_path):
    one = write_video(tmp_path / "one.mp4", 1.0).read_bytes()
    (tmp_path / "joined.mp4").write_bytes(one * 2)
    film = survey_film(str(tmp_path / "joined.mp4"), 3600.0, lambda share: None)
    assert film.duration_s == pytest.approx(1.0)
    assert "holds 2 recordings that were joined; only the first is used" in film.warnings[0]


def test_a_video_that_is_too_long_is_refused(tmp_path):
    video = write_video(tmp_path / "a.mp4", 2.0)
    with pytest.raises(MediaError, match="cut it") as raised:
        survey_film(str(video), 1.0, lambda share: None)
    assert raised.value.reason == "too_long"


def test_frames_of_impossible_times_follow_those_before_them():
    class Stream:
        index = 0

    class Packet:
        time_base = Fraction(1, 25)

        def __init__(self, pts, dts):
            self.pts, self.dts = pts, dts

    placer = _Placer(Fraction(10, 25))
    times = [(12, 10), (11, 11), (15, 11), (5, 5), (None, None), (16, None), (20, 16)]
    placed = [placer.place(Packet(*time), Stream) for time in times]
    assert [(packet.pts, packet.dts) for packet in placed] == [
        (2, 0), (1, 1), (5, 2), (3, 3), (4, 4), (6, None), (10, 6)
    ]  # fmt: skip
    assert placer.n_moved == 3


@pytest.mark.parametrize(
    ("file_format", "codec", "fits"),
    [("mp4", "h264", True), ("webm", "vp9", True), ("webm", "h264", False), ("matroska", "mpeg4", True)],
)
def test_formats_know_their_codecs(file_format, codec, fits):
    if fits:
        check_format("out", file_format, codec)
        return
    with pytest.raises(MediaError, match=f"{file_format} cannot hold {codec}"):
        check_format("out", file_format, codec)
