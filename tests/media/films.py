"""Builder of films whose sides have clocks of any kind: late, with gaps, joined, starting anywhere."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
from hostile import draw_number, make_sine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FRAME_RATE_HZ = 25
SAMPLE_RATE_HZ = 48_000
_TICK = Fraction(1, 90_000)
_CODECS = {
    "ts": ("libx264", "aac"),
    "vob": ("mpeg2video", "mp2"),
    "flv": ("libx264", "aac"),
    "mkv": ("libx264", "aac"),
    "webm": ("libvpx-vp9", "libopus"),
    "mp4": ("libx264", "aac"),
}

Tone = tuple[float, float, float]
"""Start in seconds, duration in seconds, frequency in Hz."""


def count_times(first_s: float, duration_s: float) -> list[float]:
    """When the frames of a steady recording are shown."""
    return [first_s + k / FRAME_RATE_HZ for k in range(round(duration_s * FRAME_RATE_HZ))]


def write_film(
    path: Path,
    times_s: Sequence[float],
    tones: Sequence[Tone] = (),
    *,
    first_number: int = 0,
    format: str | None = None,
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
    side_px: tuple[int, int] = (48, 80),
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    layout: str = "mono",
) -> None:
    """Frame k shows `first_number + k` and appears at `times_s[k]`; every tone has packets of its own times."""
    kind = path.suffix.removeprefix(".")
    video_codec, audio_codec = _CODECS[kind]
    with av.open(str(path), "w", format=format, options=options or {}) as container:
        packets = []
        if times_s:
            stream = container.add_stream(video_codec, rate=FRAME_RATE_HZ, options=codec_options or {})
            stream.height, stream.width = side_px
            stream.pix_fmt = "yuv420p"
            if video_codec != "mpeg2video":
                stream.codec_context.time_base = _TICK
        if tones:
            sound = container.add_stream(audio_codec, rate=sample_rate_hz)
            sound.codec_context.layout = layout
        if times_s:
            packets += _encode_frames(stream, times_s, first_number, side_px, steady=video_codec == "mpeg2video")
        for tone in tones:
            packets += _encode_tone(sound, tone, layout)
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        for packet in packets:
            container.mux(packet)


def _encode_frames(stream, times_s, first_number, side_px, *, steady):  # type: ignore[no-untyped-def]
    packets = []
    for k, time_s in enumerate(times_s):
        frame = av.VideoFrame.from_ndarray(draw_number(first_number + k, *side_px))
        frame.time_base = Fraction(1, FRAME_RATE_HZ) if steady else _TICK
        frame.pts = round(time_s / frame.time_base)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _encode_tone(stream, tone, layout):  # type: ignore[no-untyped-def]
    """A tone of an encoder of its own, so that a gap between two is a gap of timestamps."""
    start_s, duration_s, frequency_hz = tone
    rate_hz = stream.codec_context.sample_rate
    context = av.CodecContext.create(stream.codec_context.name, "w")
    context.sample_rate, context.layout = rate_hz, layout
    context.format, context.time_base = stream.codec_context.format, Fraction(1, rate_hz)
    if stream.codec_context.name == "aac":  # a header for all
        context.flags |= 1 << 22
    samples = make_sine(duration_s, rate_hz, frequency_hz).astype(np.float32)
    n_channels = 1 if layout == "mono" else 2
    frame = av.AudioFrame.from_ndarray(np.tile(samples, (n_channels, 1)), format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, round(start_s * rate_hz), Fraction(1, rate_hz)
    resampler = av.AudioResampler(format=context.format, layout=layout, rate=rate_hz, frame_size=context.frame_size)
    packets = []
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        packets += context.encode(part)
    packets += context.encode(None)
    for packet in packets:
        packet.stream, packet.time_base = stream, Fraction(1, rate_hz)
    return packets


def join_files(target: Path, *parts: Path) -> None:
    """What `cat` makes."""
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
