"""Videos and music for tests of the mix, made with PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 48_000


def make_noise(seconds: float, seed: int = 0, level: float = 0.1) -> np.ndarray:
    """(n, 2) float32 noise, the same in both channels."""
    noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32) * level
    return np.stack([noise, noise], axis=1)


def make_tone(seconds: float, hertz: float, level: float = 0.1) -> np.ndarray:
    """(n, 2) float32 sine."""
    time = np.arange(round(seconds * RATE)) / RATE
    tone = (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32)
    return np.stack([tone, tone], axis=1)


def write_music(path: Path, samples: np.ndarray, codec: str = "pcm_s16le", rate: int = RATE) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate)
        stream.codec_context.layout = "stereo"
        _encode(out, stream, samples, rate)
    return path


def _encode(out, stream, samples: np.ndarray, rate: int) -> None:
    for start in range(0, len(samples), rate):
        block = np.ascontiguousarray(samples[start : start + rate], np.float32)
        frame = av.AudioFrame.from_ndarray(block.reshape(1, -1), format="flt", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def write_video(
    path: Path,
    seconds: float = 2.0,
    *,
    rate: int = 25,
    codec: str = "libx264",
    sound: np.ndarray | None = None,
    sound_codec: str = "aac",
    times: list[int] | None = None,
    b_frames: int = 2,
    size: tuple[int, int] = (64, 48),
    chapters: list | None = None,
    rotation: int = 0,
    metadata: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A video whose frames are numbered by brightness; `times` are those of its frames in ms, else it is regular."""
    with av.open(str(path), "w", options=options or {}) as out:
        out.metadata.update(metadata or {})
        if chapters:
            out.set_chapters(chapters)
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "bf": str(b_frames), "g": "12"}
            stream.codec_context.max_b_frames = b_frames
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        voice = None
        if sound is not None:
            voice = out.add_stream(sound_codec, rate=RATE)
            voice.codec_context.layout = "stereo"
        if rotation:
            stream.set_display_rotation(rotation)
        ticks = times if times is not None else range(round(seconds * rate))
        for k, tick in enumerate(ticks):
            level = 16 + 8 * (k % 25)
            frame = av.VideoFrame.from_ndarray(np.full((size[1] * 3 // 2, size[0]), level, np.uint8), format="yuv420p")
            frame.pts, frame.time_base = tick, Fraction(1, 1000) if times is not None else Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if voice is not None:
            _encode(out, voice, sound, RATE)
    return path


def read_packets(path: Path, kind: str = "video") -> list[tuple[float, bytes]]:
    """(time, content) of the packets of the first stream of a kind."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [
            (float(packet.pts * packet.time_base), bytes(packet)) for packet in container.demux(stream) if packet.size
        ]


def read_sound(path: Path) -> np.ndarray:
    """(n, 2) float32 sound of a file at 48 kHz, as a player hears it from time 0 on."""
    blocks, place = [], 0
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="flt", layout="stereo", rate=RATE)
        for frame in container.decode(audio=0):
            start = round(float(frame.pts * frame.time_base) * RATE)
            if not blocks and start > 0:
                blocks.append(np.zeros((start, 2), np.float32))
                place = start
            for mixed in resampler.resample(frame):
                block = mixed.to_ndarray().reshape(-1, 2)
                blocks.append(block[max(0, place - start) if start < 0 else 0 :])
    return np.concatenate(blocks)


def find_offset(signal: np.ndarray, wanted: np.ndarray, most: int = 4800) -> int:
    """Samples by which `wanted` comes later in `signal` than at its begin, by cross-correlation; may be negative."""
    from scipy.signal import correlate

    long = np.concatenate([np.zeros(most), signal[:, 0]])
    scores = correlate(long[: len(wanted) + 2 * most], wanted[:, 0], "valid")
    return int(np.argmax(scores)) - most


def measure_loudness(path: Path) -> tuple[float, float]:
    """Loudness and true peak of a file by FFmpeg's own meter."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        graph = av.filter.Graph()
        source = graph.add_abuffer(template=stream)
        meter = graph.add("ebur128", "peak=true:metadata=1")
        sink = graph.add("abuffersink")
        source.link_to(meter)
        meter.link_to(sink)
        graph.configure()
        values: dict[str, str] = {}
        for frame in container.decode(stream):
            graph.push(frame)
            values = _pull(graph, values)
        graph.push(None)
        values = _pull(graph, values)
    peaks = [float(value) for name, value in values.items() if "true_peak" in name]
    return float(values["lavfi.r128.I"]), 20 * np.log10(max(peaks))


def _pull(graph, values):
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return values
        values = {**values, **frame.metadata} if hasattr(frame, "metadata") else values
