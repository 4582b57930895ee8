"""Clocks that jump, wrap or start late: frames, audio and durations stay on one time line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from films import count_times, join_files, write_film
from hostile import read_number

from vmnet_pipeline.media import video
from vmnet_pipeline.media.audio import decode_audio
from vmnet_pipeline.media.probe import probe_media
from vmnet_pipeline.media.video import sample_frames

if TYPE_CHECKING:
    from pathlib import Path

RATE_HZ = 16_000
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
LOW_HZ, HIGH_HZ = 400, 2_000


def number_frames(path: Path, **arguments: float | None) -> list[int]:
    return [read_number(picture) for _, picture in sample_frames(path, **arguments)]  # type: ignore[arg-type]


def find_tones(path: Path, step_s: float = 0.25) -> str:
    """What is heard in each step: L or H for the tones of these tests, `.` for silence."""
    samples = decode_audio(path, sample_rate_hz=RATE_HZ)
    step = round(step_s * RATE_HZ)
    heard = ""
    for part in samples[: len(samples) // step * step].reshape(-1, step):
        spectrum = np.abs(np.fft.rfft(part))
        peak_hz = int(spectrum.argmax()) / step_s
        heard += "." if np.abs(part).max() < 0.02 else "L" if peak_hz < (LOW_HZ + HIGH_HZ) / 2 else "H"
    return heard


def measure_durations(path: Path) -> tuple[float, float]:
    info = probe_media(path)
    assert info.video is not None
    assert info.audio is not None
    return info.video.duration_s or 0.0, info.audio.duration_s or 0.0


# --- recordings that were joined -------------------------------------------------------------------------------------

JOINED = ["ts", "vob", "mkv", "webm", "mp4"]


def write_joined(folder: Path, kind: str, first_s: float = 0.0, n_parts: int = 2) -> Path:
    """Parts of 3 s, whose numbers go on and whose clocks each start at `first_s`; the tone of every other is higher."""
    options = FRAGMENTS if kind == "mp4" else {}
    parts = []
    for k in range(n_parts):
        parts.append(folder / f"{k}.{kind}")
        tone = (first_s, 3.0, HIGH_HZ if k % 2 else LOW_HZ)
        write_film(parts[-1], count_times(first_s, 3.0), [tone], first_number=75 * k, options=options)
    joined = folder / f"joined.{kind}"
    join_files(joined, *parts)
    return joined


@pytest.mark.parametrize("kind", JOINED)
def test_joined_recordings_go_on_at_the_frame_rate(tmp_path: Path, kind: str) -> None:
    path = write_joined(tmp_path, kind)
    assert number_frames(path) == [0, 25, 50, 75, 100, 125]
    heard = find_tones(path)
    assert heard[:11] == 11 * "L"
    assert heard[13:24] == 11 * "H"
    assert len(heard) == 24
    assert measure_durations(path) == pytest.approx((6.0, 6.0), abs=0.2)


@pytest.mark.parametrize("kind", ["ts", "vob"])
def test_many_joins_leave_both_sides_together(tmp_path: Path, kind: str) -> None:
    path = write_joined(tmp_path, kind, n_parts=10)
    frames = number_frames(path)
    assert len(frames) == pytest.approx(30, abs=1)
    assert np.abs(np.array(frames[::3][:10]) - 75 * np.arange(10)).max() <= 8
    heard = find_tones(path, 0.5)
    assert [heard[6 * k + 3] for k in range(10)] == ["L", "H"] * 5
    assert measure_durations(path) == pytest.approx((30.0, 30.0), abs=0.3)


@pytest.mark.parametrize("rate_hz", [1.0, 5.0])
def test_skipping_changes_no_frame_of_joined_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate_hz: float
) -> None:
    path = write_joined(tmp_path, "ts")
    skipping = number_frames(path, rate_hz=rate_hz)
    monkeypatch.setattr(video, "_CODECS_THAT_SKIP", frozenset())
    assert skipping == number_frames(path, rate_hz=rate_hz)
    assert len(skipping) == 6 * rate_hz


# --- clocks that jump ------------------------------------------------------------------------------------------------


def write_jump(path: Path, jump_s: float, *, first_s: float = 0.0, has_sound: bool = True) -> None:
    """Six seconds whose clock jumps after three."""
    rest_s = first_s + 3.0 + jump_s
    tones = [(first_s, 3.0, LOW_HZ), (rest_s, 3.0, HIGH_HZ)] if has_sound else []
    times = [*count_times(first_s, 3.0), *count_times(rest_s, 3.0)]
    if jump_s < 0:
        write_film(path, times[:75], tones[:1])
        later = path.with_name("later" + path.suffix)
        write_film(later, times[75:], tones[1:], first_number=75)
        join_files(path, path, later)
    else:
        write_film(path, times, tones, codec_options={"bf": "2"} if path.suffix != ".vob" else {})


@pytest.mark.parametrize("has_sound", [True, False])
@pytest.mark.parametrize("jump_s", [-3_000, -30, -4, 5, 20, 500, 4_000, 60_000, 95_000, 200_000])
def test_jumps_of_any_size_are_bridged(tmp_path: Path, jump_s: float, has_sound: bool) -> None:
    path = tmp_path / "a.ts"
    write_jump(path, jump_s, first_s=5_000, has_sound=has_sound)
    assert number_frames(path) == [0, 25, 50, 75, 100, 125]
    info = probe_media(path)
    assert info.video is not None
    assert info.video.duration_s == pytest.approx(6.0, abs=0.1)
    assert "clock jumps once" in info.video.warning
    if has_sound:
        heard = find_tones(path)
        assert (heard[:11], heard[13:24], len(heard)) == (11 * "L", 11 * "H", 24)


@pytest.mark.parametrize("has_sound", [True, False])
def test_jump_in_a_flash_video(tmp_path: Path, has_sound: bool) -> None:
    write_jump(tmp_path / "a.flv", 500.0, has_sound=has_sound)
    assert number_frames(tmp_path / "a.flv") == [0, 25, 50, 75, 100, 125]


def test_clock_of_33_bits_wraps(tmp_path: Path) -> None:
    first_s = 2**33 / 90_000 - 2.5
    write_film(tmp_path / "a.ts", count_times(first_s, 6.0), [(first_s, 6.0, LOW_HZ)])
    assert number_frames(tmp_path / "a.ts") == [0, 25, 50, 75, 100, 125]
    assert measure_durations(tmp_path / "a.ts") == pytest.approx((6.0, 6.0), abs=0.1)


@pytest.mark.parametrize("place", [40, 149])
@pytest.mark.parametrize("wrong_s", [-20.0, 900.0])
def test_one_wrong_timestamp_costs_one_frame(tmp_path: Path, place: int, wrong_s: float) -> None:
    times = count_times(100.0, 6.0)
    write_film(tmp_path / "a.ts", times, codec_options={"bf": "0"})
    data = bytearray((tmp_path / "a.ts").read_bytes())
    change_time(data, times[place], times[place] + wrong_s)
    (tmp_path / "a.ts").write_bytes(data)
    assert number_frames(tmp_path / "a.ts") == pytest.approx([0, 25, 50, 75, 100, 125], abs=1)


def change_time(data: bytearray, old_s: float, new_s: float) -> None:
    """Change the one presentation time in a transport stream that is `old_s`."""
    first, second = (encode_time(round(time_s * 90_000)) for time_s in (old_s, new_s))
    assert data.count(first) == 1
    data[data.index(first) :][:5] = second
    place = data.index(first)
    data[place : place + 5] = second


def encode_time(ticks: int) -> bytes:
    """A presentation time alone, as ISO/IEC 13818-1 has it."""
    parts = (ticks >> 30) & 7, (ticks >> 15) & 0x7FFF, ticks & 0x7FFF
    return bytes([0x21 | parts[0] << 1]) + b"".join((part << 1 | 1).to_bytes(2, "big") for part in parts[1:])


# --- frames that do stand --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mkv", "mp4"])
def test_slideshow_of_a_format_that_states_times(tmp_path: Path, kind: str) -> None:
    write_film(tmp_path / f"a.{kind}", [0.0, 2.0, 40.0, 45.0])
    numbers = number_frames(tmp_path / f"a.{kind}", rate_hz=0.5)
    assert numbers[:23] == [0] + 19 * [1] + 3 * [2]


@pytest.mark.parametrize("kind", ["ts", "flv"])
@pytest.mark.parametrize("codec_options", [{}, {"bf": "0"}])
def test_frame_stands_while_the_sound_goes_on(tmp_path: Path, kind: str, codec_options: dict[str, str]) -> None:
    times = [*count_times(0.0, 2.0), *count_times(22.0, 2.0)]
    write_film(tmp_path / f"a.{kind}", times, [(0.0, 24.0, LOW_HZ)], codec_options=codec_options)
    assert number_frames(tmp_path / f"a.{kind}") == [0, 25] + 20 * [49] + [50, 75]
    assert measure_durations(tmp_path / f"a.{kind}") == pytest.approx((24.0, 24.0), abs=0.1)


def test_slideshow_of_a_transport_stream(tmp_path: Path) -> None:
    times = [0.0, 4.0, 10.0, 18.0, 20.0, 29.0]
    write_film(tmp_path / "a.ts", times, codec_options={"bf": "0"})
    assert number_frames(tmp_path / "a.ts", rate_hz=0.5)[:15] == [0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 4, 4, 4, 4, 4]


@pytest.mark.parametrize("codec_options", [{}, {"bf": "0"}])
@pytest.mark.parametrize(("times", "sound_s"), [([0, 10, 20, 30], 0), ([2, 30, 50], 0), ([100, 112, 120], 102)])
def test_slides_of_a_transport_stream_with_audio(
    tmp_path: Path, times: list[float], sound_s: float, codec_options: dict[str, str]
) -> None:
    """The first slide is complete when the second begins: after half a minute of audio."""
    write_film(tmp_path / "a.ts", times, [(sound_s, times[-1] + 2 - sound_s, LOW_HZ)], codec_options=codec_options)
    first_s = min(sound_s, times[0])
    expected = [sum(time <= first_s + k for time in times[1:]) for k in range(int(times[-1] - first_s) + 1)]
    found: list[str] = []
    pictures = sample_frames(tmp_path / "a.ts", max_duration_s=None, warnings=found)
    numbers = [read_number(picture) for _, picture in pictures]
    assert len(numbers) == pytest.approx(len(expected), abs=1)
    assert np.abs(np.bincount(numbers) - np.bincount(expected)).max() <= 1  # encoders have delays
    assert found == []
    info = probe_media(tmp_path / "a.ts").video
    assert info is not None
    assert (info.width, info.height, info.warning) == (80, 48, "")


@pytest.mark.parametrize("kind", ["ts", "flv"])
def test_what_a_jump_leaves_out_is_told(tmp_path: Path, kind: str) -> None:
    """Whether a frame stood for ten seconds or nothing was sent, nobody can tell."""
    found: list[str] = []
    write_film(tmp_path / f"a.{kind}", [*count_times(0.0, 2.0), *count_times(12.0, 2.0)], codec_options={"bf": "0"})
    assert len(list(sample_frames(tmp_path / f"a.{kind}", warnings=found))) == 4
    assert "10.0 s are left out" in found[-1]
    info = probe_media(tmp_path / f"a.{kind}").video
    assert info is not None
    assert "10.0 s are left out" in info.warning


@pytest.mark.parametrize("kind", ["ts", "flv", "mkv"])
@pytest.mark.parametrize(("frames_s", "sound_s"), [(5.0, 38.0), (12.0, 4.0)])
def test_side_that_ends_long_before_the_other_is_told(
    tmp_path: Path, kind: str, frames_s: float, sound_s: float
) -> None:
    path = tmp_path / f"a.{kind}"
    write_film(path, count_times(0.0, frames_s), [(0.0, sound_s, LOW_HZ)])
    found: tuple[list[str], list[str]] = ([], [])
    list(sample_frames(path, warnings=found[0]))
    decode_audio(path, sample_rate_hz=RATE_HZ, warnings=found[1])
    shorter = int(frames_s > sound_s)
    assert found[1 - shorter] == []
    assert f"ends {abs(frames_s - sound_s):.0f}." in found[shorter][0]
    list(sample_frames(path, max_duration_s=2.0, warnings=found[0]))
    assert len(found[0]) == 1 - shorter  # a window that is full misses nothing


def test_silence_stands_where_the_sound_has_a_gap(tmp_path: Path) -> None:
    for kind in ("ts", "mkv", "mp4"):
        path = tmp_path / f"a.{kind}"
        write_film(path, count_times(0.0, 8.0), [(0.0, 2.0, LOW_HZ), (6.0, 2.0, HIGH_HZ)])
        heard = find_tones(path)
        assert heard[:7] + heard[9:23] + heard[25:31] == 7 * "L" + 14 * "." + 6 * "H"


# --- sides that do not begin together --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ts", "vob", "flv", "mkv", "webm", "mp4"])
@pytest.mark.parametrize("first_s", [0.0, 100.0])
def test_sound_that_begins_later_is_preceded_by_silence(tmp_path: Path, kind: str, first_s: float) -> None:
    path = tmp_path / f"a.{kind}"
    write_film(path, count_times(first_s, 6.0), [(first_s + 2.0, 4.0, LOW_HZ)])
    assert number_frames(path) == [0, 25, 50, 75, 100, 125]
    heard = find_tones(path)
    assert heard[:7] + heard[9:23] == 7 * "." + 14 * "L"


@pytest.mark.parametrize("kind", ["ts", "vob", "flv", "mkv", "webm", "mp4"])
@pytest.mark.parametrize("first_s", [0.0, 100.0])
def test_first_frame_stands_where_the_sound_begins_earlier(tmp_path: Path, kind: str, first_s: float) -> None:
    path = tmp_path / f"a.{kind}"
    write_film(path, count_times(first_s + 3.0, 3.0), [(first_s, 6.0, LOW_HZ)])
    assert number_frames(path, max_duration_s=6.0) == pytest.approx([0, 0, 0, 0, 25, 50], abs=1)  # encoders have delays
    assert len(find_tones(path)) == 24


def test_skipping_changes_no_frame_that_begins_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ts"
    write_film(path, count_times(3.3, 4.0), [(0.0, 6.0, LOW_HZ)], codec_options={"x264-params": "bframes=3:b-adapt=0"})
    skipping = number_frames(path)
    monkeypatch.setattr(video, "_CODECS_THAT_SKIP", frozenset())
    assert skipping == number_frames(path)


@pytest.mark.parametrize("kind", ["ts", "mkv", "mp4"])
def test_side_alone_begins_at_its_own_first_instant(tmp_path: Path, kind: str) -> None:
    write_film(tmp_path / f"v.{kind}", count_times(7.0, 2.0))
    write_film(tmp_path / f"a.{kind}", [], [(7.0, 2.0, LOW_HZ)])
    assert number_frames(tmp_path / f"v.{kind}") == [0, 25]
    assert find_tones(tmp_path / f"a.{kind}")[:7] == 7 * "L"
