"""Files of several recordings, cut files and damaged ones: what can be read is read, and what is missing is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from films import count_times, join_files, write_film
from hostile import encode_sound, make_sine, overwrite, truncate, write_wav
from test_clock import HIGH_HZ, LOW_HZ, find_tones, measure_durations, number_frames

from vmnet_pipeline.backends.musicnn import MusicnnBackend
from vmnet_pipeline.media.audio import decode_audio
from vmnet_pipeline.media.parts import find_starts
from vmnet_pipeline.media.probe import probe_media
from vmnet_pipeline.media.video import sample_frames

if TYPE_CHECKING:
    from pathlib import Path

FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
SOUNDS = [("a.wav", "pcm_s16le", "s16"), ("a.flac", "flac", "s16"), ("a.ogg", "libopus", "flt"),
("a.mp3", "libmp3lame", "fltp"), ("a.aac", "aac", "fltp")]  # fmt: skip


def warn_of(path: Path, window_s: float | None = None) -> tuple[list[str], list[str]]:
    """Warnings about the frames and the audio of a film."""
    frames: list[str] = []
    audio: list[str] = []
    list(sample_frames(path, max_duration_s=window_s, warnings=frames))
    decode_audio(path, sample_rate_hz=16_000, max_duration_s=window_s, warnings=audio)
    return frames, audio


# --- recordings of other parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ts", "vob", "flv", "mkv", "webm", "mp4", "fragments.mp4"])
def test_join_at_which_all_parameters_change(tmp_path: Path, kind: str) -> None:
    options = FRAGMENTS if kind == "fragments.mp4" else {}
    first, second, path = (tmp_path / f"{name}.{kind}" for name in ("first", "second", "joined"))
    rate_hz = 24_000 if kind == "webm" else 32_000
    write_film(first, count_times(0.0, 3.0), [(0.0, 3.0, LOW_HZ)], options=options)
    write_film(
        second, count_times(0.0, 3.0), [(0.0, 3.0, HIGH_HZ)], first_number=75, options=options,
        side_px=(96, 160), sample_rate_hz=rate_hz, layout="stereo",
    )  # fmt: skip
    join_files(path, first, second)
    assert number_frames(path) == [0, 25, 50, 75, 100, 125]
    assert [picture.shape[:2] for _, picture in sample_frames(path)] == 3 * [(48, 80)] + 3 * [(96, 160)]
    heard = find_tones(path)
    assert (heard[:11], heard[13:23]) == (11 * "L", 10 * "H")
    samples = decode_audio(path, sample_rate_hz=16_000)
    spectrum = np.abs(np.fft.rfft(samples[4 * 16_000 : 5 * 16_000]))
    assert int(spectrum.argmax()) == pytest.approx(HIGH_HZ, abs=3)  # another rate would be another tone
    assert measure_durations(path) == pytest.approx((6.0, 6.0), abs=0.2)
    info = probe_media(path)
    assert info.video is not None
    assert "one after the other" in info.video.warning or "clock jumps" in info.video.warning
    assert info.size_bytes == path.stat().st_size


@pytest.mark.parametrize(("name", "codec", "sample_format"), SOUNDS)
@pytest.mark.parametrize(("rate_hz", "layout"), [(48_000, "mono"), (24_000, "stereo")])
def test_joined_sounds(tmp_path: Path, name: str, codec: str, sample_format: str, rate_hz: int, layout: str) -> None:
    encode_sound(tmp_path / f"1{name}", make_sine(2.0, 48_000, LOW_HZ), 48_000, codec, sample_format=sample_format)
    channels = np.tile(make_sine(2.0, rate_hz, HIGH_HZ), (1 if layout == "mono" else 2, 1))
    encode_sound(tmp_path / f"2{name}", channels, rate_hz, codec, layout=layout, sample_format=sample_format)
    join_files(tmp_path / name, tmp_path / f"1{name}", tmp_path / f"2{name}")
    heard = find_tones(tmp_path / name)
    assert (heard[:7], heard[9:15]) == (7 * "L", 6 * "H")
    info = probe_media(tmp_path / name)
    assert info.audio is not None
    if (codec, rate_hz) != ("aac", 24_000):  # its packets do not tell their length
        assert info.audio.duration_s == pytest.approx(4.0, abs=0.15)


def test_transport_stream_whose_streams_get_other_numbers(tmp_path: Path) -> None:
    first, second, path = (tmp_path / f"{name}.ts" for name in ("first", "second", "joined"))
    write_film(first, count_times(0.0, 3.0), [(0.0, 3.0, LOW_HZ)])
    options = {"mpegts_start_pid": "500", "mpegts_pmt_start_pid": "3000"}
    write_film(second, count_times(0.0, 3.0), [(0.0, 3.0, HIGH_HZ)], first_number=75, options=options)
    join_files(path, first, second)
    assert number_frames(path) == pytest.approx([0, 25, 50, 75, 100, 125], abs=1)
    heard = find_tones(path)
    assert (heard[:11], heard[13:23]) == (11 * "L", 10 * "H")
    assert measure_durations(path) == pytest.approx((6.0, 6.0), abs=0.2)


def test_transport_stream_whose_codecs_change_under_one_number(tmp_path: Path) -> None:
    first, second, path = (tmp_path / f"{name}.ts" for name in ("first", "second", "joined"))
    write_film(first, count_times(0.0, 3.0), [(0.0, 3.0, LOW_HZ)])
    write_film(tmp_path / "second.vob", count_times(0.0, 3.0), [(0.0, 3.0, HIGH_HZ)], first_number=75, format="mpegts")
    (tmp_path / "second.vob").rename(second)
    join_files(path, first, second)
    assert number_frames(path)[:6] == pytest.approx([0, 25, 50, 75, 100, 125], abs=1)
    heard = find_tones(path)
    assert (heard[:11], heard[13:23]) == (11 * "L", 10 * "H")
    assert measure_durations(path) == pytest.approx((6.0, 6.0), abs=0.2)
    for found in warn_of(path):
        assert not [text for text in found if "only" in text or "damaged" in text]
    first.write_bytes(first.read_bytes() + second.read_bytes() + first.read_bytes())
    assert len(number_frames(first)) == pytest.approx(9, abs=1)
    assert find_tones(first)[26:34] == 8 * "L"


def test_window_that_the_first_recording_fills_opens_no_other(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", count_times(0.0, 3.0), [(0.0, 3.0, LOW_HZ)])
    join_files(tmp_path / "b.mp4", *3 * [tmp_path / "a.mp4"])
    assert find_starts_of(tmp_path / "b.mp4") == [k * (tmp_path / "a.mp4").stat().st_size for k in range(3)]
    assert warn_of(tmp_path / "b.mp4", 2.0) == ([], [])


def find_starts_of(path: Path) -> list[int]:
    with path.open("rb", buffering=0) as file:
        return find_starts(file, path.stat().st_size)


@pytest.mark.parametrize("tail", [b"", b"\0" * 50_000, b"TAG" + 125 * b"\0"])
def test_bytes_behind_a_recording_are_no_recording(tmp_path: Path, tail: bytes) -> None:
    write_wav(tmp_path / "a.wav", np.round(make_sine(1.0, 16_000) * 9_000), 16_000)
    path = tmp_path / "b.wav"
    path.write_bytes((tmp_path / "a.wav").read_bytes() + tail)
    found: list[str] = []
    assert len(decode_audio(path, sample_rate_hz=16_000, warnings=found)) == 16_000
    assert found == []


def test_recording_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", count_times(0.0, 3.0), [(0.0, 3.0, LOW_HZ)])
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(whole + whole[: len(whole) // 2])  # its index is in the other half
    for found in warn_of(tmp_path / "b.mp4"):
        assert any(f"last {len(whole) // 2:,} bytes" in text for text in found)
    info = probe_media(tmp_path / "b.mp4")
    assert info.audio is not None
    assert "cannot be read" in info.audio.warning


# --- what is missing is told -----------------------------------------------------------------------------------------


def write_long(path: Path) -> None:
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    write_film(path, count_times(0.0, 10.0), [(0.0, 10.0, LOW_HZ)], options=options, codec_options={"g": "10"})


@pytest.mark.parametrize("kind", ["mp4", "mkv", "webm", "flv"])
def test_cut_film_tells_how_much_was_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    write_long(path)
    assert warn_of(path) == ([], [])
    truncate(path, 0.5)
    info = probe_media(path)
    assert info.video is not None
    assert info.audio is not None
    for side, found in zip((info.video, info.audio), warn_of(path), strict=True):
        assert side.duration_s == pytest.approx(5.0, abs=1.5)
        assert f"only {side.duration_s:.1f} s of the 10." in side.warning
        assert [text for text in found if text.startswith("only ") and "of the 10." in text]
    frames, audio = warn_of(path, 2.0)
    assert (frames, audio) == ([], [])  # of the window nothing is missing


@pytest.mark.parametrize(("name", "codec", "sample_format"), SOUNDS[:2])
def test_cut_sound_tells_how_much_was_read(tmp_path: Path, name: str, codec: str, sample_format: str) -> None:
    path = tmp_path / name
    encode_sound(path, make_sine(8.0, 44_100), 44_100, codec, sample_format=sample_format)
    truncate(path, 0.5)
    found: list[str] = []
    n = len(decode_audio(path, sample_rate_hz=16_000, warnings=found))
    assert len(found) == 1
    assert f"{n / 16_000:.1f} s" in found[0]


@pytest.mark.parametrize("kind", ["ts", "vob", "flv", "mkv", "mp4"])
def test_damage_in_the_midst_is_told_and_moves_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    write_long(path)
    overwrite(path, 0.4, 0.55)
    frames, audio = warn_of(path)
    assert any("missing" in text or "damaged" in text for text in audio)
    assert any("missing" in text or "damaged" in text for text in frames)
    numbers = number_frames(path)
    assert numbers[:3] == [0, 25, 50]
    assert numbers[-2:] == pytest.approx([200, 225], abs=1)
    assert 9.7 <= len(decode_audio(path, sample_rate_hz=16_000)) / 16_000 <= 10.3


def test_warnings_reach_the_prepared_item(tmp_path: Path) -> None:
    write_long(tmp_path / "a.mkv")
    truncate(tmp_path / "a.mkv", 0.5)
    prepared = MusicnnBackend({"weights": "random"}).prepare(str(tmp_path / "a.mkv"))
    assert "of the 10.0 s" in prepared.warnings[0]
    assert str(tmp_path) not in prepared.warnings[0]
