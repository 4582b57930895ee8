"""From libraries and a video to answers, with what people have: silent and cut videos, drones, short tracks."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from made_media import RATE_HZ, render_clicks, render_song, write_shots, write_wave

from library_runs import run_library, save_descriptor_network
from vmnet_pipeline.commands.soundtrack import format_choice, open_libraries
from vmnet_pipeline.errors import MediaError, SearchIndexError
from vmnet_pipeline.inference.embedder import Embedder
from vmnet_pipeline.params import PassageParams
from vmnet_pipeline.passages.choice import choose_music, describe_answer, explain_passage

pytestmark = [pytest.mark.process, pytest.mark.long]
CHORDS = [(262.0, 330.0, 392.0), (175.0, 220.0, 262.0), (196.0, 247.0, 294.0)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A project folder with two libraries: songs with a licence, and odd sounds."""
    folder = tmp_path_factory.mktemp("libraries")
    save_descriptor_network(folder / "network")
    songs, odd = folder / "songs", folder / "odd"
    songs.mkdir(), odd.mkdir()
    write_wave(songs / "song.wav", render_song(120.0, CHORDS, 8))
    write_wave(songs / "clicks.wav", render_clicks(100.0, 40.0)[0])
    (songs / "media.csv").write_text("id,audio,title,licence\n1,song.wav,Dawn,CC-BY\n2,clicks.wav,Rain,CC0\n")
    t = np.arange(6 * RATE_HZ) / RATE_HZ
    write_wave(odd / "drone.wav", 0.3 * np.sin(2 * np.pi * 110 * t))
    write_wave(odd / "blip.wav", 0.3 * np.sin(2 * np.pi * 440 * t[: RATE_HZ // 4]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for library in ("songs", "odd"):
            run_library(folder / library, "network", library_side="music")

    return folder


@pytest.fixture(scope="module")
def embedder(place):
    return Embedder.load(place / "network")


@pytest.fixture
def choose(place, embedder, monkeypatch):
    monkeypatch.chdir(place)

    def call(video, *libraries, **options):
        opened = open_libraries([place / name for name in libraries or ("songs", "odd")], embedder)
        return choose_music(embedder, opened, str(video), PassageParams(), **options)

    return call


def test_libraries_are_searched_together_and_filtered(place, choose, tmp_path):
    video = write_shots(tmp_path / "video.mp4", [2.0, 4.0, 6.0, 8.0], 12.0, moving=True)  # it has no sound
    choice = choose(video)
    assert sorted(Path(answer.hit.path).name for answer in choice.answers) == [
        "blip.wav", "clicks.wav", "drone.wav", "song.wav",
    ]  # fmt: skip
    assert {answer.hit.library.place for answer in choice.answers} == {str(place / "songs"), str(place / "odd")}
    assert [answer.score for answer in choice.answers] == sorted((a.score for a in choice.answers), reverse=True)
    (only,) = choose(video, filters=["licence=CC0"]).answers
    assert only.title == "Rain"
    with pytest.raises(SearchIndexError, match="no 'mood'"):
        choose(video, filters=["mood=sad"])
    with pytest.raises(SearchIndexError, match="meets the filters"):
        choose(video, filters=["licence=none"])


def test_an_answer_says_which_part_for_which_segment_and_why(place, choose, tmp_path):
    video = write_shots(tmp_path / "video.mp4", [2.0, 4.0, 6.0, 8.0], 12.0, moving=True)
    choice = choose(video, "songs", filters=["licence=CC-BY"])
    told = describe_answer(choice.answers[0])
    (passage,) = told["passages"]
    assert passage["end_s"] - passage["start_s"] == pytest.approx(12.0, abs=0.01)
    assert (passage["video_start_s"], passage["video_end_s"]) == (0.0, pytest.approx(12.0, abs=0.05))
    assert min(abs(bar - passage["start_s"]) for bar in told["bars_s"]) < 0.13
    assert set(passage["terms"]) == {"agreement", "start", "end", "energy", "cuts"}
    assert "beats" in explain_passage(choice.answers[0].passages[0], choice.answers[0].structure)
    text = format_choice(Path(video), choice, choice.answers[0])
    assert "Dawn" in text and "Why:" in text and "4 cuts" in text


def test_each_scene_may_have_a_passage(choose, tmp_path):
    video = write_shots(tmp_path / "scenes.mp4", [9.0], 20.0)
    choice = choose(video, "songs", by_scene=True)
    for answer in choice.answers:
        spans = [(p.video_start_s, p.video_end_s) for p in answer.passages]
        assert spans == [
            (0.0, pytest.approx(9.0, abs=0.05)),
            (pytest.approx(9.0, abs=0.05), pytest.approx(20.0, abs=0.05)),
        ]


def test_music_without_beats_or_too_short_gets_a_warning_or_repeats(choose, tmp_path):
    video = write_shots(tmp_path / "video.mp4", [2.0], 8.0)
    choice = choose(video, "odd")
    assert len(choice.answers) == 2
    for answer in choice.answers:
        assert any("no beats" in text for text in answer.structure.warnings)
        assert answer.passages[0].repeats
        assert np.isfinite(answer.score)


def test_a_track_that_is_gone_is_left_out(place, choose, tmp_path):
    video = write_shots(tmp_path / "video.mp4", [2.0], 8.0)
    away = tmp_path / "song.wav"
    shutil.move(place / "songs" / "song.wav", away)
    try:
        choice = choose(video, "songs")
    finally:
        shutil.move(away, place / "songs" / "song.wav")
    assert [answer.title for answer in choice.answers] == ["Rain"]
    assert any("left out" in text for text in choice.warnings)


def write_variable(path):
    """A video whose pictures stand between 20 ms and half a second."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        pts = 0
        while pts < 9000:
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (64, 96, 3), dtype=np.uint8), format="rgb24")
            frame.pts, frame.time_base = pts, Fraction(1, 1000)
            container.mux(stream.encode(frame))
            pts += int(rng.choice([20, 100, 500]))
        container.mux(stream.encode())
    return path


def test_odd_videos_are_used_as_far_as_they_go(choose, tmp_path):
    choice = choose(write_variable(tmp_path / "variable.mkv"), "songs")
    assert choice.video.duration_s == pytest.approx(9.0, abs=0.6)
    whole = Path(write_shots(tmp_path / "whole.mkv", [2.0], 10.0, moving=True)).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    cut = choose(tmp_path / "cut.mkv", "songs")
    assert 2.0 < cut.video.duration_s < 9.0
    assert cut.answers[0].passages[0].video_end_s == cut.video.duration_s
    (tmp_path / "none.mp4").write_bytes(b"no video at all")
    with pytest.raises(MediaError):
        choose(tmp_path / "none.mp4")
    write_wave(tmp_path / "sound.wav", np.zeros(RATE_HZ))
    with pytest.raises(MediaError, match="no video"):
        choose(tmp_path / "sound.wav")


def test_another_network_is_refused(place, monkeypatch):
    monkeypatch.chdir(place)
    other = Embedder.load(save_descriptor_network(place / "other", seed=1))
    with pytest.raises(SearchIndexError, match="another network"):
        open_libraries([place / "songs"], other)
    with pytest.raises(SearchIndexError, match="no search index"):
        open_libraries([place / "unknown"], other)
