"""Tracks with known beats, bars and sections, and videos with known cuts."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np

RATE_HZ = 22_050


def write_wave(path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ) -> str:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return str(path)


def render_clicks(
    bpm: float, duration_s: float, *, meter: int = 4, first_s: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Clicks with a bass drum on the first of each bar, and the times of the beats."""
    beats = np.arange(first_s, duration_s - 0.2, 60 / bpm)
    samples = np.zeros(round(duration_s * RATE_HZ))
    t = np.arange(round(0.12 * RATE_HZ)) / RATE_HZ
    for k, beat in enumerate(beats):
        is_down = k % meter == 0
        tone = np.sin(2 * np.pi * (70 if is_down else 900) * t) * np.exp(-t / 0.03) * (0.9 if is_down else 0.4)
        start = round(beat * RATE_HZ)
        samples[start : start + len(t)] += tone
    return samples, beats


def render_song(
    bpm: float, chords: list[tuple[float, ...]], bars: int, *, loud: list[float] | None = None
) -> np.ndarray:
    """Sections of so many bars of four beats, each on its own chord, over clicks; no silence before the first beat."""
    bar_s = 4 * 60 / bpm
    total_s = bar_s * bars * len(chords)
    clicks, _ = render_clicks(bpm, total_s, first_s=0.0)
    t = np.arange(len(clicks)) / RATE_HZ
    samples = clicks * 0.6
    for k, chord in enumerate(chords):
        inside = (t >= k * bars * bar_s) & (t < (k + 1) * bars * bar_s)
        level = 0.12 if loud is None else loud[k]
        samples[inside] += level * sum(np.sin(2 * np.pi * f * t[inside]) for f in chord)
    return samples


def write_shots(path: Path, cuts_s: list[float], duration_s: float, *, rate: int = 25, moving: bool = False) -> str:
    """A video whose shots have a colour and pattern of their own."""
    rng = np.random.default_rng(7)
    shots = [rng.integers(0, 255, (9, 16, 3)) for _ in range(len(cuts_s) + 1)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 160, 96, "yuv420p", 2_000_000
        for k in range(round(duration_s * rate)):
            shot = shots[int(np.searchsorted(cuts_s, k / rate + 1e-6, side="right"))]
            picture = np.kron(shot, np.ones((12, 10, 1)))[:96].astype(np.uint8)
            if moving:
                picture = np.roll(picture, k, axis=1)
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return str(path)
