"""Small pictures and clips for the report."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from vmnet_pipeline.demo import write_media
from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.media.audio import decode_audio
from vmnet_pipeline.media.thumbnails import PreviewRequest, cut_clip, make_picture, make_previews

if TYPE_CHECKING:
    from pathlib import Path

RATE_HZ = 22_050


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds: each second has a grey of its own and a tone of its own."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    t_s = np.arange(6 * 48_000) / 48_000
    sound = 0.5 * np.sin(2 * np.pi * 400 * (1 + np.floor(t_s)) * t_s).astype(np.float32)
    pictures = [np.full((96, 192, 3), 40 * (frame // 10), np.uint8) for frame in range(60)]
    write_media(path, audio=sound[:, None], sample_rate_hz=48_000, frames=pictures, size=(192, 96), frame_rate_hz=10)
    return path


def find_tone_hz(signal: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(signal))) * RATE_HZ / len(signal))


@pytest.mark.parametrize(("at_s", "grey"), [(0.0, 0), (2.5, 80), (60.0, 0)])
def test_the_picture_of_a_time_is_small_and_in_proportion(film: Path, at_s: float, grey: int) -> None:
    picture = Image.open(io.BytesIO(make_picture(film, at_s=at_s)))
    assert picture.format == "JPEG"
    assert picture.size == (144, 72)
    assert np.asarray(picture).mean() == pytest.approx(grey, abs=6)


def test_a_clip_begins_where_it_should_and_is_small(film: Path, tmp_path: Path) -> None:
    content = cut_clip(film, start_s=2.0, duration_s=1.0)
    assert len(content) < 6_000
    (tmp_path / "clip.mp3").write_bytes(content)
    signal = decode_audio(tmp_path / "clip.mp3", sample_rate_hz=RATE_HZ)
    assert len(signal) == pytest.approx(RATE_HZ, abs=200)
    assert find_tone_hz(signal[4000:-4000]) == pytest.approx(1200, abs=10)
    assert abs(signal[:20]).max() < 0.1 < abs(signal).max()  # no click
    assert cut_clip(film, start_s=2.0, duration_s=1.0) == content


def test_of_a_short_file_the_end_is_taken(film: Path, tmp_path: Path) -> None:
    (tmp_path / "clip.mp3").write_bytes(cut_clip(film, start_s=50.0, duration_s=1.0))
    signal = decode_audio(tmp_path / "clip.mp3", sample_rate_hz=RATE_HZ)
    assert find_tone_hz(signal[4000:-4000]) == pytest.approx(2400, abs=10)


def test_what_cannot_be_read_is_left_out(film: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"not media")
    requests = [
        PreviewRequest("a", "audio", str(film), 6.0),
        PreviewRequest("gone", "audio", str(tmp_path / "gone.mp3"), 6.0),
        PreviewRequest("bad", "video", str(tmp_path / "bad.mp4")),
        PreviewRequest("a", "video", str(film), 6.0),
    ]
    previews = make_previews(requests)
    assert list(previews) == [("audio", "a"), ("video", "a")]
    assert previews["video", "a"] == make_picture(film, at_s=2.0)
    with pytest.raises(MediaError):
        cut_clip(tmp_path / "gone.mp3")


def test_nothing_far_into_a_long_file_is_decoded() -> None:
    assert PreviewRequest("a", "video", "x", 7200.0).start_s == 10.0
    assert PreviewRequest("a", "video", "x").start_s == 0.0
