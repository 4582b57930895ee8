"""Lengths: what a header declares counts where the packets agree with it, and only there."""

from __future__ import annotations

import functools
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from films import count_times
from films import write_film as write_timed_film
from hostile import draw_number, encode_sound, encode_video

from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.media import probe
from vmnet_pipeline.media.audio import decode_audio
from vmnet_pipeline.media.probe import probe_media
from vmnet_pipeline.media.video import sample_frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import CountingFile

LENGTH_S = 6.0
RATE_HZ = 44_100
RNG = np.random.default_rng(0)
NOISE = 0.2 * RNG.standard_normal(round(LENGTH_S * RATE_HZ))
CODECS = {
    "mp3": ("libmp3lame", "fltp"),
    "aac": ("aac", "fltp"),
    "m4a": ("aac", "fltp"),
    "mka": ("aac", "fltp"),
    "flac": ("flac", "s16"),
    "ogg": ("libopus", "flt"),
    "asf": ("libmp3lame", "fltp"),
    "aiff": ("pcm_s16be", "s16"),
    "au": ("pcm_s16be", "s16"),
    "caf": ("pcm_s16le", "s16"),
    "w64": ("pcm_s16le", "s16"),
    "wav": ("pcm_s16le", "s16"),
}


@functools.cache
def encode_once(write: Callable[[Path], bytearray], suffix: str) -> bytes:
    """Content of a file of this suffix; each is encoded once for all tests."""
    with tempfile.TemporaryDirectory() as folder:
        return bytes(write(Path(folder) / f"a{suffix}"))


def copy_sound(path: Path) -> bytearray:
    return bytearray(encode_once(write_sound, path.suffix))


def copy_film(path: Path) -> bytearray:
    return bytearray(encode_once(write_film, path.suffix))


def write_sound(path: Path, sound: np.ndarray = NOISE) -> bytearray:
    codec, sample_format = CODECS[path.suffix[1:]]
    rate_hz = 48_000 if codec == "libopus" else RATE_HZ
    encode_sound(
        path, np.resize(sound, round(len(sound) / RATE_HZ * rate_hz)), rate_hz, codec, sample_format=sample_format
    )
    return bytearray(path.read_bytes())


def write_film(path: Path, length_s: float = LENGTH_S, *, noise: bool = False, **options: Any) -> bytearray:
    pictures = [draw_number(k) for k in range(round(25 * length_s))]
    if noise:
        pictures = [RNG.integers(0, 255, (48, 80, 3), np.uint8) for _ in pictures]
    codec = "mpeg4" if path.suffix == ".avi" else "flv" if path.suffix == ".flv" else "libx264"
    sound = (
        np.resize(NOISE, round(length_s * RATE_HZ)),
        RATE_HZ,
        "libmp3lame" if path.suffix in (".avi", ".flv") else "aac",
    )
    encode_video(path, pictures, codec=codec, sound=sound, **options)
    return bytearray(path.read_bytes())


def measure(path: Path) -> tuple[float | None, ...]:
    """Seconds of the file, its sound and its picture, as far as there are any."""
    info = probe_media(path, checksum="x")
    return tuple(part.duration_s for part in (info, info.audio, info.video) if part is not None)


def scale(data: bytearray, at: int, code: str, factor: float) -> None:
    """Multiply the number at a place, whole numbers up to the largest that fits."""
    (value,) = struct.unpack_from(code, data, at)
    largest = 2 ** (8 * struct.calcsize(code)) - 1
    struct.pack_into(code, data, at, value * factor if code[-1] in "fd" else min(round(value * factor), largest))


# --- each header that declares a length


def lie_in_xing(path: Path, factor: float) -> None:
    data = copy_sound(path)
    scale(data, max(data.find(b"Info"), data.find(b"Xing")) + 8, ">I", factor)
    path.write_bytes(data)


def lie_in_vbri(path: Path, factor: float) -> None:
    """Put a VBRI header into a frame before the first one."""
    with av.open(str(path), "w", options={"write_xing": "0"}) as muxer:
        stream = muxer.add_stream("libmp3lame", rate=RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(NOISE[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = RATE_HZ
        muxer.mux([*stream.encode(frame), *stream.encode(None)])
    data = path.read_bytes()
    start = data.index(b"\xff\xfb") if b"\xff\xfb" in data[:400] else data.index(b"\xff\xf3")
    n_frames = round(LENGTH_S * RATE_HZ / 1152)
    header = b"VBRI" + struct.pack(">HHHII", 1, 0, 0, len(data), round(n_frames * factor))
    first = bytearray(417)
    first[:4], first[36 : 36 + len(header)] = data[start : start + 4], header
    path.write_bytes(data[:start] + bytes(first) + data[start:])


def lie_in_boxes(path: Path, factor: float, names: tuple[bytes, ...] = (b"mvhd", b"tkhd", b"mdhd")) -> None:
    data = copy_sound(path) if path.suffix == ".m4a" else copy_film(path)
    for name, place in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        at = data.find(name)
        while at >= 0 and name in names:
            assert data[at + 4] == 0  # version, for 32-bit numbers
            scale(data, at + place, ">I", factor)
            at = data.find(name, at + 4)
    path.write_bytes(data)


def lie_in_last_sample(path: Path, factor: float) -> None:
    """Let the last entry of each table of sample durations last that much longer."""
    data = copy_sound(path)
    at = data.find(b"stts")
    while at >= 0:
        (n_entries,) = struct.unpack_from(">I", data, at + 8)
        scale(data, at + 12 + 8 * n_entries - 4, ">I", factor)
        at = data.find(b"stts", at + 4)
    path.write_bytes(data)


def lie_in_matroska(path: Path, factor: float) -> None:
    data = copy_sound(path) if path.suffix == ".mka" else copy_film(path)
    scale(data, data.index(b"\x44\x89\x88") + 3, ">d", factor)
    path.write_bytes(data)


def lie_in_avi(path: Path, factor: float) -> None:
    data = copy_film(path)
    scale(data, data.index(b"avih") + 8 + 16, "<I", factor)
    at = data.find(b"strh")
    while at >= 0:
        scale(data, at + 8 + 32, "<I", factor)
        at = data.find(b"strh", at + 4)
    path.write_bytes(data)


def lie_in_flac(path: Path, factor: float) -> None:
    data = copy_sound(path)
    (head,) = struct.unpack_from(">Q", data, 18)
    samples = min(round((head & (2**36 - 1)) * factor), 2**36 - 1)
    struct.pack_into(">Q", data, 18, head >> 36 << 36 | samples)
    path.write_bytes(data)


def lie_in_flv(path: Path, factor: float) -> None:
    data = copy_film(path)
    scale(data, data.index(b"duration\0") + 9, ">d", factor)
    path.write_bytes(data)


def lie_in_asf(path: Path, factor: float) -> None:
    data = copy_sound(path)
    at = data.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    scale(data, at + 64, "<Q", factor)
    scale(data, at + 72, "<Q", factor)
    path.write_bytes(data)


def lie_in_ogg(path: Path, factor: float) -> None:
    data = copy_sound(path)
    at = data.rindex(b"OggS")
    scale(data, at + 6, "<Q", factor)
    data[at + 22 : at + 26] = bytes(4)
    struct.pack_into("<I", data, at + 22, sum_ogg_page(bytes(data[at:])))
    path.write_bytes(data)


def sum_ogg_page(page: bytes) -> int:
    """Checksum of an Ogg page: CRC-32 of 0x04c11db7, most significant bit first, without inversion."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)
        value &= 0xFFFFFFFF
    return value


def lie_in_pcm(path: Path, factor: float) -> None:
    """Let the header of uncompressed audio state another number of bytes, or samples."""
    data = copy_sound(path)
    marks = {"wav": (b"data", 4, "<I"), "aiff": (b"SSND", 4, ">I"), "au": (b".snd", 8, ">I"), "caf": (b"data", 4, ">Q")}
    marks["w64"] = (b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a", 16, "<Q")
    mark, place, code = marks[path.suffix[1:]]
    scale(data, data.index(mark) + place, code, factor)
    if path.suffix == ".aiff":
        scale(data, data.index(b"COMM") + 10, ">I", factor)
    path.write_bytes(data)


LIES: dict[str, tuple[str, Callable[[Path, float], None]]] = {
    "xing": ("a.mp3", lie_in_xing),
    "vbri": ("a.mp3", lie_in_vbri),
    "m4a": ("a.m4a", lie_in_boxes),
    "stts": ("a.m4a", lie_in_last_sample),
    "mp4": ("a.mp4", lie_in_boxes),
    "mov": ("a.mov", lie_in_boxes),
    "mka": ("a.mka", lie_in_matroska),
    "mkv": ("a.mkv", lie_in_matroska),
    "avi": ("a.avi", lie_in_avi),
    "flac": ("a.flac", lie_in_flac),
    "flv": ("a.flv", lie_in_flv),
    "asf": ("a.asf", lie_in_asf),
    "ogg": ("a.ogg", lie_in_ogg),
    "wav": ("a.wav", lie_in_pcm),
    "aiff": ("a.aiff", lie_in_pcm),
    "au": ("a.au", lie_in_pcm),
    "caf": ("a.caf", lie_in_pcm),
    "w64": ("a.w64", lie_in_pcm),
}


# Headers of uncompressed audio that FFmpeg refuses.
REFUSED = {("aiff", 40_000.0), ("aiff", 0.0), ("au", 0.0), ("w64", 0.0)}


def list_lies(*factors: float) -> list[tuple[str, float]]:
    return [(kind, factor) for kind in LIES for factor in factors if (kind, factor) not in REFUSED]


@pytest.mark.parametrize(("kind", "factor"), list_lies(1.0, 1.5, 7.0, 40_000.0))
def test_header_that_declares_too_much(tmp_path: Path, kind: str, factor: float) -> None:
    name, lie = LIES[kind]
    lie(tmp_path / name, factor)
    for length in measure(tmp_path / name):
        assert length == pytest.approx(LENGTH_S, abs=0.25)


@pytest.mark.parametrize(("kind", "factor"), list_lies(0.0, 0.1, 0.7))
def test_header_that_declares_too_little(tmp_path: Path, kind: str, factor: float) -> None:
    """The length is that of what is decoded, also where a header is what ends it (uncompressed audio)."""
    name, lie = LIES[kind]
    lie(tmp_path / name, factor)
    decoded_s = len(decode_audio(tmp_path / name, sample_rate_hz=16_000)) / 16_000
    for length in measure(tmp_path / name):
        assert length == pytest.approx(decoded_s, abs=0.25)


# --- times that do not begin at zero, and parts that were joined


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.mp4", "a.mov", "a.flv"])
def test_times_may_begin_anywhere(tmp_path: Path, name: str) -> None:
    """The time of the last frame is no length: here it is 506 s."""
    path = tmp_path / name
    codec = "flv" if name == "a.flv" else "libx264"
    encode_video(path, [draw_number(k) for k in range(150)], codec=codec, pts=range(12_500, 12_650))
    assert measure(path) == pytest.approx((LENGTH_S, LENGTH_S), abs=0.1)


def test_audio_that_begins_late_is_as_long_as_it_sounds(tmp_path: Path) -> None:
    path = tmp_path / "a.mka"
    with av.open(str(path), "w") as muxer:
        stream = muxer.add_stream("libopus", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(NOISE[None, : 48_000 * 5].astype(np.float32), format="flt", layout="mono")
        frame.sample_rate, frame.pts = 48_000, 48_000 * 500
        muxer.mux([*stream.encode(frame), *stream.encode(None)])
    assert measure(path) == pytest.approx((5.0, 5.0), abs=0.1)


@pytest.mark.parametrize("name", ["a.mkv", "a.flv"])
def test_a_film_whose_clock_begins_late_misses_nothing(tmp_path: Path, name: str) -> None:
    """The header has the time of its end, which is no length."""
    path, moved = tmp_path / "a.mp4", tmp_path / name
    write_film(path)
    with av.open(str(path)) as source, av.open(str(moved), "w") as muxer:
        stream = muxer.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.pts, packet.dts = (time + round(100 / packet.time_base) for time in (packet.pts, packet.dts))
                packet.stream = stream
                muxer.mux(packet)
    found: list[str] = []
    assert len(list(sample_frames(moved, max_duration_s=None, warnings=found))) == LENGTH_S
    info = probe_media(moved, checksum="x").video
    assert info is not None
    assert (found, info.warning) == ([], "")


@pytest.mark.parametrize("tail", ["mkv", "flv", "ts", "mp4"])
@pytest.mark.parametrize(("video_s", "audio_s"), [(0.2, 0.2), (0.0, 0.2), (0.24, 0.0)])
def test_a_short_delay_is_no_part_of_a_length(tmp_path: Path, tail: str, video_s: float, audio_s: float) -> None:
    """Matroska and FLV declare the time of the end."""
    path = tmp_path / f"a.{tail}"
    write_timed_film(path, count_times(video_s, 4.0), [(audio_s, 4.0, 400.0)])
    decoded_s = len(decode_audio(path, sample_rate_hz=16_000)) / 16_000 - max(0.0, audio_s - video_s)
    _, audio, video = measure(path)
    assert audio == pytest.approx(decoded_s, abs=0.06)
    assert video == pytest.approx(4.0, abs=0.06)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.m4a"])
@pytest.mark.parametrize("cut_s", [0.4, 3.3])
def test_what_an_edit_list_leaves_out_is_no_part_of_a_length(tmp_path: Path, name: str, cut_s: float) -> None:
    """A film that was cut without encoding it again keeps what its first frames need."""
    whole, path = tmp_path / f"whole{name}", tmp_path / name
    write_sound(whole) if name == "a.m4a" else write_film(whole)
    with av.open(str(whole)) as source, av.open(str(path), "w") as muxer:
        streams = {stream.index: muxer.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size:
                shift = round(cut_s / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = streams[packet.stream_index]
                muxer.mux(packet)
    assert path.stat().st_size > 0.9 * whole.stat().st_size
    assert measure(path) == pytest.approx(len(measure(path)) * (LENGTH_S - cut_s,), abs=0.06)


@pytest.mark.parametrize("second_s", [LENGTH_S, 2.0])
@pytest.mark.parametrize("tail", ["mp3", "aac", "flac", "ogg", "mka"])
def test_parts_of_audio_are_summed(tmp_path: Path, tail: str, second_s: float) -> None:
    first, second, joined = (tmp_path / f"{name}.{tail}" for name in ("a", "b", "joined"))
    joined.write_bytes(write_sound(first) + write_sound(second, NOISE[: round(second_s * RATE_HZ)]))
    decoded_s = len(decode_audio(joined, sample_rate_hz=16_000)) / 16_000
    assert decoded_s == pytest.approx(LENGTH_S + second_s, abs=0.15)
    # FFmpeg passes some frames beside the joint of FLAC on without a time
    assert measure(joined) == pytest.approx((decoded_s, decoded_s), abs=0.5 if tail == "flac" else 0.2)


@pytest.mark.parametrize("second_s", [LENGTH_S, 2.0])
@pytest.mark.parametrize("tail", ["mkv", "webm", "ts", "mpg"])
def test_parts_of_films_are_summed(tmp_path: Path, tail: str, second_s: float) -> None:
    joined = tmp_path / f"joined.{tail}"
    for name, length_s in (("a", LENGTH_S), ("b", second_s)):
        path = tmp_path / f"{name}.{tail}"
        codec = {"webm": "libvpx-vp9", "mpg": "mpeg2video"}.get(tail, "libx264")
        encode_video(path, [draw_number(k) for k in range(round(25 * length_s))], codec=codec)
    joined.write_bytes((tmp_path / f"a.{tail}").read_bytes() + (tmp_path / f"b.{tail}").read_bytes())
    assert measure(joined) == pytest.approx((LENGTH_S + second_s, LENGTH_S + second_s), abs=0.2)


@pytest.mark.parametrize("order", [1, -1])
def test_parts_of_other_bit_rates_are_summed(tmp_path: Path, order: int) -> None:
    parts = []
    for rate_bps in (128_000, 48_000)[::order]:
        path = tmp_path / f"{rate_bps}.mp3"
        with av.open(str(path), "w") as muxer:
            stream = muxer.add_stream("libmp3lame", rate=RATE_HZ, layout="mono", bit_rate=rate_bps)
            frame = av.AudioFrame.from_ndarray(NOISE[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate = RATE_HZ
            muxer.mux([*stream.encode(frame), *stream.encode(None)])
        parts.append(path.read_bytes())
    (tmp_path / "joined.mp3").write_bytes(b"".join(parts))
    assert measure(tmp_path / "joined.mp3") == pytest.approx((2 * LENGTH_S,) * 2, abs=0.2)


# --- what it costs


@pytest.mark.parametrize("name", ["a.wav", "a.m4a", "a.mka", "a.mp4"])
def test_a_header_that_is_right_costs_no_reading(tmp_path: Path, counted_files: list[CountingFile], name: str) -> None:
    path = tmp_path / name
    if name == "a.mp4":
        write_film(path, 5 * LENGTH_S, options={"g": "25"}, noise=True)
    else:
        write_sound(path, np.tile(NOISE, 10))
    measure(path)
    assert len(counted_files) == 1
    assert counted_files[0].n_bytes_read < 0.5 * path.stat().st_size


def declare_five_seconds(path: Path) -> None:
    data = bytearray(path.read_bytes())
    (head,) = struct.unpack_from(">Q", data, 18)
    struct.pack_into(">Q", data, 18, head >> 36 << 36 | 5 * RATE_HZ)
    path.write_bytes(data)


def test_of_a_file_that_lies_only_the_window_is_decoded(tmp_path: Path, counted_files: list[CountingFile]) -> None:
    path = tmp_path / "a.flac"
    sound = np.tile(NOISE, 20)
    encode_sound(path, sound, RATE_HZ, "flac", sample_format="s16")
    declare_five_seconds(path)
    assert len(decode_audio(path, sample_rate_hz=16_000, max_duration_s=10.0)) == 160_000
    assert sum(file.n_bytes_read for file in counted_files) < 0.15 * path.stat().st_size


@pytest.mark.parametrize(("name", "share"), [("a.flac", 1.3), ("a.mp3", 0.6), ("a.ts", 0.8)])
def test_measuring_ends_at_the_limit(
    tmp_path: Path, counted_files: list[CountingFile], name: str, share: float
) -> None:
    """The FLAC declares five seconds of 60, and is searched for other parts besides."""
    path = tmp_path / name
    sound = np.tile(NOISE, 10)
    codec, sample_format = CODECS.get(path.suffix[1:], ("aac", "fltp"))
    encode_sound(path, sound, RATE_HZ, codec, sample_format=sample_format)
    if name == "a.flac":
        declare_five_seconds(path)
    with pytest.raises(MediaError) as caught:
        probe_media(path, checksum="x", check=("audio",), max_duration_s=4.0)
    assert caught.value.reason == "too_long"
    assert sum(file.n_bytes_read for file in counted_files) < share * path.stat().st_size
    assert probe_media(path, checksum="x", check=("audio",), max_duration_s=65.0).audio is not None


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.wav"])
@pytest.mark.parametrize("n_parts", [1, 3])
def test_the_limit_holds_for_all_parts_together(tmp_path: Path, name: str, n_parts: int) -> None:
    write_sound(tmp_path / name) if name == "a.wav" else write_film(tmp_path / name)
    joined = tmp_path / f"joined{name}"
    joined.write_bytes((tmp_path / name).read_bytes() * n_parts)
    probe_media(joined, max_duration_s=n_parts * LENGTH_S + 1)
    with pytest.raises(MediaError) as caught:
        probe_media(joined, max_duration_s=n_parts * LENGTH_S - 1)
    assert caught.value.reason == "too_long"


def test_of_a_side_that_nobody_wants_no_length_is_sought(tmp_path: Path, counted_files: list[CountingFile]) -> None:
    path = tmp_path / "a.mp3"
    encode_sound(path, np.tile(NOISE, 8), RATE_HZ, "libmp3lame")
    info = probe_media(path, checksum="x", check=("video",), max_duration_s=15.0)
    assert info.audio is not None
    assert info.video is None
    assert sum(file.n_bytes_read for file in counted_files) < 0.3 * path.stat().st_size


def test_few_bits_a_second_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence has so few bits that header and last packet alone are not believed; its length is right all the same."""
    whole: list[Any] = []
    read = probe._read_whole
    monkeypatch.setattr(probe, "_read_whole", lambda *args: whole.append(args) or read(*args))
    encode_sound(tmp_path / "a.flac", np.zeros(60 * 8_000), 8_000, "flac", sample_format="s16")
    assert measure(tmp_path / "a.flac") == pytest.approx((60.0, 60.0), abs=0.1)
    assert len(whole) == 1


def test_a_side_that_ends_earlier_is_shorter(tmp_path: Path) -> None:
    """Matroska declares one length for all."""
    sound = (NOISE, RATE_HZ, "aac")
    encode_video(tmp_path / "a.mkv", [draw_number(k) for k in range(250)], sound=sound)
    assert measure(tmp_path / "a.mkv") == pytest.approx((10.0, LENGTH_S, 10.0), abs=0.1)
