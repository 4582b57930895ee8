"""`kedro render` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import opentimelineio as otio
import pytest
from click.testing import CliRunner

from scenes import make_noise, read_packets, write_music, write_video
from vmnet_pipeline.cli import cli
from vmnet_pipeline.commands.render import TIME, read_times
from vmnet_pipeline.errors import ParameterError

pytestmark = [pytest.mark.process, pytest.mark.long]


@pytest.fixture
def scene(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "film.mp4", 1.0)
    write_music(tmp_path / "song.wav", make_noise(3.0))
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(cli, ["render", "film.mp4", "song.wav", *arguments])


def test_a_video_a_time_line_and_credits_are_written(scene):
    result = run("--start", "0:01.52", "--timeline", "a.otio", "--timeline", "a.edl", "--credits", "credits.txt")
    assert result.exit_code == 0, result.output
    assert "music      1.52 s to 2.52 s of song.wav" in result.output
    assert "loudness   -14.0 LUFS" in result.output
    assert read_packets(scene / "film-soundtrack.mp4") == read_packets(scene / "film.mp4")
    timeline = otio.adapters.read_from_file("a.otio")
    assert timeline.tracks[-1].find_clips()[0].source_range.start_time.to_seconds() == 1.52
    assert "00:00:01:13 00:00:02:13" in Path("a.edl").read_text()
    assert "used from 0:01.5 to 0:02.5" in Path("credits.txt").read_text()


def test_it_prints_json_and_takes_settings_and_bars(scene):
    Path("bars.txt").write_text("0.0 1\n0.5\t2\n\n1.0\n")
    result = run("--json", "--set", "fade_out_s=0", "--start", "2.5", "--bars", "bars.txt", "--own-sound", "mute",
                 "--loudness", "-20", "--output", "x.mkv")  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["output"], report["fade_out_s"], report["own_sound"]) == ("x.mkv", 0.0, "mute")
    assert report["loudness_lufs"] == pytest.approx(-20, abs=0.5)
    assert len(report["passages"]) > 1


def test_an_existing_file_needs_force(scene):
    Path("x.mp4").write_bytes(b"precious")
    result = run("--output", "x.mp4")
    assert result.exit_code == 1 and "x.mp4 exists" in result.output and "--force" in result.output
    assert Path("x.mp4").read_bytes() == b"precious"
    assert run("--output", "x.mp4", "--force").exit_code == 0
    assert read_packets(scene / "x.mp4") == read_packets(scene / "film.mp4")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--start", "soon"], "'soon' is no time"),
        (["--set", "fade_out=1"], "did you mean fade_out_s?"),
        (["--loudness", "3"], "loudness_lufs"),
        (["--bars", "song.wav"], "no list of times"),
        (["--output", "x.avi"], "suffixes .mp4"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_read(scene, arguments, said):
    result = run(*arguments)
    assert result.exit_code in (1, 2) and said in result.output
    assert not list(scene.glob("x*"))


def test_times_are_seconds_or_minutes():
    assert [TIME.convert(text, None, None) for text in ("83.5", "1:23.5", "0:01:23.5")] == [83.5] * 3


def test_a_list_of_times_that_is_none_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="no list of times"):
        read_times(tmp_path / "missing.txt")
