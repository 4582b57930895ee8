"""One demo clip: audio and video of one mood in one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.demo.encode import find_encoding, write_media
from vmnet_pipeline.demo.frames import draw_scene_style, render_frames
from vmnet_pipeline.demo.mood import draw_mood
from vmnet_pipeline.demo.music import draw_song_style, render_music
from vmnet_pipeline.errors import ParameterError

if TYPE_CHECKING:
    from pathlib import Path

    from vmnet_pipeline.demo.mood import Mood


def make_clip(
    path: Path,
    *,
    mood: Mood | None = None,
    seed: int = 0,
    duration_s: float = 4.0,
    with_audio: bool = True,
    with_video: bool | None = None,
    width: int = 320,
    height: int = 180,
    frame_rate_hz: int = 12,
    sample_rate_hz: int | None = None,
    channels: int = 2,
) -> Path:
    """Make one media file and return its path; equal arguments give equal bytes.

    Args:
        path: File to write; `.mp4`, `.webm`, `.mkv` hold audio and video, `.mp3`, `.ogg`, `.flac`, `.wav` audio.
        mood: None draws it from the seed.
        with_video: None = if the suffix allows it.
        width, height: In pixels, even.
        sample_rate_hz: Sample rate in Hz; None = 48,000 for `.webm`, else 44,100.
        channels: 1 or 2; `.ogg` needs 2.

    Raises:
        ParameterError: The suffix does not fit the streams, the sample rate or the channels.
    """
    encoding = find_encoding(path)
    if duration_s <= 0:
        raise ParameterError(f"{path.name}: duration_s={duration_s} must be positive")
    if with_video is None:
        with_video = encoding.video_codec is not None
    if sample_rate_hz is None:
        sample_rate_hz = 44_100 if 44_100 in encoding.sample_rates_hz else encoding.sample_rates_hz[0]
    mood_rng, song_rng, scene_rng, audio_rng, frame_rng = np.random.default_rng(seed).spawn(5)
    mood = draw_mood(mood_rng) if mood is None else mood
    song = draw_song_style(mood, song_rng)
    scene = draw_scene_style(mood, song.tempo_bpm, scene_rng)
    write_media(
        path,
        audio=render_music(song, audio_rng, duration_s, sample_rate_hz, channels) if with_audio else None,
        sample_rate_hz=sample_rate_hz,
        frames=render_frames(scene, frame_rng, duration_s, width, height, frame_rate_hz) if with_video else None,
        size=(width, height),
        frame_rate_hz=frame_rate_hz,
    )
    return path
