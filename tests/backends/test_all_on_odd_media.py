"""Every odd file has a stated outcome at every backend: features without NaN, or a reason (see docs/features.md)."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vmnet_pipeline.backends.registry import get_backend
from vmnet_pipeline.extraction.batching import extract_items
from vmnet_pipeline.types import MediaItem

sys.path.append(str(Path(__file__).resolve().parents[1] / "media"))
import hostile

NOISE = np.random.default_rng(0).standard_normal(16_000 * 4) * 0.1


def to_int16(samples):
    return np.clip(np.round(samples * 32_767), -32_768, 32_767).astype(np.int16)


def wav(samples, rate_hz=16_000):
    return lambda path: hostile.write_wav(path.with_suffix(".wav"), to_int16(samples), rate_hz)


def encoded(channels, rate_hz, codec, suffix, **options):
    return lambda path: hostile.encode_sound(path.with_suffix(suffix), channels, rate_hz, codec, **options)


def make_hour(path):
    hostile.write_wav(path.with_suffix(".wav"), to_int16(np.tile(NOISE[:8_000], 7_300)), 8_000)


def make_cover(path):
    hostile.encode_sound(path.with_suffix(".mp3"), NOISE, 16_000, "libmp3lame", sample_format="s16p")
    hostile.add_mp3_cover(path.with_suffix(".mp3"), hostile.draw_number(5))


def truncated_flac(path):
    hostile.encode_sound(path.with_suffix(".flac"), NOISE, 16_000, "flac", sample_format="s16")
    hostile.truncate(path.with_suffix(".flac"), 0.6)


def film(n_frames=75, size=(48, 80), suffix=".mp4", **options):
    def make(path):
        pictures = [hostile.draw_number(k, *size) for k in range(n_frames)]
        if options.get("picture_format") == "rgba":
            pictures = [np.dstack([picture, np.full(size, 128, np.uint8)]) for picture in pictures]
        hostile.encode_video(path.with_suffix(suffix), pictures, **options)

    return make


def truncated_film(path):
    film(suffix=".mkv")(path)
    hostile.truncate(path.with_suffix(".mkv"), 0.6)


def garbage(path):
    path.with_suffix(".mp4").write_bytes(np.random.default_rng(1).bytes(5_000))


VARIABLE = [0, 100, 1_500, 1_600, 2_900, 3_000]
SOUNDS = {
    "silent": wav(np.zeros(16_000 * 4)),
    "clipped": wav(np.clip(NOISE * 100, -1, 1)),
    "8 kHz": wav(NOISE[:32_000], 8_000),
    "96 kHz": wav(NOISE, 96_000),
    "5.1": encoded(np.tile(NOISE, (6, 1)), 48_000, "flac", ".flac", layout="5.1", sample_format="s16"),
    "mono": wav(NOISE),
    "0.2 s": wav(NOISE[:3_200]),
    "longer than an hour": make_hour,
    "cover picture": make_cover,
    "truncated": truncated_flac,
}
FILMS = {
    "shorter than a second": (film(5), 1),
    "rotated": (film(rotation=(90.0, False, False)), 3),
    "variable frame rate": (film(6, pts=VARIABLE, time_base=Fraction(1, 1_000)), 4),
    "odd size": (film(size=(47, 81), pixel_format="yuv444p"), 3),
    "10 bit": (film(pixel_format="yuv420p10le"), 3),
    "alpha": (film(suffix=".mov", codec="qtrle", pixel_format="argb", picture_format="rgba"), 3),
    "truncated": (truncated_film, None),
}
REASONS = {
    ("audio", "no audio stream"): (film(), "no_audio_stream"),
    ("audio", "garbage"): (garbage, "unknown_format"),
    ("video", "no video stream"): (wav(NOISE), "no_video_stream"),
    ("video", "cover picture"): (make_cover, "no_video_stream"),
    ("video", "garbage"): (garbage, "unknown_format"),
}


SHAPES = [("vggish", (62, 512, 6, 4)), ("musicnn", (200,)), ("descriptors_audio", (47,))]


@pytest.fixture(scope="module")
def backends(tmp_path_factory):
    """With random weights, which every machine has; converted once for all tests here."""
    folder = tmp_path_factory.mktemp("weights")
    names = ("vggish", "musicnn", "efficientnet", "descriptors_audio", "descriptors_video")
    return {name: get_backend(name, {"weights": "random"}, weights_dir=folder) for name in names}


def extract_one(backend, make, tmp_path):
    make(tmp_path / "odd")
    (path,) = tmp_path.glob("odd.*")
    (result,) = extract_items(backend, [MediaItem("odd", str(path), "x")])
    return result


@pytest.mark.long
@pytest.mark.parametrize("kind", list(SOUNDS))
@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_odd_sound_gives_features(backends, tmp_path, name, shape, kind):
    result = extract_one(backends[name], SOUNDS[kind], tmp_path)
    assert result.row.status == "done", result.row.error
    assert result.array.shape[-len(shape) :] == shape
    assert np.isfinite(result.array).all()
    if kind == "longer than an hour":
        assert len(result.array) == {"vggish": 62, "musicnn": 100, "descriptors_audio": 47}[name]
    if kind == "0.2 s":
        assert result.row.n_valid == 1


@pytest.mark.parametrize("kind", list(FILMS))
def test_odd_film_gives_features(backends, tmp_path, kind):
    make, n_pictures = FILMS[kind]
    result = extract_one(backends["efficientnet"], make, tmp_path)
    assert result.row.status == "done", result.row.error
    assert result.array.shape[1] == 1280
    assert len(result.array) == n_pictures or (n_pictures is None and 1 <= len(result.array) <= 3)
    assert np.isfinite(result.array).all()


@pytest.mark.parametrize("kind", list(FILMS))
def test_odd_film_gives_descriptors(backends, tmp_path, kind):
    result = extract_one(backends["descriptors_video"], FILMS[kind][0], tmp_path)
    assert (result.row.status, result.row.n_valid) == ("done", 1), result.row.error
    assert result.array.shape == (31,)
    assert np.isfinite(result.array).all()


@pytest.mark.parametrize(("modality", "kind"), list(REASONS))
def test_unusable_file_gives_a_reason(backends, tmp_path, modality, kind):
    make, reason = REASONS[modality, kind]
    for backend in backends.values():
        if backend.modality == modality:
            for path in tmp_path.glob("odd.*"):
                path.unlink()
            result = extract_one(backend, make, tmp_path)
            assert (result.row.status, result.row.reason, result.array) == ("failed", reason, None)
            assert result.row.error
