from __future__ import annotations

from pathlib import Path

import opentimelineio as otio
import pytest

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.soundtrack.render import Passage, RenderReport
from vmnet_pipeline.soundtrack.timeline import FORMATS, build_timeline, choose_frame_rate, write_timeline

BEATS = [0.52, 1.0, 7.24]
CUTS = [2.0, 4.52]
MARKS = [*(("beat", beat_s) for beat_s in BEATS), *(("cut", cut_s) for cut_s in CUTS)]


def make_report(frame_rate_hz=25.0, own_sound="duck", **changes):
    """Ten seconds: music from 12.5 s, which goes back once, at 6 s."""
    values = {
        "output": "out/film-soundtrack.mp4",
        "video": "media/film.mp4",
        "music": "media/my song.wav",
        "duration_s": 10.0,
        "frame_rate_hz": frame_rate_hz,
        "video_codec": "h264",
        "audio_codec": "aac",
        "passages": [Passage(12.5, 18.51, 0.0, 0.0), Passage(2.5, 6.51, 5.99, 0.02)],
        "fade_in_s": 0.2,
        "fade_out_s": 2.0,
        "own_sound": own_sound,
        "speech": [(1.0, 2.0)],
        "duck_depth_db": 15.0,
        "music_gain_db": -3.0,
        "own_gain_db": 2.0,
        "loudness_lufs": -14.0,
        "true_peak_dbtp": -1.2,
    }
    return RenderReport(**{**values, **changes})


def list_clips(timeline):
    """(kind of track, name, link, begin and length in the source, begin in the result, markers), in seconds."""
    found = []
    for track in timeline.tracks:
        for clip in track.find_clips():
            marks = [(mark.name.lower(), mark.marked_range.start_time.to_seconds()) for mark in clip.markers]
            source, place = clip.source_range, clip.range_in_parent()
            times = (source.start_time, source.duration, place.start_time)
            link = clip.media_reference.target_url
            found.append((track.kind, clip.name, link, *(time.to_seconds() for time in times), sorted(marks)))
    return sorted(found, key=lambda row: (row[0], row[1], row[5]))


def assert_close(clips, expected, tolerance_s):
    assert len(clips) == len(expected)
    for ours, theirs in zip(clips, expected, strict=True):
        assert ours[:3] == theirs[:3]
        assert ours[3:6] == pytest.approx(theirs[3:6], abs=tolerance_s)
        assert [name for name, _ in ours[6]] == [name for name, _ in theirs[6]]
        assert [time for _, time in ours[6]] == pytest.approx([time for _, time in theirs[6]], abs=tolerance_s)


def test_the_timeline_says_what_was_mixed():
    clips = list_clips(build_timeline(make_report(), beats_s=BEATS, cuts_s=CUTS))
    song, film = (Path(path).absolute().as_uri() for path in ("media/my song.wav", "media/film.mp4"))
    assert_close(
        clips,
        [
            ("Audio", "film.mp4", film, 0.0, 10.0, 0.0, []),
            ("Audio", "my song.wav", song, 12.5, 6.0, 0.0, []),
            ("Audio", "my song.wav", song, 2.51, 4.0, 6.0, []),
            ("Video", "film.mp4", film, 0.0, 10.0, 0.0, MARKS),
        ],
        1e-4,
    )
    music = build_timeline(make_report()).tracks[-1]
    fades = [(item.name, item.in_offset.to_seconds(), item.out_offset.to_seconds())
             for item in music if isinstance(item, otio.schema.Transition)]  # fmt: skip
    assert fades == [("fade in", 0.0, 0.2), ("crossfade", 0.01, 0.01), ("fade out", 2.0, 0.0)]


def test_otio_is_read_back_equal(tmp_path):
    write_timeline(tmp_path / "a.otio", make_report(), beats_s=BEATS, cuts_s=CUTS)
    expected = build_timeline(make_report(), beats_s=BEATS, cuts_s=CUTS)
    assert otio.adapters.read_from_file(str(tmp_path / "a.otio")).is_equivalent_to(expected)


@pytest.mark.parametrize("rate_hz", [24.0, 24000 / 1001, 25.0, 30000 / 1001, 50.0, 17.3, 0.0])
@pytest.mark.parametrize("own_sound", ["duck", "mute"])
@pytest.mark.parametrize("suffix", [".edl", ".fcpxml"])
def test_lists_for_editors_are_read_back_equal_to_a_frame(tmp_path, suffix, own_sound, rate_hz):
    report, frame_hz = make_report(rate_hz, own_sound), choose_frame_rate(rate_hz)
    write_timeline(tmp_path / f"a{suffix}", report, beats_s=BEATS, cuts_s=CUTS)
    options = {"rate": frame_hz} if suffix == ".edl" else {}
    found = otio.adapters.read_from_file(str(tmp_path / f"a{suffix}"), FORMATS[suffix], **options)
    expected = list_clips(build_timeline(report, beats_s=BEATS, cuts_s=CUTS))
    if suffix == ".edl":  # it has no second track of sound
        expected = [row for row in expected if row[:2] != ("Audio", "film.mp4")]
        if f"{frame_hz:.2f}" == "29.97":  # the adapter does not read markers at drop-frame times
            text = (tmp_path / "a.edl").read_text()
            assert text.count("LOC: ") == len(MARKS)
            expected = [(*row[:6], []) for row in expected]
    assert_close(list_clips(found), expected, 1.01 / frame_hz)


def test_a_wrong_suffix_is_refused(tmp_path):
    with pytest.raises(ParameterError, match=r"\.otio, \.edl, \.fcpxml"):
        write_timeline(tmp_path / "a.xml", make_report())


def test_media_are_not_read_for_a_list_and_their_names_are_kept(tmp_path, monkeypatch):
    """The adapter of FCPXML starts `ffprobe` for files that exist."""
    (tmp_path / "a & b.mp4").write_bytes(b"hostile")
    monkeypatch.setattr("subprocess.check_output", lambda *_, **__: pytest.fail("a program was started"))
    report = make_report(video=str(tmp_path / "a & b.mp4"))
    write_timeline(tmp_path / "a.fcpxml", report)
    found = otio.adapters.read_from_file(str(tmp_path / "a.fcpxml"), FORMATS[".fcpxml"])
    assert (tmp_path / "a & b.mp4").as_uri() in {row[2] for row in list_clips(found)}
