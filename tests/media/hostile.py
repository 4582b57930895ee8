"""Builders of media for the tests: ordinary, odd and broken. Everything is made here; nothing is stored."""

from __future__ import annotations

import ctypes
import os
import struct
import wave
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import av.filter
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

N_BITS = 10


# --- sound -------------------------------------------------------------------------------------------------------


def make_sine(duration_s: float, rate_hz: int, frequency_hz: float = 440.0, amplitude: float = 0.5) -> np.ndarray:
    """(n,) float64 sine that starts at phase zero."""
    t_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    return amplitude * np.sin(2 * np.pi * frequency_hz * t_s)


def make_sweep(duration_s: float, rate_hz: int, low_hz: float = 100.0, high_hz: float = 3000.0) -> np.ndarray:
    """(n,) float64 linear sweep: its autocorrelation has one sharp peak, so a delay of one sample shows."""
    t_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    return 0.5 * np.sin(2 * np.pi * (low_hz * t_s + (high_hz - low_hz) * t_s**2 / (2 * duration_s)))


def write_wav(path: Path, channels: np.ndarray, rate_hz: int) -> np.ndarray:
    """Write (n_channels, n) int16 with the standard library, independent of FFmpeg; returns what was written."""
    channels = np.atleast_2d(channels)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(channels.T.astype("<i2").tobytes())
    return channels


def write_float_wav(path: Path, samples: np.ndarray, rate_hz: int) -> None:
    """Write a mono IEEE-float WAV by hand."""
    data = samples.astype("<f4").tobytes()
    header = struct.pack("<HHIIHH", 3, 1, rate_hz, rate_hz * 4, 4, 32)
    body = b"WAVE" + b"fmt " + struct.pack("<I", 16) + header + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)


def encode_sound(
    path: Path, channels: np.ndarray, rate_hz: int, codec: str, *, layout: str = "mono", sample_format: str = "fltp"
) -> None:
    """Encode (n_channels, n) float in [-1, 1]; the container follows from the name."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz)
        stream.codec_context.layout, stream.codec_context.format = layout, sample_format
        mux_sound(container, stream, np.atleast_2d(channels), layout, sample_format)


def mux_sound(container: Any, stream: Any, channels: np.ndarray, layout: str, sample_format: str) -> None:
    if sample_format.startswith("s16"):
        samples = np.round(channels * 32767).astype(np.int16)
    else:
        samples = channels.astype(np.float32)
    packed = np.ascontiguousarray(samples.T.reshape(1, -1))  # the encoder gets its own format from PyAV
    frame = av.AudioFrame.from_ndarray(packed, format=sample_format.removesuffix("p"), layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = stream.sample_rate, 0, Fraction(1, stream.sample_rate)
    for packet in [*stream.encode(frame), *stream.encode(None)]:
        container.mux(packet)


# --- pictures ----------------------------------------------------------------------------------------------------


def draw_number(number: int, height: int = 48, width: int = 80) -> np.ndarray:
    """(height, width, 3) uint8 picture of `number` in black and white bars, most significant bit on the left."""
    bits = [(number >> (N_BITS - 1 - k)) & 1 for k in range(N_BITS)]
    row = np.repeat(np.array(bits, np.uint8) * 255, -(-width // N_BITS))[:width]
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (height, width, 3)))


def read_number(picture: np.ndarray) -> int:
    """The number that `draw_number` wrote; reads the middle of each bar."""
    bar = -(-picture.shape[1] // N_BITS)
    middles = picture[picture.shape[0] // 2, bar // 2 :: bar, 1][:N_BITS]
    return int("".join(str(int(level > 127)) for level in middles), 2)


def encode_video(
    path: Path,
    pictures: Iterable[Any],
    *,
    codec: str = "libx264",
    rate_hz: int = 25,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    pixel_format: str = "yuv420p",
    picture_format: str = "rgb24",
    options: dict[str, str] | None = None,
    rotation: tuple[float, bool, bool] | None = None,
    pixel_aspect: Fraction | None = None,
    fields: str | None = None,
    sound: tuple[np.ndarray, int, str] | None = None,
) -> None:
    """Encode pictures one after the other, or at the given timestamps (ticks of `time_base`).

    With `fields`, "tff" or "bff", they are marked and encoded as interlaced.
    """
    if fields is not None:
        options = {"flags": "+ildct+ilme", **(options or {})}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, options=options or {})
        stream.pix_fmt = pixel_format
        if time_base is not None:
            stream.codec_context.time_base = time_base
        if rotation is not None:
            stream.set_display_rotation(rotation[0], hflip=rotation[1], vflip=rotation[2])
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if sound is not None:
            sound_stream = container.add_stream(sound[2], rate=sound[1])
            sound_stream.codec_context.layout = "mono"
        for k, picture in enumerate(pictures):
            if k == 0:
                stream.height, stream.width = (picture[0] if picture_format == "pal8" else picture).shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format=picture_format)
            frame.pts = k if pts is None else pts[k]
            frame.time_base = time_base or Fraction(1, rate_hz)
            if fields is not None:
                frame = mark_fields(frame.reformat(format=pixel_format), fields)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
        if sound is not None:
            mux_sound(container, sound_stream, np.atleast_2d(sound[0]), "mono", "fltp")


def mark_fields(frame: av.VideoFrame, fields: str) -> av.VideoFrame:
    """The frame, marked as interlaced with the upper ("tff") or the lower ("bff") field first."""
    graph = av.filter.Graph()
    size = f"{frame.width}x{frame.height}"
    source = graph.add("buffer", video_size=size, pix_fmt=frame.format.name, time_base="1/1", pixel_aspect="1/1")
    graph.link_nodes(source, graph.add("setfield", fields), graph.add("buffersink")).configure()
    graph.push(frame)
    marked: av.VideoFrame = graph.pull()
    marked.pts, marked.time_base, marked.color_range = frame.pts, frame.time_base, frame.color_range
    return marked


def encode_png(picture: np.ndarray) -> bytes:
    """One PNG file."""
    context = av.CodecContext.create("png", "w")
    context.height, context.width = picture.shape[:2]
    context.pix_fmt, context.time_base = "rgb24", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(picture)
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


# --- damage ------------------------------------------------------------------------------------------------------


def add_mp3_cover(path: Path, picture: np.ndarray) -> None:
    """Put an ID3v2.3 tag with a front cover before the sound of an MP3."""
    content = b"\x00image/png\x00\x03\x00" + encode_png(picture)
    frame = b"APIC" + struct.pack(">IH", len(content), 0) + content
    size = bytes((len(frame) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\x03\x00\x00" + size + frame + path.read_bytes())


def add_flac_cover(path: Path, picture: np.ndarray) -> None:
    """Put a PICTURE block behind the STREAMINFO block of a FLAC file."""
    data, png = path.read_bytes(), encode_png(picture)
    height, width = picture.shape[:2]
    block = struct.pack(">II", 3, 9) + b"image/png" + struct.pack(">IIIIII", 0, width, height, 24, 0, len(png)) + png
    end = 4 + 4 + 34  # magic, block header, STREAMINFO
    path.write_bytes(data[:end] + b"\x06" + len(block).to_bytes(3, "big") + block + data[end:])


def add_pixel_crop(path: Path, left: int, top: int, right: int, bottom: int) -> None:
    """Put PixelCrop elements into the first track of a Matroska file that PyAV wrote."""
    data = bytearray(path.read_bytes())
    names = {0x54CC: left, 0x54BB: top, 0x54DD: right, 0x54AA: bottom}
    content = b"".join(struct.pack(">HBI", name, 0x84, value) for name, value in names.items())
    start, headers = 0, []
    for name in (b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae", b"\xe0"):  # segment, tracks, track, video
        start = _find_element(data, start, name)
        n_bytes = 9 - data[start].bit_length()
        headers.append((start, n_bytes))
        start += n_bytes
    for at, n_bytes in headers:
        size = int.from_bytes(data[at : at + n_bytes]) + len(content)  # the marker of its length is a higher bit
        assert (size ^ (1 << 7 * n_bytes)) < (1 << 7 * n_bytes) - 1
        data[at : at + n_bytes] = size.to_bytes(n_bytes)
    data[start:start] = content
    path.write_bytes(data)


def _find_element(data: bytearray, start: int, name: bytes) -> int:
    """Where the size of the next element of that name stands, among elements of one level."""
    while True:
        n_id = 9 - data[start].bit_length()
        at = start + n_id
        if data[start:at] == name:
            return at
        n_size = 9 - data[at].bit_length()
        start = at + n_size + (int.from_bytes(data[at : at + n_size]) & ((1 << 7 * n_size) - 1))


def add_clean_aperture(path: Path, left: int, top: int, right: int, bottom: int) -> None:
    """Put a `clap` box into the first track of an MP4 or QuickTime file that PyAV wrote, with its index at the end."""
    data = bytearray(path.read_bytes())
    start, boxes = data.index(b"moov") - 4, []
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b""):
        while name and data[start + 4 : start + 8] != name:
            start += int.from_bytes(data[start : start + 4])
        boxes.append(start)
        start += 16 if name == b"stsd" else 8
    entry = boxes[-1]
    width, height = struct.unpack_from(">HH", data, entry + 32)
    sizes = [width - left - right, 1, height - top - bottom, 1]
    content = b"clap" + struct.pack(">iIiI", *sizes) + struct.pack(">iIiI", left - right, 2, top - bottom, 2)
    end = entry + int.from_bytes(data[entry : entry + 4])
    data[end:end] = (4 + len(content)).to_bytes(4) + content
    for box in boxes:
        size = int.from_bytes(data[box : box + 4]) + 4 + len(content)
        data[box : box + 4] = size.to_bytes(4)
    path.write_bytes(data)


def truncate(path: Path, share: float) -> None:
    """Keep only the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def overwrite(path: Path, start: float, stop: float, seed: int = 0) -> None:
    """Replace a stretch of a file, given as shares of its size, by noise."""
    data = bytearray(path.read_bytes())
    first, last = int(len(data) * start), int(len(data) * stop)
    data[first:last] = np.random.default_rng(seed).bytes(last - first)
    path.write_bytes(bytes(data))


class OpenWatch:
    """Counts how often any process opens one file, as the kernel sees it (Linux inotify)."""

    IN_OPEN = 0x20

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK)
        if self._descriptor < 0 or libc.inotify_add_watch(self._descriptor, os.fsencode(path), self.IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), "inotify")

    def was_opened(self) -> bool:
        try:
            return bool(os.read(self._descriptor, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._descriptor)
