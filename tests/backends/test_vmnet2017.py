"""The hand-made features of 2017: each quantity against a plain formula, their order, and odd sounds."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
from scipy import fft, ndimage

from vmnet_pipeline.backends import spectra
from vmnet_pipeline.backends.descriptors import vmnet2017
from vmnet_pipeline.backends.registry import get_backend
from vmnet_pipeline.demo import make_clip

pytestmark = pytest.mark.long

RATE, N_FFT, HOP = 12_000, 512, 256


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """1.5 s: a chord that changes, a beat of noise, a little hiss; float32."""
    rng = np.random.default_rng(5)
    t = np.arange(18_000) / RATE
    chord = np.where(t < 0.8, np.sin(2 * np.pi * 440 * t), np.sin(2 * np.pi * 523.25 * t)) + 0.5 * np.sin(
        660 * 6.2832 * t
    )
    beat = rng.normal(size=len(t)) * (np.exp(-30 * (t % 0.25)))
    return np.float32(0.2 * chord + 0.2 * beat + 0.003 * rng.normal(size=len(t)))


@pytest.fixture(scope="module")
def rows(sound):
    return vmnet2017.measure_rows(sound)


def frame(sound, n):
    padded = np.pad(sound.astype(np.float64), n // 2)
    return np.array([padded[start : start + n] for start in range(0, len(sound) + 1, HOP)])


def spectrum(sound, n_fft=N_FFT):
    """(frames, bins) magnitudes of Hann frames with zeros beyond the ends."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    return np.abs(np.fft.rfft(frame(sound, n_fft) * window))


def plain_chroma(sound, tuning):
    """Gaussians around each pitch class, octaves around the fifth of A0 weighted, the largest class 1."""
    frequency = np.arange(1, N_FFT // 2 + 1) * RATE / N_FFT
    position = 12 * np.log2(frequency / (440 * 2 ** (tuning / 12) / 16))
    every = 12 * np.log2(np.arange(1, N_FFT) * RATE / N_FFT / (440 * 2 ** (tuning / 12) / 16))
    position = np.concatenate([[position[0] - 18], position])
    width = np.maximum(np.diff(np.concatenate([position[:1], every]))[: len(position)], 1.0)
    distance = (position[:, None] - np.arange(12) + 6 + 120) % 12 - 6
    weight = np.exp(-0.5 * (2 * distance / width[:, None]) ** 2)
    weight /= np.linalg.norm(weight, axis=1, keepdims=True)
    weight *= np.exp(-0.5 * ((position[:, None] / 12 - 5) / 2) ** 2)
    chroma = spectrum(sound) ** 2 @ np.roll(weight, -3, axis=1)
    return (chroma / chroma.max(axis=1, keepdims=True)).T


def plain_cens(sound, tuning):
    """A constant-Q transform by its definition, three bins per semitone; classes, levels, and a smoothing over time."""
    n_bins, per_octave = 252, 36
    frequency = 32.7032 * 2 ** (tuning / per_octave) * 2.0 ** (np.arange(n_bins) / per_octave)
    ratio = 2.0 ** (1 / per_octave)
    quality = (ratio**2 + 1) / (ratio**2 - 1)
    padded = np.pad(sound.astype(np.float64), 12_000)
    starts = np.arange(0, len(sound) + 1, HOP) + 12_000
    power = np.empty((len(starts), n_bins))
    for k, f in enumerate(frequency):
        length = quality * RATE / f
        n = np.arange(-np.floor(length / 2), np.floor(length / 2))
        kernel = np.exp(2j * np.pi * f / RATE * n) * (0.5 + 0.5 * np.cos(2 * np.pi * n / len(n)))
        kernel *= np.sqrt(length) / np.abs(kernel).sum()
        reach = int(n[0])
        parts = np.array([padded[start + reach : start + reach + len(n)] for start in starts])
        power[:, k] = np.abs(parts @ kernel.conj())
    chroma = np.roll(power, 1, axis=1).reshape(len(starts), 7, 12, 3).sum(axis=(1, 3))
    chroma /= np.abs(chroma).sum(axis=1, keepdims=True)
    levels = 0.25 * sum((chroma > limit).astype(float) for limit in (0.05, 0.1, 0.2, 0.4))
    window = np.hanning(43)
    smooth = ndimage.convolve1d(levels, window / window.sum(), axis=0, mode="constant")
    return (smooth / np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-30)).T


def plain_mfcc(sound):
    """Cepstrum of the mel spectrogram at the default FFT size, 80 dB deep."""
    power = spectrum(sound, 2048) ** 2 @ spectra.build_slaney_filters(RATE, 2048, 128)
    level = 10 * np.log10(np.maximum(power, 1e-10))
    return fft.dct(np.maximum(level, level.max() - 80), norm="ortho", axis=1)[:, :20].T


def plain_delta(rows, order):
    """Derivative of the polynomial through nine frames, at the ends through the first and the last nine."""
    n, found = rows.shape[1], np.empty_like(rows)
    for k in range(n):
        middle = min(max(k, 4), n - 5)
        fits = np.polyfit(np.arange(-4, 5), rows[:, middle - 4 : middle + 5].T, order)
        for row, fit in enumerate(fits.T):
            found[row, k] = np.polyval(np.polyder(fit, order), k - middle)
    return found


def plain_centroid(sound):
    share = spectrum(sound)
    frequency = np.arange(N_FFT // 2 + 1) * RATE / N_FFT
    return (share @ frequency / share.sum(axis=1))[None]


def plain_bandwidth(sound):
    share, centre = spectrum(sound), plain_centroid(sound)[0]
    frequency = np.arange(N_FFT // 2 + 1) * RATE / N_FFT
    return np.sqrt((share * (frequency - centre[:, None]) ** 2).sum(axis=1) / share.sum(axis=1))[None]


def plain_rolloff(sound):
    share = spectrum(sound)
    running = np.cumsum(share, axis=1)
    return np.array([[np.flatnonzero(row >= 0.85 * row[-1])[0] * RATE / N_FFT for row in running]])


def plain_zero_crossings(sound):
    padded = np.pad(sound, N_FFT // 2, mode="edge")
    frames = [padded[start : start + N_FFT] for start in range(0, len(sound) + 1, HOP)]
    return np.array([[np.count_nonzero((row[1:] < 0) != (row[:-1] < 0)) / N_FFT for row in frames]])


def plain_polynomial(sound, order):
    return np.polyfit(np.arange(N_FFT // 2 + 1) * RATE / N_FFT, spectrum(sound).T, order)


PLAIN = {
    "chroma_stft": lambda sound, _: plain_chroma(sound, vmnet2017._tune_spectrum(sound)),
    "melspectrogram": lambda sound, _: (
        (spectrum(sound) ** 2 @ spectra.build_slaney_filters(22_050, N_FFT, 96)).T
    ),  # for another sampling rate than the sound's
    "mfcc": lambda sound, _: plain_mfcc(sound),
    "mfcc_delta": lambda _, rows: plain_delta(rows["mfcc"].astype(np.float64), 1),
    "mfcc_delta2": lambda _, rows: plain_delta(rows["mfcc"].astype(np.float64), 2),
    "rms": lambda sound, _: np.sqrt((frame(sound, N_FFT) ** 2).mean(axis=1))[None],
    "spectral_centroid": lambda sound, _: plain_centroid(sound),
    "spectral_bandwidth": lambda sound, _: plain_bandwidth(sound),
    "spectral_rolloff": lambda sound, _: plain_rolloff(sound),
    "poly_order1": lambda sound, _: plain_polynomial(sound, 1),
    "poly_order2": lambda sound, _: plain_polynomial(sound, 2),
    "zero_crossing_rate": lambda sound, _: plain_zero_crossings(sound),
}


@pytest.mark.parametrize("name", list(PLAIN))
def test_a_quantity_is_that_of_a_plain_formula(name, sound, rows):
    plain = PLAIN[name](sound, rows)
    scale = np.abs(plain).max(axis=1, keepdims=True)
    assert plain.shape == rows[name].shape == (vmnet2017.ROWS[name], 71)
    np.testing.assert_allclose(rows[name] / scale, plain / scale, atol=1e-3)


def test_cens_is_close_to_its_definition(sound, rows):
    plain = plain_cens(sound, vmnet2017._tune_signal(sound))
    assert plain.shape == rows["chroma_cens"].shape
    assert np.einsum("ij,ij->j", plain, rows["chroma_cens"]).min() > 0.98  # librosa leaves small weights out


def test_every_quantity_has_its_test_and_its_rows(rows):
    assert {*PLAIN, "chroma_cens"} == rows.keys() == vmnet2017.ROWS.keys()
    assert list(rows) == list(vmnet2017.ROWS)
    assert {name: len(part) for name, part in rows.items()} == vmnet2017.ROWS
    assert sum(vmnet2017.ROWS.values()) == 190


def split_plainly(sound):
    """Medians over 31 frames and 31 bins decide by their squares."""
    import librosa

    whole = librosa.stft(sound)
    magnitude = np.abs(whole).astype(np.float64)
    tonal, brief = (ndimage.median_filter(magnitude, size, mode="reflect") ** 2 for size in ((1, 31), (31, 1)))
    share = tonal / (tonal + brief)
    return [librosa.istft(whole * part, length=len(sound)) for part in (share, 1 - share)]


@pytest.mark.long
def test_numbers_are_means_variances_and_maxima_in_decibels_of_both_parts(sound):
    middle = vmnet2017.take_middle(np.tile(sound, 22))
    table = []
    for part in split_plainly(middle):
        for quantity in vmnet2017.measure_rows(np.float32(part)).values():
            top = max(1e-10, abs(quantity.max()))
            level = 10 * np.log10(np.maximum(quantity, 1e-10).astype(np.float64)) - 10 * np.log10(top)
            table.append(np.maximum(level, level.max() - 80))
    table = np.concatenate(table)
    plain = np.concatenate([table.mean(axis=1), table.var(axis=1), table.max(axis=1)])
    found = vmnet2017.describe_sound(middle)
    assert found.shape == (1140,) == (len(vmnet2017.name_numbers()),)
    np.testing.assert_allclose(found[:380], plain[:380], atol=0.15)
    np.testing.assert_allclose(found[380:760], plain[380:760], rtol=0.02, atol=0.2)
    np.testing.assert_allclose(found[760:], plain[760:], atol=0.15)


def test_names_follow_the_order_of_the_numbers():
    names = vmnet2017.name_numbers()
    assert len(set(names)) == 1140
    assert names[0] == "mean_harmonic_chroma_stft_0"
    assert names[190] == "mean_percussive_chroma_stft_0"
    assert names[380 + 12 + 12] == "variance_harmonic_melspectrogram_0"
    assert names[-1] == "maximum_percussive_zero_crossing_rate_0"


def test_the_middle_counts_and_short_sound_ends_in_zeros():
    long = np.arange(349_440 + 1000, dtype=np.float32)
    np.testing.assert_array_equal(vmnet2017.take_middle(long), long[500:-500])
    short = vmnet2017.take_middle(np.ones(100, np.float32))
    assert short.shape == (349_440,)
    assert short[:100].all()
    assert not short[100:].any()


@pytest.mark.long
@pytest.mark.parametrize("level", [0.0, 1.0, 1e30])
def test_sound_that_never_changes_is_no_failure(level):
    samples = np.full(349_440, level, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = vmnet2017.describe_sound(samples)
    assert found.shape == (1140,)
    assert np.isfinite(found).all() == (level <= 1)  # what is not finite is refused where it is stored


@pytest.mark.long
def test_the_backend_makes_1140_numbers_of_a_file(tmp_path):
    clip = make_clip(tmp_path / "song.wav", duration_s=2.0, with_video=False)
    backend = get_backend("descriptors_audio", {"preset": "vmnet2017"})
    backend.load()
    prepared = backend.prepare(str(clip))
    assert prepared.inputs.shape == (1, 349_440)
    feature = backend.finish(backend.infer(prepared.inputs))
    assert feature.shape == (1140,)
    assert feature.dtype == np.float32
    np.testing.assert_array_equal(feature, vmnet2017.describe_sound(prepared.inputs[0]))
    assert backend.fingerprint().settings["librosa"] == __import__("librosa").__version__


def test_under_its_own_name_short_audio_is_repeated_and_has_another_identity(tmp_path):
    clip = make_clip(tmp_path / "song.wav", duration_s=2.0, with_video=False)
    backend, preset = get_backend("vmnet2017"), get_backend("descriptors_audio", {"preset": "vmnet2017"})
    (repeated,), (padded,) = (one.prepare(str(clip)).inputs for one in (backend, preset))
    n = np.flatnonzero(padded)[-1] + 1
    np.testing.assert_array_equal(repeated[:n], padded[:n])
    np.testing.assert_array_equal(repeated[24_000:48_000], repeated[:24_000])
    assert np.abs(repeated[-24_000:]).max() > 0.01 and not padded[-24_000:].any()
    assert backend.fingerprint().digest != preset.fingerprint().digest
    assert vmnet2017.take_middle(np.zeros(0, np.float32), repeats=True).shape == (349_440,)


@pytest.mark.process
def test_librosa_is_imported_where_its_compiled_parts_cannot_be_kept():
    program = (
        "from numba.core import caching\n"
        "keep = caching._CacheLocator.ensure_cache_path\n"
        "def refuse(self):\n"
        "    if not caching.config.CACHE_DIR: raise OSError('read-only')\n"
        "    keep(self)\n"
        "caching._CacheLocator.ensure_cache_path = refuse\n"
        "from vmnet_pipeline.backends.descriptors.vmnet2017 import import_librosa\n"
        "import numpy as np\n"
        "print(import_librosa().feature.zero_crossing_rate(np.ones(100)).shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 1)", done.stderr[-2000:]
