"""Beats, bar lines, sections and edges of tracks in which they are known."""

from __future__ import annotations

import numpy as np
import pytest
from made_media import RATE_HZ, render_clicks, render_song, write_wave

from vmnet_pipeline.backends.descriptors import audio
from vmnet_pipeline.media.audio import decode_audio
from vmnet_pipeline.passages.tracks import find_structure, follow_track

pytestmark = pytest.mark.long
C, F, G = (262.0, 330.0, 392.0), (175.0, 220.0, 262.0), (196.0, 247.0, 294.0, 784.0, 1568.0)


def analyse(path, samples):
    return find_structure(follow_track(write_wave(path, samples)))


def share_near(found, wanted, width=0.07):
    return float(np.mean([np.abs(found - time).min() <= width for time in wanted])) if len(found) else 0.0


@pytest.mark.parametrize(("bpm", "meter"), [(100.0, 4), (128.0, 4), (96.0, 3)])
def test_beats_and_bars_of_clicks(tmp_path, bpm, meter):
    samples, beats = render_clicks(bpm, 40.0, meter=meter)
    found = analyse(tmp_path / "clicks.wav", samples)
    assert share_near(found.beats_s, beats[1:-1]) > 0.95
    assert share_near(beats, found.beats_s) > 0.95
    assert found.meter == meter
    assert share_near(beats[::meter], found.bars_s) > 0.9
    assert found.tempo_bpm == pytest.approx(bpm, rel=0.03)
    assert found.warnings == ()


def test_sections_begin_where_the_chord_changes(tmp_path):
    found = analyse(tmp_path / "song.wav", render_song(120.0, [C, F, G, C], 8))
    assert share_near(found.sections_s, [16.0, 32.0, 48.0], 0.15) == 1.0
    assert len(found.sections_s) <= 5


def render_syllables(duration_s: float) -> np.ndarray:
    """Bursts of noise at irregular times, as in speech."""
    rng, samples, time_s = np.random.default_rng(0), np.zeros(round(duration_s * RATE_HZ)), 0.3
    while time_s < duration_s - 0.5:
        n, start = int(rng.uniform(0.05, 0.2) * RATE_HZ), int(time_s * RATE_HZ)
        samples[start : start + n] += 0.3 * rng.uniform(0.4, 1) * rng.standard_normal(n) * np.hanning(n)
        time_s += rng.uniform(0.12, 0.7)
    return samples + 0.001 * rng.standard_normal(len(samples))


@pytest.mark.parametrize("kind", ["drone", "noise", "silence", "short", "speech"])
def test_without_beats_there_is_a_warning_and_a_structure(tmp_path, kind):
    t = np.arange(20 * RATE_HZ) / RATE_HZ
    sound = {
        "drone": 0.3 * np.sin(2 * np.pi * 110 * t),
        "noise": 0.1 * np.random.default_rng(0).standard_normal(len(t)),
        "silence": np.zeros(len(t)),
        "speech": render_syllables(20.0),
        "short": 0.3 * np.sin(2 * np.pi * 440 * t[: RATE_HZ // 3]),
    }[kind]
    found = analyse(tmp_path / "sound.wav", sound)
    assert len(found.beats_s) == len(found.bars_s) == 0
    assert any("no beats" in warning for warning in found.warnings)
    assert 0.0 <= found.start_s < found.end_s <= found.duration_s
    assert np.isfinite(found.energy_db).all()


def test_silence_around_the_music_is_not_part_of_it(tmp_path):
    samples, _ = render_clicks(120.0, 12.0, first_s=0.0)
    edges = np.zeros(3 * RATE_HZ)
    found = analyse(tmp_path / "music.wav", np.r_[edges, samples, edges])
    assert found.start_s == pytest.approx(3.0, abs=0.15)
    assert found.end_s == pytest.approx(14.8, abs=0.4)
    assert found.duration_s == pytest.approx(18.0, abs=0.05)


def test_blocks_leave_no_seams(tmp_path):
    """A track longer than a block has the curves of one that is measured at once."""
    samples, _ = render_clicks(117.0, 55.0)
    path = write_wave(tmp_path / "long.wav", samples + 0.01 * np.random.default_rng(1).standard_normal(len(samples)))
    found = follow_track(path)
    whole = audio.measure_curves(decode_audio(path, sample_rate_hz=audio.SAMPLE_RATE_HZ))
    assert len(found.onset_db) == len(whole.onset_db)
    np.testing.assert_allclose(found.loudness_db, whole.loudness_db, atol=0.01)
    assert np.corrcoef(found.onset_db, whole.onset_db)[0, 1] > 0.99
