"""Sound: each odd file has a stated outcome, checked against formulas and independent tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from hostile import (
    add_mp3_cover,
    draw_number,
    encode_sound,
    encode_video,
    make_sine,
    make_sweep,
    overwrite,
    truncate,
    write_float_wav,
    write_wav,
)
from scipy import signal as scipy_signal

from vmnet_pipeline.errors import MediaError, ParameterError
from vmnet_pipeline.media.audio import decode_audio

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import CountingFile


def to_int16(samples: np.ndarray) -> np.ndarray:
    return np.round(samples * 32767).astype(np.int16)


def find_lag(decoded: np.ndarray, truth: np.ndarray) -> tuple[int, float]:
    """Delay of `decoded` in samples, and the correlation at that delay."""
    n = min(len(decoded), len(truth))
    correlation = scipy_signal.correlate(decoded[:n], truth[:n], method="fft")
    scale = np.linalg.norm(decoded[:n]) * np.linalg.norm(truth[:n])
    return int(np.argmax(correlation)) - (n - 1), float(correlation.max() / scale)


# --- plain files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 96_000])
def test_wav_at_its_own_rate_is_exact(tmp_path: Path, rate_hz: int) -> None:
    written = write_wav(tmp_path / "a.wav", to_int16(make_sine(0.5, rate_hz)), rate_hz)
    decoded = decode_audio(tmp_path / "a.wav", sample_rate_hz=rate_hz)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, written[0] / np.float32(32768))


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000, 96_000])
def test_resampled_sine_is_the_sine_at_the_new_rate(tmp_path: Path, rate_hz: int) -> None:
    write_wav(tmp_path / "a.wav", to_int16(make_sine(2.0, rate_hz, 440.0)), rate_hz)
    decoded = decode_audio(tmp_path / "a.wav", sample_rate_hz=16_000)
    assert decoded.shape == (32_000,)
    inner = slice(1_000, -1_000)  # the filter rings where the sine is switched on and off
    np.testing.assert_allclose(decoded[inner], make_sine(2.0, 16_000, 440.0)[inner], atol=1e-4)


def test_resampling_agrees_with_scipy(tmp_path: Path) -> None:
    samples = make_sweep(2.0, 44_100)
    write_wav(tmp_path / "a.wav", to_int16(samples), 44_100)
    decoded = decode_audio(tmp_path / "a.wav", sample_rate_hz=16_000)
    expected = scipy_signal.resample_poly(samples, 160, 441, window=("kaiser", 12.0))
    assert abs(len(decoded) - len(expected)) <= 1
    np.testing.assert_allclose(decoded[500:31_000], expected[500:31_000], atol=2e-3)


def test_sound_above_the_new_nyquist_frequency_is_removed(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", to_int16(make_sine(1.0, 44_100, 11_000.0)), 44_100)
    decoded = decode_audio(tmp_path / "a.wav", sample_rate_hz=16_000)
    assert np.abs(decoded[1_000:-1_000]).max() < 1e-4  # aliased it would be a sine of 0.5 at 5 kHz


def test_all_six_channels_count_the_same(tmp_path: Path) -> None:
    levels = np.array([0.6, -0.3, 0.12, 0.9, 0.06, -0.06])
    encode_sound(
        tmp_path / "a.flac",
        np.repeat(levels[:, None], 4_800, axis=1),
        48_000,
        "flac",
        layout="5.1",
        sample_format="s16",
    )
    decoded = decode_audio(tmp_path / "a.flac", sample_rate_hz=48_000)
    np.testing.assert_allclose(decoded, levels.mean(), atol=1 / 32_768)


@pytest.mark.parametrize(("layout", "n_channels"), [("7.1", 8), ("hexadecagonal", 16)])
@pytest.mark.parametrize(("name", "codec", "sample_format"), [("a.wav", "pcm_s16le", "s16"), ("a.mkv", "aac", "fltp")])
def test_many_channels(tmp_path: Path, name: str, codec: str, sample_format: str, layout: str, n_channels: int) -> None:
    if (codec, n_channels) == ("aac", 16):
        pytest.skip("the encoder makes at most eight channels")
    sound = make_sine(1.0, 48_000, 50.0)[None] * np.linspace(0.1, 1.0, n_channels)[:, None]
    encode_sound(tmp_path / name, sound, 48_000, codec, layout=layout, sample_format=sample_format)
    decoded = decode_audio(tmp_path / name, sample_rate_hz=48_000)
    inner = slice(4_800, -4_800)
    np.testing.assert_allclose(decoded[: sound.shape[1]][inner], sound.mean(axis=0)[inner], atol=0.02)


@pytest.mark.parametrize(
    "codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_s64le", "pcm_f32le", "pcm_f64le"]
)
def test_every_sample_format_has_the_same_scale(tmp_path: Path, codec: str) -> None:
    samples = np.stack([make_sine(0.2, 16_000), np.zeros(3_200)])
    path = tmp_path / "a.wav"
    native = {"pcm_u8": "u8", "pcm_s16le": "s16", "pcm_f32le": "flt", "pcm_f64le": "dbl", "pcm_s64le": "s64"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=16_000)
        stream.codec_context.layout = "stereo"
        stream.codec_context.format = native.get(codec, "s32")
        frame = av.AudioFrame.from_ndarray(samples, format="dblp", layout="stereo")
        frame.sample_rate, frame.pts = 16_000, 0
        resampler = av.AudioResampler(format=native.get(codec, "s32"), layout="stereo", rate=16_000)
        for converted in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    tolerance = 1e-2 if codec == "pcm_u8" else 4e-5
    decoded = decode_audio(path, sample_rate_hz=16_000)
    np.testing.assert_allclose(decoded, samples.mean(axis=0), atol=tolerance)


# --- odd sound ---------------------------------------------------------------------------------------------------


def test_silence_stays_silence(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.zeros(44_100, np.int16), 44_100)
    decoded = decode_audio(tmp_path / "a.wav", sample_rate_hz=16_000)
    assert decoded.shape == (16_000,)
    assert not decoded.any()


def test_clipped_sound_is_kept_as_it_is(tmp_path: Path) -> None:
    clipped = np.clip(4 * make_sine(0.5, 16_000), -1, 32767 / 32768)
    write_wav(tmp_path / "a.wav", np.floor(clipped * 32768), 16_000)
    decoded = decode_audio(tmp_path / "a.wav", sample_rate_hz=16_000)
    assert (decoded.min(), decoded.max()) == (-1.0, np.float32(32767 / 32768))
    assert (np.abs(decoded) > 0.999).mean() > 0.5


def test_fifth_of_a_second_gives_what_there_is(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", to_int16(make_sine(0.2, 48_000)), 48_000)
    assert decode_audio(tmp_path / "a.wav", sample_rate_hz=16_000, max_duration_s=60).shape == (3_200,)


def test_float_samples_above_full_scale_are_not_clipped(tmp_path: Path) -> None:
    write_float_wav(tmp_path / "a.wav", 3 * make_sine(0.1, 16_000), 16_000)
    np.testing.assert_allclose(
        decode_audio(tmp_path / "a.wav", sample_rate_hz=16_000), 3 * make_sine(0.1, 16_000), atol=1e-6
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_samples_that_are_no_numbers_are_refused(tmp_path: Path, bad: float, rate_hz: int) -> None:
    samples = make_sine(0.5, rate_hz)
    samples[100] = bad
    write_float_wav(tmp_path / "a.wav", samples, rate_hz)
    with pytest.raises(MediaError, match="not finite") as caught:
        decode_audio(tmp_path / "a.wav", sample_rate_hz=16_000)
    assert caught.value.reason == "undecodable_audio"


@pytest.mark.parametrize("rate_hz", [1, 2**31 - 1])
def test_impossible_sample_rate_is_refused(tmp_path: Path, rate_hz: int) -> None:
    write_float_wav(tmp_path / "a.wav", np.zeros(100), 16_000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[24:28] = rate_hz.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(bytes(data))
    with pytest.raises(MediaError):
        decode_audio(tmp_path / "a.wav", sample_rate_hz=16_000)


def test_rate_that_changes_midway_is_followed(tmp_path: Path) -> None:
    for name, rate_hz in (("a", 48_000), ("b", 24_000)):
        encode_sound(tmp_path / f"{name}.aac", make_sine(2.0, rate_hz), rate_hz, "aac")
    joined = tmp_path / "joined.aac"
    joined.write_bytes((tmp_path / "a.aac").read_bytes() + (tmp_path / "b.aac").read_bytes())
    decoded = decode_audio(joined, sample_rate_hz=16_000)
    assert len(decoded) == pytest.approx(4.0 * 16_000, rel=0.05)
    for second in (1.0, 3.0):  # a wrong rate would move the tone to 220 or 880 Hz
        spectrum = np.abs(np.fft.rfft(decoded[int(second * 16_000) :][:16_000]))
        assert int(np.argmax(spectrum)) == pytest.approx(440, abs=2)


# --- lossy codecs start where the sound starts -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "rate_hz", "sample_format"),
    [
        ("a.mp3", "libmp3lame", 44_100, "fltp"),
        ("a.m4a", "aac", 44_100, "fltp"),
        ("a.mp4", "aac", 48_000, "fltp"),
        ("a.mkv", "aac", 48_000, "fltp"),
        ("a.ogg", "libopus", 48_000, "flt"),
        ("a.webm", "libopus", 48_000, "flt"),
        ("a.flac", "flac", 44_100, "s16"),
    ],
)
def test_encoder_delay_is_cut(tmp_path: Path, name: str, codec: str, rate_hz: int, sample_format: str) -> None:
    truth = make_sweep(2.0, rate_hz)
    encode_sound(tmp_path / name, truth, rate_hz, codec, sample_format=sample_format)
    lag, correlation = find_lag(decode_audio(tmp_path / name, sample_rate_hz=rate_hz), truth)
    assert lag == 0
    assert correlation > 0.98


def test_sound_of_a_film_is_found(tmp_path: Path) -> None:
    truth = make_sweep(1.0, 48_000)
    pictures = [draw_number(k) for k in range(25)]
    encode_video(tmp_path / "a.mp4", pictures, sound=(truth, 48_000, "aac"))
    lag, correlation = find_lag(decode_audio(tmp_path / "a.mp4", sample_rate_hz=48_000), truth)
    assert (lag, correlation > 0.98) == (0, True)


def test_cover_picture_does_not_disturb(tmp_path: Path) -> None:
    encode_sound(tmp_path / "a.mp3", make_sweep(1.0, 44_100), 44_100, "libmp3lame")
    plain = decode_audio(tmp_path / "a.mp3", sample_rate_hz=16_000)
    add_mp3_cover(tmp_path / "a.mp3", draw_number(5))
    np.testing.assert_array_equal(decode_audio(tmp_path / "a.mp3", sample_rate_hz=16_000), plain)


# --- the window ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("window_s", [0.1, 1.0, 1.7])
def test_window_is_exactly_the_beginning_of_the_whole(tmp_path: Path, rate_hz: int, window_s: float) -> None:
    noise = np.random.default_rng(0).normal(0, 3_000, size=3 * rate_hz)
    write_wav(tmp_path / "a.wav", noise, rate_hz)
    whole = decode_audio(tmp_path / "a.wav", sample_rate_hz=16_000, max_duration_s=None)
    window = decode_audio(tmp_path / "a.wav", sample_rate_hz=16_000, max_duration_s=window_s)
    assert window.shape == (round(window_s * 16_000),)
    np.testing.assert_array_equal(window, whole[: len(window)])


def test_of_an_hour_only_the_window_is_read(tmp_path: Path, counted_files: list[CountingFile]) -> None:
    minute = to_int16(make_sine(60.0, 8_000))
    path = tmp_path / "hour.wav"
    write_wav(path, np.tile(minute, 60), 8_000)
    decoded = decode_audio(path, sample_rate_hz=16_000, max_duration_s=60.0)
    assert decoded.shape == (960_000,)
    window_bytes = 60 * 8_000 * 2
    assert path.stat().st_size > 55 * window_bytes
    assert sum(file.n_bytes_read for file in counted_files) < 1.2 * window_bytes


def test_pictures_of_a_film_are_not_read_for_its_sound(tmp_path: Path, counted_files: list[CountingFile]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    path = tmp_path / "a.mov"
    sound = (make_sine(1.0, 48_000), 48_000, "aac")
    encode_video(path, [np.roll(noise, k, axis=0) for k in range(25)], codec="png", pixel_format="rgb24", sound=sound)
    assert len(decode_audio(path, sample_rate_hz=48_000)) >= 48_000
    assert sum(file.n_bytes_read for file in counted_files) < 0.5 * path.stat().st_size


@pytest.mark.parametrize(("rate_hz", "duration_s"), [(0, 1.0), (-1, None), (16_000, 0.0), (16_000, -2.0)])
def test_impossible_window_is_refused(tmp_path: Path, rate_hz: int, duration_s: float | None) -> None:
    with pytest.raises(ParameterError, match="must be"):
        decode_audio(tmp_path / "a.wav", sample_rate_hz=rate_hz, max_duration_s=duration_s)


# --- broken files ----------------------------------------------------------------------------------------------------


def test_film_without_sound_is_refused(tmp_path: Path) -> None:
    encode_video(tmp_path / "a.mp4", [draw_number(k) for k in range(10)])
    with pytest.raises(MediaError, match=r"a\.mp4.*no audio") as caught:
        decode_audio(tmp_path / "a.mp4", sample_rate_hz=16_000)
    assert caught.value.reason == "no_audio_stream"


@pytest.mark.parametrize(
    ("name", "codec", "sample_format"), [("a.mp3", "libmp3lame", "fltp"), ("a.flac", "flac", "s16")]
)
def test_truncated_file_gives_what_is_left(tmp_path: Path, name: str, codec: str, sample_format: str) -> None:
    path = tmp_path / name
    encode_sound(path, make_sweep(4.0, 44_100), 44_100, codec, sample_format=sample_format)
    whole = decode_audio(path, sample_rate_hz=44_100)
    truncate(path, 0.5)
    rest = decode_audio(path, sample_rate_hz=44_100)
    assert 0.3 * len(whole) < len(rest) < 0.8 * len(whole)
    np.testing.assert_array_equal(rest[:44_100], whole[:44_100])


def test_damaged_stretch_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    encode_sound(path, make_sine(4.0, 44_100), 44_100, "libmp3lame")
    whole = decode_audio(path, sample_rate_hz=44_100)
    overwrite(path, 0.5, 0.6)
    damaged = decode_audio(path, sample_rate_hz=44_100)
    assert np.isfinite(damaged).all()
    assert 0.85 * len(whole) < len(damaged) <= 1.02 * len(whole)
    np.testing.assert_array_equal(damaged[:44_100], whole[:44_100])


def test_container_without_one_good_packet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    encode_sound(path, make_sine(4.0, 44_100), 44_100, "flac", sample_format="s16")
    path.write_bytes(path.read_bytes().replace(b"\xff\xf8", b"\x00\x00"))  # no frame keeps its sync code
    with pytest.raises(MediaError, match="cannot be decoded") as caught:
        decode_audio(path, sample_rate_hz=16_000)
    assert caught.value.reason == "undecodable_audio"
