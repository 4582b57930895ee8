"""Descriptors of sound: curves against librosa, what each number says, spans, and odd sounds."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from vmnet_pipeline.backends.descriptors import audio, harmony, rhythm, series
from vmnet_pipeline.backends.descriptors.names import AUDIO_DESCRIPTORS, VIDEO_DESCRIPTORS
from vmnet_pipeline.backends.registry import get_backend
from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.media.sandbox import Sandbox
from vmnet_pipeline.params import LimitParams

RATE = audio.SAMPLE_RATE_HZ
NAMES = [descriptor.name for descriptor in AUDIO_DESCRIPTORS]


def describe(samples) -> dict[str, float]:
    found = audio.describe_audio(audio.measure_curves(np.float32(samples)))
    return dict(zip(NAMES, found.tolist(), strict=True))


def make_time(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * RATE)) / RATE


def make_tone(hz: float, seconds: float = 3.0, level: float = 0.3) -> np.ndarray:
    return level * np.sin(2 * np.pi * hz * make_time(seconds))


def make_chord(*semitones: int, seconds: float = 3.0) -> np.ndarray:
    """Notes that many semitones above middle C."""
    return sum(make_tone(261.63 * 2 ** (k / 12), seconds, 0.15) for k in semitones)


def make_noise(seconds: float = 3.0, level: float = 0.3) -> np.ndarray:
    return level * np.random.default_rng(3).normal(size=round(seconds * RATE)).clip(-3, 3) / 3


def make_clicks(times_s) -> np.ndarray:
    sound = np.zeros(round((max(times_s) + 0.5) * RATE))
    burst = make_noise(0.05) * np.linspace(1, 0, round(0.05 * RATE))
    for time_s in times_s:
        start = round(time_s * RATE)
        sound[start : start + len(burst)] += burst
    return sound + make_noise(len(sound) / RATE, 1e-4)


@pytest.fixture(scope="module")
def mixture() -> np.ndarray:
    """3 s with all sorts in it."""
    clicks = make_clicks(np.arange(0, 2.5, 0.5))[: 3 * RATE]
    chord = np.concatenate([make_chord(0, 4, 7, seconds=1.5), make_chord(5, 9, 12, seconds=1.5)])
    return np.float32(0.3 * chord[: len(clicks)] + clicks + 0.01 * make_noise()[: len(clicks)])


@pytest.mark.long
def test_curves_equal_those_of_librosa(mixture):
    import librosa

    curves = audio.measure_curves(mixture)
    feature = librosa.feature
    options = {"y": mixture, "sr": RATE}
    mel_db = librosa.power_to_db(feature.melspectrogram(**options))
    np.testing.assert_allclose(curves.mel_db.T, mel_db, atol=0.01)
    np.testing.assert_allclose(
        curves.onset_db, librosa.onset.onset_strength(S=mel_db, sr=RATE, center=False), atol=0.01
    )
    for name, found in {
        "centroid_hz": feature.spectral_centroid(**options),
        "bandwidth_hz": feature.spectral_bandwidth(**options),
        "rolloff_hz": feature.spectral_rolloff(**options),
    }.items():
        np.testing.assert_allclose(getattr(curves, name), found[0], rtol=1e-3, atol=0.1, err_msg=name)
    np.testing.assert_allclose(10 ** (curves.loudness_db / 20), feature.rms(y=mixture)[0], rtol=1e-3)
    inner = slice(3, -3)  # librosa repeats the first and last sample beyond the ends, here there is silence
    crossings = feature.zero_crossing_rate(mixture)[0] * RATE
    np.testing.assert_allclose(curves.crossings_hz[inner], crossings[inner], rtol=1e-3, atol=RATE / 2048 + 1)


@pytest.mark.long
def test_numbers_from_curves_equal_those_of_librosa(mixture):
    import librosa

    found = describe(mixture)
    mfcc = librosa.feature.mfcc(y=mixture, sr=RATE, n_mfcc=9)[1:]
    for k, row in enumerate(mfcc, start=1):
        assert found[f"mfcc_{k}"] == pytest.approx(row.mean(), abs=0.02)
        assert found[f"mfcc_{k}_deviation"] == pytest.approx(row.std(), abs=0.02)
    flatness = librosa.feature.spectral_flatness(y=mixture, amin=1e-12)
    assert found["flatness"] == pytest.approx(10 * np.log10(flatness).mean(), abs=0.1)


@pytest.mark.parametrize("bpm", [70, 96, 120, 151])
def test_tempo_and_beats_of_clicks(bpm):
    times = np.arange(0.2, 12, 60 / bpm)
    found = describe(make_clicks(times))
    assert found["tempo"] == pytest.approx(bpm, rel=0.01)
    assert found["tempo_strength"] > 0.6
    assert found["onset_rate"] == pytest.approx(bpm / 60, rel=0.1)
    assert found["beat_strength"] > 5
    assert found["beat_irregularity"] < 0.05


def test_beats_lie_on_the_clicks():
    times = np.arange(0.3, 10, 0.6)
    curves = audio.measure_curves(np.float32(make_clicks(times)))
    beats = rhythm.track_beats(curves.onset_db, 0.6 * audio.FRAME_RATE_HZ) / audio.FRAME_RATE_HZ
    nearest = np.abs(beats[:, None] - times).min(axis=1)
    assert len(beats) == pytest.approx(len(times), abs=1)
    assert nearest.max() < 0.06


def test_a_rhythm_without_a_pulse_is_told_from_one_with_it():
    rng = np.random.default_rng(1)
    steady, free = np.arange(0.2, 12, 0.5), np.sort(rng.uniform(0.2, 12, 24))
    beat, loose = describe(make_clicks(steady)), describe(make_clicks(free))
    assert beat["tempo_strength"] > 2 * loose["tempo_strength"]
    assert beat["onset_irregularity"] < 0.1 < 0.4 < loose["onset_irregularity"]


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("loudness", make_tone(440, level=0.01), make_tone(440, level=0.5)),
        ("loudness_range", make_noise(), make_noise() * np.linspace(0.01, 1, 3 * RATE)),
        (
            "loudness_trend",
            make_noise() * np.linspace(1, 0.01, 3 * RATE),
            make_noise() * np.linspace(0.01, 1, 3 * RATE),
        ),
        ("loudness_change", make_noise(), make_noise() * (np.sin(2 * np.pi * 5 * make_time(3.0)) + 1.05)),
        ("crest", make_tone(440), make_clicks([0.5, 1.5, 2.5])),
        ("silence", make_noise(), make_noise() * (make_time(3.0) > 1.5)),
        ("onset_strength", make_tone(440), make_clicks(np.arange(0.1, 3, 0.2))),
        ("onset_rate", make_clicks(np.arange(0.1, 3, 0.9)), make_clicks(np.arange(0.1, 3, 0.2))),
        ("percussiveness", make_chord(0, 4, 7), make_clicks(np.arange(0.1, 3, 0.3))),
        ("brightness", make_tone(300), make_tone(3000)),
        ("rolloff", make_tone(300), make_tone(3000)),
        ("bandwidth", make_tone(1000), make_tone(1000) + make_tone(6000)),
        ("flatness", make_tone(440) + make_noise(level=1e-3), make_noise()),
        ("zero_crossings", make_tone(200), make_tone(4000)),
        ("bass", make_tone(1000), make_tone(80)),
        ("treble", make_tone(1000), make_tone(6000)),
        ("mode", make_chord(0, 3, 7), make_chord(0, 4, 7)),
        ("key_clarity", make_noise(), make_chord(0, 4, 7)),
        ("pitch_variety", make_tone(440), make_chord(*range(0, 12, 2))),
        (
            "harmonic_change",
            make_chord(0, 4, 7, seconds=4.0),
            np.concatenate([make_chord(k, k + 4, k + 7, seconds=1.0) for k in (0, 6, 1, 8)]),
        ),
    ],
)
def test_a_number_says_what_its_name_says(name, low, high):
    found = [describe(sound)[name] for sound in (low, high)]
    assert found[1] > found[0] + 0.05 * max(1.0, abs(found[0]))


def test_pitch_classes_are_those_of_the_notes():
    for k in range(12):
        curves = audio.measure_curves(np.float32(make_chord(k, seconds=0.5)))
        assert curves.chroma.mean(axis=0).argmax() == k


@pytest.mark.parametrize("key", [0, 5, 9])
def test_mode_holds_in_every_key(key):
    scale = np.array([0, 2, 4, 5, 7, 9, 11])
    major = np.zeros(12)
    major[(scale + key) % 12] = [2, 1, 1.5, 1, 1.8, 1, 0.6]
    assert harmony.find_best_fit(major, harmony.MAJOR) > harmony.find_best_fit(major, harmony.MINOR) + 0.05


def test_a_span_is_described_as_if_it_were_alone():
    loud = np.concatenate([make_tone(300, 4.0, 0.01), make_clicks(np.arange(0, 7.5, 0.5))])
    curves = audio.measure_curves(np.float32(loud))
    whole, first, second = (
        dict(zip(NAMES, audio.describe_audio(curves.cut(*span)).tolist(), strict=True))
        for span in ((), (0.0, 4.0), (4.0, None))
    )
    assert first["loudness"] == pytest.approx(
        describe(make_tone(300, 4.0, 0.01))["loudness"], abs=1
    )  # clicks reach into the last frames
    assert second["tempo"] == pytest.approx(120, rel=0.01)
    assert first["onset_rate"] < whole["onset_rate"] < second["onset_rate"]


@pytest.mark.parametrize("span", [(0.0, 0.0), (100.0, None), (1.0, 1.001)])
def test_a_span_has_at_least_one_frame(span):
    curves = audio.measure_curves(np.float32(make_noise(2.0)))
    assert np.isfinite(audio.describe_audio(curves.cut(*span))).all()


@pytest.mark.parametrize("n", [1, 2, 700, round(0.3 * RATE), 3 * RATE])
@pytest.mark.parametrize("kind", ["silence", "constant", "tone", "noise"])
def test_odd_sound_gives_finite_numbers_without_warnings(kind, n):
    sounds = {"silence": np.zeros(n), "constant": np.ones(n), "tone": make_tone(440)[:n], "noise": make_noise()[:n]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = describe(sounds[kind])
    assert np.isfinite(list(found.values())).all()


def test_silence_has_no_pulse_and_no_key():
    found = describe(np.zeros(3 * RATE))
    assert (found["loudness"], found["silence"]) == (-100.0, 1.0)
    assert (found["tempo"], found["tempo_strength"]) == (series.CENTRE_BPM, 0.0)
    assert found["key_clarity"] == found["mode"] == found["pitch_variety"] == found["onset_rate"] == 0.0


def test_names_are_unique_and_have_words():
    for descriptors in (AUDIO_DESCRIPTORS, VIDEO_DESCRIPTORS):
        assert len({descriptor.name for descriptor in descriptors}) == len(descriptors)
        words = [word for descriptor in descriptors for word in (descriptor.low_word, descriptor.high_word)]
        assert all(words)
        assert len(set(words)) == len(words)


def test_the_backend_needs_no_weights_and_makes_one_row(tmp_path):
    clip = make_clip(tmp_path / "song.wav", duration_s=2.0, with_video=False)
    backend = get_backend("descriptors_audio", {"weights": "random", "gpu_idx": 0}, weights_dir=tmp_path / "none")
    backend.load()
    prepared = backend.prepare(str(clip))
    feature = backend.finish(backend.infer(prepared.inputs))
    assert feature.shape == (len(AUDIO_DESCRIPTORS),)
    assert feature.dtype == np.float32
    np.testing.assert_array_equal(backend.pool(feature), feature)
    np.testing.assert_array_equal(backend.pool(prepared.inputs), feature)


def test_the_fingerprint_tells_presets_and_windows_apart():
    digests = {
        get_backend("descriptors_audio", params).fingerprint().digest
        for params in ({}, {"preset": "vmnet2017"}, {"max_duration_s": 60.0})
    }
    assert len(digests) == 3
    assert (
        get_backend("descriptors_audio", {"weights": "random"}).fingerprint()
        == get_backend("descriptors_audio").fingerprint()
    )


@pytest.mark.process
def test_libraries_are_imported_once_and_not_at_the_expense_of_a_file(tmp_path):
    clip = make_clip(tmp_path / "song.wav", duration_s=2.0, with_video=False)
    backend = get_backend("descriptors_audio")
    with Sandbox(LimitParams(memory_mb=512, seconds=60.0)) as sandbox:
        for _ in range(3):
            found = sandbox.call(backend.prepare, str(clip))
        (child,) = sandbox._everyone
        assert child.n_asked == 3
    np.testing.assert_array_equal(found.inputs, backend.prepare(str(clip)).inputs)
