"""`kedro soundtrack`: from a video and a folder of tracks to a video with music, in an empty folder."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import av
import opentimelineio as otio
import pytest
from click.testing import CliRunner

from library_runs import run_library, save_descriptor_network
from vmnet_pipeline.cli import cli
from vmnet_pipeline.commands.soundtrack import format_time
from vmnet_pipeline.demo.clip import make_clip

pytestmark = [pytest.mark.process, pytest.mark.long]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An empty folder with a network, two tracks and a video without sound."""
    folder = tmp_path_factory.mktemp("soundtrack")
    save_descriptor_network(folder / "network")
    (folder / "tracks").mkdir()
    for k in range(2):
        make_clip(folder / "tracks" / f"t{k}.ogg", seed=k, duration_s=16.0 + 8 * k)
    make_clip(folder / "video.mp4", seed=0, duration_s=8.0, with_audio=False, width=160, height=90)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_library(folder / "tracks", "network", library_side="music")
    return folder


@pytest.fixture
def soundtrack(place, monkeypatch):
    monkeypatch.chdir(place)

    def call(*arguments, ok=True):
        options = ["--library", "tracks", "--checkpoint", "network", "--no-index"]
        done = CliRunner().invoke(cli, ["soundtrack", *map(str, arguments), *options])
        assert (done.exit_code == 0) is ok, done.output
        return done.output

    return call


def test_it_says_what_it_chose_and_why_and_writes_the_video(place, soundtrack, tmp_path):
    target = tmp_path / "out.mp4"
    output = soundtrack("video.mp4", "--output", target)
    assert "Looks for music among 2 tracks" in output
    assert "Why: agreement over time" in output
    assert "-14" in output and "LUFS" in output
    with av.open(str(target)) as written, av.open(str(place / "video.mp4")) as source:
        assert written.streams.audio
        packets = [[bytes(p) for p in container.demux(video=0) if p.size] for container in (written, source)]
    assert packets[0] == packets[1]
    timeline = otio.adapters.read_from_file(str(tmp_path / "out.otio"))
    assert [track.name for track in timeline.tracks] == ["V1", "A2"]
    markers = timeline.tracks[0][0].markers
    assert {marker.name for marker in markers} <= {"beat", "cut"}
    assert markers and all(0 <= marker.marked_range.start_time.to_seconds() <= 8.0 for marker in markers)
    assert (tmp_path / "out-credits.txt").read_text().startswith('Music: "t')
    rows = list(csv.DictReader((tmp_path / "out-choices.csv").open()))
    assert [float(row["score"]) for row in rows] == sorted((float(row["score"]) for row in rows), reverse=True)
    assert "out.mp4 exists" in soundtrack("video.mp4", "--output", target, ok=False)
    target.unlink()
    assert "out.otio exists" in soundtrack("video.mp4", "--output", target, ok=False)


def test_programs_get_every_term(soundtrack):
    content = json.loads(soundtrack("video.mp4", "--no-video", "--json"))
    assert len(content["answers"]) == 2
    for answer in content["answers"]:
        (passage,) = answer["passages"]
        assert {"agreement", "start", "end", "energy", "cuts"} == set(passage["terms"])
        assert passage["start_s"] < passage["end_s"] <= answer["duration_s"] + 0.1
        assert passage["video_end_s"] == pytest.approx(content["video"]["duration_s"], abs=0.01)
    assert content["files"] == {}
    scenes = json.loads(soundtrack("video.mp4", "--scenes", "--json"))
    assert scenes["answers"][0]["passages"]


def test_wrong_calls_are_told(soundtrack):
    assert "there is no video" in soundtrack("none.mp4", ok=False)
    assert "duck_depth_db" in soundtrack("video.mp4", "--set", "duck_depth_db=x", ok=False)
    assert "there are 2 answers" in soundtrack("video.mp4", "--no-video", "--rank", 3, ok=False)
    assert "no 'mood'" in soundtrack("video.mp4", "--no-video", "--filter", "mood=sad", ok=False)
    done = CliRunner().invoke(cli, ["soundtrack", "video.mp4", "--library", "nowhere", "--checkpoint", "network"])
    assert "there is no library" in done.output


def test_times_are_written_as_people_read_them():
    assert [format_time(t) for t in (0, 62.44, 59.97, 3600)] == ["0:00.0", "1:02.4", "1:00.0", "60:00.0"]


@pytest.mark.slow
def test_in_an_empty_folder_one_command_does_it_all(place, tmp_path):
    command = [
        sys.executable, "-m", "vmnet_pipeline.__main__", "soundtrack", str(place / "video.mp4"),
        "--library", str(place / "tracks"), "--checkpoint", str(place / "network"), "--output", "out.mkv",
    ]  # fmt: skip
    program = [sys.executable, "-c", f"from vmnet_pipeline.__main__ import main; main({command[3:]!r})"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Manifest" not in done.stdout
    assert (tmp_path / "out.mkv").exists()
