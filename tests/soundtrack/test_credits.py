from __future__ import annotations

import json

import av
import pytest
from test_timeline import make_report

from scenes import make_noise, write_music
from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.media.sandbox import Sandbox
from vmnet_pipeline.media.tags import read_tags
from vmnet_pipeline.params import LimitParams
from vmnet_pipeline.soundtrack.credits import format_credits, list_changes, make_credit, write_credits
from vmnet_pipeline.soundtrack.render import Passage

TAGS = {"title": "Song", "artist": "Someone", "copyright": "CC BY-NC 4.0", "album": "First"}


def write_tagged(path, tags, codec):
    with av.open(str(path), "w") as out:
        out.metadata.update(tags)
        stream = out.add_stream(codec, rate=48_000)
        stream.codec_context.layout = "stereo"
        frame = av.AudioFrame.from_ndarray(make_noise(0.2).reshape(1, -1), format="flt", layout="stereo")
        frame.sample_rate, frame.pts = 48_000, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp3", "libmp3lame"), ("a.flac", "flac"), ("a.ogg", "libopus"), ("a.m4a", "aac")]
)
def test_tags_of_a_file_are_read(tmp_path, name, codec):
    found = read_tags(write_tagged(tmp_path / name, TAGS, codec))
    assert {key: found.get(key) for key in TAGS} == TAGS


def test_tags_are_short_lines(tmp_path):
    long = {"title": "Line\none\x1b[31m" + "x" * 2000, **{f"t{k}": "y" for k in range(300)}}
    found = read_tags(write_tagged(tmp_path / "a.flac", long, "flac"))
    assert found["title"].startswith("Line one[31mxxx") and len(found["title"]) == 500
    assert len(found) <= 100


@pytest.mark.process
def test_the_table_comes_before_the_tags_and_both_before_the_name(tmp_path):
    path = write_tagged(tmp_path / "a.flac", TAGS, "flac")
    with Sandbox(LimitParams()) as sandbox:
        credit = make_credit(path, row={"Title": "Mine", "artist": float("nan"), "licence": ""}, sandbox=sandbox)
        broken = tmp_path / "b.mp3"
        broken.write_bytes(b"nothing")
        assert make_credit(broken, sandbox=sandbox).title == "b"
    assert (credit.title, credit.artist, credit.album) == ("Mine", "Someone", "First")
    assert (credit.terms.name, credit.terms.commercial) == ("CC-BY-NC-4.0", "no")
    assert credit.notes == ["its licence (CC-BY-NC-4.0) does not allow commercial use"]


def test_changes_say_what_was_done():
    assert list_changes(make_report()) == [
        "used from 0:12.5 to 0:18.5 of the track",
        "parts repeated once, crossfaded",
        "faded in and out",
        "lowered under speech",
        "mixed with the sound of the video",
        "loudness changed to -14 LUFS, encoded again (aac)",
    ]
    bare = make_report(own_sound="mute", passages=[Passage(59.96, 70.0, 0.0, 0.0)], fade_in_s=0, fade_out_s=0)
    assert list_changes(bare)[0] == "used from 1:00.0 to 1:10.0 of the track"
    assert len(list_changes(bare)) == 2


def test_credits_are_written_for_people_and_for_programs(tmp_path):
    row = {"title": "Song", "artist": "Someone", "license": "CC BY 4.0", "url": "https://example.org/song"}
    credits = [make_credit("a.wav", row=row, report=make_report()), make_credit("b.wav")]
    text = format_credits(credits)
    assert text.startswith(
        'Music: "Song" by Someone\nLicence: CC-BY-4.0 (https://creativecommons.org/licenses/by/4.0/)\n'
    )
    assert "Source: https://example.org/song\nChanges: used from 0:12.5" in text
    assert 'Music: "b"\nLicence: not known\nNote: its licence is not known' in text
    write_credits(tmp_path / "a.txt", credits)
    assert (tmp_path / "a.txt").read_text() == text
    write_credits(tmp_path / "a.json", credits)
    (first, second) = json.loads((tmp_path / "a.json").read_text())
    assert first["terms"]["attribution"] == "yes" and len(first["changes"]) == 6
    assert second["terms"]["commercial"] == "unknown"
    with pytest.raises(ParameterError, match=r"suffix \.txt or \.json"):
        write_credits(tmp_path / "a.pdf", credits)


def test_a_file_of_music_without_tags_has_its_name(tmp_path):
    assert read_tags(write_music(tmp_path / "a.wav", make_noise(0.1))).get("title") is None
