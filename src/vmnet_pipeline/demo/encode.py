"""Encode arrays to media files, the same bytes every time.

Encoders run on one thread and all muxers are bit-exact, without dates, random identifiers and library versions.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.storage.atomic import replace_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_ALL_RATES_HZ = (16_000, 22_050, 32_000, 44_100, 48_000)
_BLOCK_S = 0.5


@dataclass(frozen=True, slots=True)
class Encoding:
    """How files of one suffix are written."""

    container: str
    audio_codec: str
    sample_format: str
    sample_rates_hz: tuple[int, ...] = _ALL_RATES_HZ  # sample rates that survive a round trip
    channels: tuple[int, ...] = (1, 2)
    video_codec: str | None = None  # FFmpeg's name of the video encoder; None = audio only


# Opus always decodes at 48 kHz; FFmpeg's own Vorbis encoder knows stereo only.
ENCODINGS = {
    ".mp4": Encoding("mp4", "aac", "fltp", video_codec="libx264"),
    ".webm": Encoding("webm", "libopus", "flt", (48_000,), video_codec="libvpx-vp9"),
    ".mkv": Encoding("matroska", "ac3", "fltp", (32_000, 44_100, 48_000), video_codec="libx264"),
    ".mp3": Encoding("mp3", "libmp3lame", "fltp"),
    ".ogg": Encoding("ogg", "vorbis", "fltp", channels=(2,)),
    ".flac": Encoding("flac", "flac", "s16"),
    ".wav": Encoding("wav", "pcm_s16le", "s16"),
}

_AUDIO_OPTIONS = {"aac": {"aac_coder": "fast"}, "vorbis": {"strict": "experimental"}}
_AUDIO_BIT_RATE = {"aac": 96_000, "libopus": 64_000, "ac3": 128_000, "libmp3lame": 96_000, "vorbis": 96_000}
# The look-ahead of x264 reads uninitialised memory and gives other bytes from run to run, so it is off. A fixed pattern
# of B-frames stays, so that frames are stored out of order as in real files.
_X264_PARAMS = "bframes=2:b-adapt=0:rc-lookahead=0:mbtree=0:weightp=0:weightb=0:scenecut=0"
_VIDEO_OPTIONS = {
    "libx264": {"preset": "veryfast", "crf": "27", "x264-params": _X264_PARAMS},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "38", "b": "0", "row-mt": "0", "lag-in-frames": "0"},
}


def find_encoding(path: Path) -> Encoding:
    """Look up how a file is written, by its suffix.

    Raises:
        ParameterError: The suffix is not known.
    """
    try:
        return ENCODINGS[path.suffix.lower()]
    except KeyError:
        raise ParameterError(f"cannot write {path.name}: use one of the suffixes {', '.join(ENCODINGS)}") from None


def write_media(
    path: Path,
    *,
    audio: np.ndarray | None = None,
    sample_rate_hz: int = 44_100,
    frames: Iterable[np.ndarray] | None = None,
    size: tuple[int, int] = (320, 180),
    frame_rate_hz: int = 12,
) -> None:
    """Write one media file; it appears under its name only when it is complete.

    Args:
        path: File to write; the suffix chooses container and codecs.
        audio: (n_samples, channels) float32 in [-1, 1]; None = no audio stream.
        frames: (height, width, 3) uint8 RGB each; None = no video stream.
        size: Width and height in pixels, even numbers.

    Raises:
        ParameterError: The suffix does not fit the streams, the sample rate or the channels.
    """
    encoding = find_encoding(path)
    _check_streams(path, encoding, audio, sample_rate_hz, frames is not None, size)
    with replace_atomically(path) as temporary:
        _write_streams(temporary, encoding, audio, sample_rate_hz, frames, size, frame_rate_hz)


def _check_streams(
    path: Path,
    encoding: Encoding,
    audio: np.ndarray | None,
    sample_rate_hz: int,
    has_video: bool,
    size: tuple[int, int],
) -> None:
    if audio is None and not has_video:
        raise ParameterError(f"{path.name} would have no stream; give audio, frames or both")
    if has_video and encoding.video_codec is None:
        raise ParameterError(f"{path.name}: a {path.suffix} file holds audio only; use .mp4, .webm or .mkv for video")
    if has_video and (min(size) < 16 or size[0] % 2 or size[1] % 2):
        raise ParameterError(f"{path.name}: frame size {size} must be even and at least 16 pixels each way")
    if audio is None:
        return
    if sample_rate_hz not in encoding.sample_rates_hz:
        rates = ", ".join(map(str, encoding.sample_rates_hz))
        raise ParameterError(
            f"{path.name}: {sample_rate_hz} Hz cannot be written as {encoding.audio_codec}; use {rates}"
        )
    if audio.ndim != 2 or audio.shape[1] not in encoding.channels:
        raise ParameterError(
            f"{path.name}: audio of shape {audio.shape} cannot be written as {encoding.audio_codec}; "
            f"use (n_samples, channels) with {' or '.join(map(str, encoding.channels))} channels"
        )


def _write_streams(
    path: Path,
    encoding: Encoding,
    audio: np.ndarray | None,
    sample_rate_hz: int,
    frames: Iterable[np.ndarray] | None,
    size: tuple[int, int],
    frame_rate_hz: int,
) -> None:
    import av

    with av.open(str(path), "w", format=encoding.container, options={"fflags": "+bitexact"}) as container:
        # All streams have to be there before the first packet is written.
        timed = []
        if frames is not None:
            stream = _add_video(container, encoding, size, frame_rate_hz)
            timed.append(_stamp(stream, _to_video_frames(frames, frame_rate_hz)))
        if audio is not None:
            stream = _add_audio(container, encoding, sample_rate_hz, audio.shape[1])
            timed.append(_stamp(stream, _cut_blocks(audio, sample_rate_hz, encoding.sample_format)))
        # Streams are interleaved by time, as muxers buffer what comes too early.
        for _, stream, frame in heapq.merge(*timed, key=lambda entry: entry[0]):
            container.mux(stream.encode(frame))
        for stream in container.streams:
            container.mux(stream.encode(None))


def _stamp(stream: Any, frames: Iterable[Any]) -> Iterator[tuple[Fraction, Any, Any]]:
    """Put the time in seconds and the stream before every frame."""
    for frame in frames:
        yield frame.pts * frame.time_base, stream, frame


def _add_video(container: Any, encoding: Encoding, size: tuple[int, int], frame_rate_hz: int) -> Any:
    codec = encoding.video_codec
    assert codec is not None  # noqa: S101  # checked by `_check_streams`
    stream = container.add_stream(codec, rate=frame_rate_hz, options=dict(_VIDEO_OPTIONS[codec]))
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    stream.codec_context.gop_size = 4 * frame_rate_hz
    stream.codec_context.time_base = Fraction(1, frame_rate_hz)
    return _make_exact(stream)


def _add_audio(container: Any, encoding: Encoding, sample_rate_hz: int, channels: int) -> Any:
    codec = encoding.audio_codec
    stream = container.add_stream(
        codec,
        rate=sample_rate_hz,
        options=dict(_AUDIO_OPTIONS.get(codec, {})),
        layout="mono" if channels == 1 else "stereo",
        format=encoding.sample_format,
    )
    if codec in _AUDIO_BIT_RATE:
        stream.codec_context.bit_rate = _AUDIO_BIT_RATE[codec]
    return _make_exact(stream)


def _make_exact(stream: Any) -> Any:
    from av.codec.context import Flags

    stream.codec_context.thread_count = 1
    stream.codec_context.flags |= Flags.bitexact
    return stream


def _cut_blocks(audio: np.ndarray, sample_rate_hz: int, sample_format: str) -> Iterator[Any]:
    import av

    n_block = round(_BLOCK_S * sample_rate_hz)
    if sample_format == "s16":
        audio = np.round(audio * 32767.0).astype(np.int16)
    for start in range(0, len(audio), n_block):
        block = audio[start : start + n_block]
        planes = block.T if sample_format == "fltp" else block.reshape(1, -1)
        layout = "mono" if audio.shape[1] == 1 else "stereo"
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes), format=sample_format, layout=layout)
        frame.sample_rate = sample_rate_hz
        frame.pts = start
        frame.time_base = Fraction(1, sample_rate_hz)
        yield frame


def _to_video_frames(frames: Iterable[np.ndarray], frame_rate_hz: int) -> Iterator[Any]:
    import av
    from av.video.reformatter import VideoReformatter

    # One thread: more cost several times the conversion of such small frames.
    converter = VideoReformatter()
    for index, image in enumerate(frames):
        frame = converter.reformat(av.VideoFrame.from_ndarray(image, format="rgb24"), format="yuv420p", threads=1)
        frame.pts = index
        frame.time_base = Fraction(1, frame_rate_hz)
        yield frame
