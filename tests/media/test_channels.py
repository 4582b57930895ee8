"""Channels to one: the mean, bit for bit, unless they cancel one another; then the loudest, and a word about it."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from hostile import encode_sound, make_sweep, write_wav

from vmnet_pipeline.backends.registry import get_backend
from vmnet_pipeline.extraction.batching import extract_items
from vmnet_pipeline.media.audio import decode_audio
from vmnet_pipeline.media.channels import Stereo
from vmnet_pipeline.types import MediaItem

if TYPE_CHECKING:
    from pathlib import Path

RATE_HZ = 16_000
RNG = np.random.default_rng(0)
SONG, OTHER = 0.2 * RNG.standard_normal((2, 4 * RATE_HZ))
SILENCE = np.zeros_like(SONG)


def write(path: Path, *channels: np.ndarray) -> np.ndarray:
    """A WAV file; returns its channels as they were stored, scaled to [-1, 1)."""
    stored = write_wav(path, np.round(np.stack(channels) * 32_767).clip(-32_768, 32_767).astype(np.int16), RATE_HZ)
    return stored / np.float32(32_768)


def decode(path: Path, max_duration_s: float | None = None) -> tuple[np.ndarray, str]:
    warnings: list[str] = []
    signal = decode_audio(path, sample_rate_hz=RATE_HZ, max_duration_s=max_duration_s, warnings=warnings)
    return signal, "; ".join(warnings)


CANCELLING = {
    "opposite": ([SONG, -SONG], 1),
    "opposite, the second louder": ([0.8 * SONG, -SONG], 2),
    "nearly opposite": ([SONG, -0.9 * SONG + 0.2 * OTHER], 1),
    "5.1, of which pairs cancel": ([0.7 * SONG, -0.7 * SONG, SILENCE, SILENCE, OTHER, -OTHER], 5),
    "5.1, of which pairs cancel beside a quiet centre": ([SONG, -SONG, 0.2 * OTHER, SILENCE, OTHER, -OTHER], None),
    "quad, of which neighbours cancel": ([SONG, OTHER, -SONG, -OTHER], None),
}


@pytest.mark.parametrize("kind", CANCELLING)
def test_of_channels_that_cancel_the_loudest_is_taken(tmp_path: Path, kind: str) -> None:
    channels, number = CANCELLING[kind]
    stored = write(tmp_path / "a.wav", *channels)
    loudest = int(np.argmax((stored**2).sum(axis=1)))
    assert number in (None, loudest + 1)
    signal, warning = decode(tmp_path / "a.wav")
    np.testing.assert_array_equal(signal, stored[loudest])
    assert f"its {len(channels)} channels are of opposite phase" in warning
    assert f"channel {loudest + 1}, the loudest, is used" in warning


ORDINARY = {
    "equal": [SONG, SONG],
    "unrelated": [SONG, OTHER],
    "one silent": [SONG, SILENCE],
    "all silent": [SILENCE, SILENCE],
    "opposite by half": [SONG, -0.6 * SONG + 0.8 * OTHER],
    "5.1": [SONG, OTHER, SONG, 0.3 * SONG, OTHER, -OTHER],
    "mono": [SONG],
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_all_others_are_averaged_as_before(tmp_path: Path, kind: str) -> None:
    stored = write(tmp_path / "a.wav", *ORDINARY[kind])
    signal, warning = decode(tmp_path / "a.wav")
    whole = (stored * np.float32(32_768)).sum(axis=0, dtype=np.float32)
    np.testing.assert_array_equal(signal, whole * np.float32(1.0 / (32_768 * len(stored))))
    assert warning == ""


@pytest.mark.parametrize(
    ("name", "codec", "sample_format"),
    [("a.mp3", "libmp3lame", "fltp"), ("a.m4a", "aac", "fltp"), ("a.flac", "flac", "s16"), ("a.ogg", "libopus", "flt")],
)
def test_codecs_of_every_sample_format(tmp_path: Path, name: str, codec: str, sample_format: str) -> None:
    rate_hz = 48_000
    sound = make_sweep(3.0, rate_hz)
    encode_sound(
        tmp_path / name, np.stack([sound, -sound]), rate_hz, codec, layout="stereo", sample_format=sample_format
    )
    encode_sound(tmp_path / f"mono-{name}", sound, rate_hz, codec, sample_format=sample_format)
    signal, warning = decode(tmp_path / name)
    mono, _ = decode(tmp_path / f"mono-{name}")
    assert "opposite phase" in warning
    n = min(len(signal), len(mono))
    assert np.corrcoef(signal[:n], mono[:n])[0, 1] > 0.98
    assert np.std(signal[:n]) == pytest.approx(np.std(mono[:n]), rel=0.1)


@pytest.mark.parametrize("first_cancels", [True, False])
def test_only_the_window_counts(tmp_path: Path, first_cancels: bool) -> None:
    n = len(SONG) // 16
    sign = np.where(np.arange(len(SONG)) < n, -1.0, 1.0) * (1 if first_cancels else -1)
    write(tmp_path / "a.wav", SONG, sign * SONG)
    for window_s in (0.1, 0.25):
        assert ("opposite phase" in decode(tmp_path / "a.wav", window_s)[1]) == first_cancels
    assert ("opposite phase" in decode(tmp_path / "a.wav")[1]) != first_cancels


def test_memory_is_that_of_one_channel(tmp_path: Path) -> None:
    sound = np.tile(SONG, 10)
    write(tmp_path / "a.wav", *(sign * sound for sign in (1, -1) * 8))
    decode(tmp_path / "a.wav", 0.1)
    tracemalloc.start()
    signal, warning = decode(tmp_path / "a.wav")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "its 16 channels" in warning
    assert peak < 4 * signal.nbytes


@pytest.mark.parametrize("name", ["musicnn", "vggish"])
def test_the_row_of_the_item_says_so(tmp_path: Path, name: str) -> None:
    backend = get_backend(name, {"weights": "random", "engine": "torch", "precision": "f32"}, weights_dir=tmp_path)
    assert "the loudest if they cancel" in backend.fingerprint().settings["decoder"]
    write(tmp_path / "a.wav", SONG, -SONG)
    write(tmp_path / "b.wav", SONG)
    items = [MediaItem(name, str(tmp_path / f"{name}.wav"), name) for name in ("a", "b")]
    cancelling, mono = extract_items(backend, items)
    assert (cancelling.row.status, mono.row.warning) == ("done", "")
    assert "opposite phase" in cancelling.row.warning
    np.testing.assert_allclose(cancelling.array, mono.array, rtol=1e-4, atol=1e-6)


def make_frame(layout: str, kind: str, channels: np.ndarray) -> av.AudioFrame:
    planar = kind.endswith("p")
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(channels) if planar else np.ascontiguousarray(channels.T).reshape(1, -1),
        format=kind,
        layout=layout,
    )
    frame.sample_rate = RATE_HZ
    return frame


@pytest.mark.parametrize("kind", ["s16", "fltp"])
def test_one_channel_is_doubled_and_two_stay(kind: str) -> None:
    scale, dtype = (32_768, np.int16) if kind == "s16" else (1, np.float32)
    pair = (np.stack([SONG, OTHER])[:, :500] * scale).astype(dtype)
    left, right = pair / np.float32(scale)
    stereo = Stereo().mix(make_frame("stereo", kind, pair))
    assert stereo.dtype == np.float32
    assert np.allclose(stereo, np.stack([left, right], axis=1), atol=1e-6)
    assert np.allclose(Stereo().mix(make_frame("mono", kind, pair[:1])), np.stack([left, left], axis=1), atol=1e-6)


def test_surround_is_mixed_down_with_the_centre_on_both_sides() -> None:
    mixer = Stereo()
    for place, sides in ((0, (1.0, 0.0)), (1, (0.0, 1.0)), (2, (0.7071, 0.7071)), (4, (0.7071, 0.0))):
        channels = np.zeros((6, 400), np.float32)
        channels[place] = 0.5
        mixed = mixer.mix(make_frame("5.1", "fltp", channels))
        assert mixed.shape == (400, 2)
        assert mixed[200] == pytest.approx([0.5 * side for side in sides], abs=0.01)


def test_silence_has_two_channels() -> None:
    assert Stereo.make_silence(3).shape == (3, 2)
