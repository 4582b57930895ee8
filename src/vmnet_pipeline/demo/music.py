"""Synthetic music: pads, plucks, bass and drums, controlled by a mood."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vmnet_pipeline.demo.mood import Mood

# Semitones above the root, from dark to happy.
_SCALES = (
    (0, 1, 3, 5, 7, 8, 10),  # phrygian
    (0, 2, 3, 5, 7, 8, 10),  # minor
    (0, 2, 3, 5, 7, 9, 10),  # dorian
    (0, 2, 4, 5, 7, 9, 11),  # major
    (0, 2, 4, 7, 9),  # major pentatonic
)
_BEATS_PER_BAR = 4
_CYCLE_SAMPLES = 4096
_MAX_HARMONICS = 24
_PEAK = 0.97
_FADE_S = 0.02


@dataclass(frozen=True, slots=True)
class SongStyle:
    """What all segments of one song share."""

    tempo_bpm: float
    scale: tuple[int, ...]
    root_midi: float  # MIDI note of the root of the lead register
    chords: tuple[int, ...]  # scale degree of each bar's chord; the progression repeats
    tilt: float  # exponent of the overtones' decay: the k-th has amplitude k ** -tilt
    hollow: float  # share of the even overtones that is taken away, 0 to 1
    notes_per_beat: int
    note_chance: float  # probability of a note at each step of the lead, 0 to 1
    pluck: float  # 0 = sustained tones with slow attack, 1 = short plucked ones
    drum_level: float  # amplitude of the drums; 0 = none
    hats_per_beat: int
    drive: float  # gain before the saturation; 1 is nearly clean
    detune_cents: float
    hiss: float  # amplitude of the noise floor, relative to the tones
    rms: float  # target root mean square of the mix, full scale = 1


def draw_song_style(mood: Mood, rng: np.random.Generator) -> SongStyle:
    """Choose the song that expresses a mood; what the mood leaves open is drawn."""
    wobble = rng.normal(0.0, 1.0, 6)
    scale = _SCALES[min(len(_SCALES) - 1, int(mood.valence * len(_SCALES)))]
    return SongStyle(
        tempo_bpm=62.0 + 98.0 * mood.energy + 4.0 * float(np.clip(wobble[0], -2, 2)),
        scale=scale,
        root_midi=45.0 + 27.0 * mood.brightness + float(rng.integers(-3, 4)),
        chords=(0, *(int(degree) for degree in rng.choice(len(scale), 3, replace=False))),
        tilt=max(0.5, 2.6 - 2.0 * mood.brightness + 0.15 * float(wobble[1])),
        hollow=0.9 * (1.0 - mood.valence),
        notes_per_beat=(1, 1, 2, 3, 4)[min(4, int(mood.density * 5))],
        note_chance=0.35 + 0.6 * mood.density,
        pluck=float(np.clip(mood.valence + 0.1 * wobble[2], 0.0, 1.0)),
        drum_level=max(0.0, 1.5 * (mood.energy - 0.3) + 0.08 * float(wobble[3])),
        hats_per_beat=1 + int(mood.density * 3.999),
        drive=float(np.exp(3.4 * max(0.0, mood.roughness - 0.2))),
        detune_cents=2.0 + 38.0 * mood.roughness**2,
        hiss=0.35 * mood.roughness**2,
        rms=0.03 * float(np.exp(1.9 * mood.energy + 0.1 * np.clip(wobble[4], -2, 2))),
    )


def render_music(
    style: SongStyle, rng: np.random.Generator, duration_s: float, sample_rate_hz: int, channels: int
) -> np.ndarray:
    """Play one segment of a song: (n_samples, channels) float32 in [-1, 1].

    Args:
        rng: Draws the segment: melody, drum fills, noise.
        channels: 1 or 2.
    """
    n_samples = round(duration_s * sample_rate_hz)
    band = _Band(style, rng, n_samples, sample_rate_hz)
    tones = np.stack([band.play_pads(), band.play_bass(), band.play_lead()])
    tones /= max(1e-9, float(np.sqrt(np.mean(tones.sum(axis=0) ** 2))))
    drums = band.play_drums() * np.float32(style.drum_level * 3.0)
    # Gains of pads, bass, lead and drums per channel: a little width for stereo, the same sum for mono.
    gains = np.array([[1.25, 0.75], [1.0, 1.0], [0.75, 1.25], [1.0, 1.0]], np.float32)
    stems = np.concatenate([tones, drums[None]])
    gains = gains if channels == 2 else np.ones((4, 1), np.float32)
    mix = np.einsum("sn,sc->nc", stems, gains)  # no matrix product, whose sums may depend on the threads
    mix += np.float32(style.hiss) * rng.standard_normal((n_samples, 1), np.float32)
    return _finish_mix(mix, style, sample_rate_hz)


def _finish_mix(mix: np.ndarray, style: SongStyle, sample_rate_hz: int) -> np.ndarray:
    """Saturate, set the loudness, keep the peaks below full scale and fade the ends."""
    mix = np.tanh(mix * np.float32(0.3 * style.drive)).astype(np.float32)
    mix *= style.rms / max(1e-9, float(np.sqrt(np.mean(mix**2))))
    mix = (_PEAK * np.tanh(mix / _PEAK)).astype(np.float32)
    n_fade = min(len(mix) // 2, round(_FADE_S * sample_rate_hz))
    ramp = np.linspace(0.0, 1.0, n_fade, dtype=np.float32)[:, None]
    mix[:n_fade] *= ramp
    mix[len(mix) - n_fade :] *= ramp[::-1]
    return mix


@lru_cache(maxsize=64)
def _build_cycle(tilt: float, hollow: float, n_harmonics: int) -> np.ndarray:
    """One period of a tone with unit peak: (4096,) float32. Only what lies below Nyquist goes in."""
    phase = 2.0 * math.pi * np.arange(_CYCLE_SAMPLES) / _CYCLE_SAMPLES
    cycle = np.zeros(_CYCLE_SAMPLES)
    for k in range(1, n_harmonics + 1):
        share = 1.0 - hollow if k % 2 == 0 else 1.0
        cycle += share * k**-tilt * np.sin(k * phase)
    return np.asarray(cycle / np.abs(cycle).max(), np.float32)


class _Band:
    """Plays the parts of one segment, each as (n_samples,) float32 of no particular level."""

    def __init__(self, style: SongStyle, rng: np.random.Generator, n_samples: int, sample_rate_hz: int) -> None:
        self._style = style
        self._rng = rng
        self._n_samples = n_samples
        self._sample_rate_hz = sample_rate_hz
        self._beat_s = 60.0 / style.tempo_bpm
        self._n_beats = math.ceil(n_samples / sample_rate_hz / self._beat_s)
        self._first_bar = int(rng.integers(0, len(style.chords)))

    def play_pads(self) -> np.ndarray:
        """A held chord per bar; loud in dark songs, a mere backing in plucked ones."""
        track = np.zeros(self._n_samples, np.float32)
        bar_s = _BEATS_PER_BAR * self._beat_s
        level = 0.9 - 0.65 * self._style.pluck
        for bar in range(math.ceil(self._n_beats / _BEATS_PER_BAR)):
            for step in (0, 2, 4):
                midi = self._find_pitch(self._find_chord(bar) + step, octave=0)
                self._add_tone(track, bar * bar_s, bar_s * 1.05, midi, level, attack_s=0.25, decay_s=None)
        return track

    def play_bass(self) -> np.ndarray:
        """The chord's root two octaves down: once a bar in calm songs, on every beat with drums."""
        track = np.zeros(self._n_samples, np.float32)
        every = 1 if self._style.drum_level > 0.2 else _BEATS_PER_BAR
        for beat in range(0, self._n_beats, every):
            midi = max(28.0, self._find_pitch(self._find_chord(beat // _BEATS_PER_BAR), octave=-2))
            length_s = self._beat_s * every * 0.9
            self._add_tone(track, beat * self._beat_s, length_s, midi, 0.8, attack_s=0.01, decay_s=length_s)
        return track

    def play_lead(self) -> np.ndarray:
        """A random walk over the scale, pulled back to the chord at every bar."""
        style = self._style
        track = np.zeros(self._n_samples, np.float32)
        step_s = self._beat_s / style.notes_per_beat
        steps_per_bar = _BEATS_PER_BAR * style.notes_per_beat
        degree = 0
        for step in range(self._n_beats * style.notes_per_beat):
            if step % steps_per_bar == 0:
                degree = self._find_chord(step // steps_per_bar)
            degree = int(np.clip(degree + self._rng.integers(-2, 3), -4, 9))
            if self._rng.random() >= style.note_chance:
                continue
            length_s = max(0.12, step_s * (2.2 - 1.2 * style.pluck))
            decay_s = 0.1 + 0.5 * (1.0 - style.pluck) if style.pluck > 0.4 else None
            attack_s = 0.004 + 0.12 * (1.0 - style.pluck) ** 2
            level = 1.1 * float(self._rng.uniform(0.7, 1.0))
            self._add_tone(track, step * step_s, length_s, self._find_pitch(degree, 1), level, attack_s, decay_s)
        return track

    def play_drums(self) -> np.ndarray:
        """Kick on one and three, snare on two and four, hats between; silence without drums."""
        track = np.zeros(self._n_samples, np.float32)
        if self._style.drum_level <= 0.0:
            return track
        strokes = (self._make_kick(), self._make_snare())
        hat = self._make_hat()
        for beat in range(self._n_beats):
            self._add_at(track, beat * self._beat_s, strokes[beat % 2])
            if self._rng.random() < 0.2:
                self._add_at(track, (beat + 0.5) * self._beat_s, strokes[0])
            for stroke in range(self._style.hats_per_beat):
                self._add_at(track, (beat + stroke / self._style.hats_per_beat) * self._beat_s, hat)
        return track

    def _find_chord(self, bar: int) -> int:
        chords = self._style.chords
        return chords[(self._first_bar + bar) % len(chords)]

    def _find_pitch(self, degree: int, octave: int) -> float:
        """MIDI note of a scale degree, which may lie below 0 or beyond one octave."""
        scale = self._style.scale
        return self._style.root_midi + 12 * (octave + degree // len(scale)) + scale[degree % len(scale)]

    def _add_tone(
        self,
        track: np.ndarray,
        start_s: float,
        length_s: float,
        midi: float,
        level: float,
        attack_s: float,
        decay_s: float | None,
    ) -> None:
        """Add two detuned oscillators under one envelope; `decay_s` None holds the tone."""
        frequency_hz = 440.0 * 2.0 ** ((midi - 69.0) / 12.0)
        n_harmonics = int(np.clip(0.45 * self._sample_rate_hz / frequency_hz, 1, _MAX_HARMONICS))
        cycle = _build_cycle(self._style.tilt, self._style.hollow, n_harmonics)
        time_s = np.arange(round(length_s * self._sample_rate_hz), dtype=np.float64) / self._sample_rate_hz
        tone = np.zeros(len(time_s), np.float32)
        for cents in (0.0, self._style.detune_cents):
            phase = time_s * (frequency_hz * 2.0 ** (cents / 1200.0) * _CYCLE_SAMPLES)
            tone += cycle[phase.astype(np.int64) & (_CYCLE_SAMPLES - 1)]
        envelope = np.minimum(1.0, time_s / attack_s) * np.clip((length_s - time_s) / 0.03, 0.0, 1.0)
        if decay_s is not None:
            envelope *= np.exp(-3.0 * time_s / decay_s)
        self._add_at(track, start_s, tone * (0.5 * level * envelope).astype(np.float32))

    def _add_at(self, track: np.ndarray, start_s: float, sound: np.ndarray) -> None:
        start = round(start_s * self._sample_rate_hz)
        stop = min(self._n_samples, start + len(sound))
        if stop > start:
            track[start:stop] += sound[: stop - start]

    def _make_kick(self) -> np.ndarray:
        time_s = np.arange(round(0.3 * self._sample_rate_hz)) / self._sample_rate_hz
        phase = 2.0 * math.pi * (48.0 * time_s + 6.0 * (1.0 - np.exp(-time_s / 0.03)))
        return (1.2 * np.sin(phase) * np.exp(-time_s / 0.09)).astype(np.float32)

    def _make_snare(self) -> np.ndarray:
        time_s = np.arange(round(0.2 * self._sample_rate_hz)) / self._sample_rate_hz
        noise = self._rng.standard_normal(len(time_s))
        body = np.sin(2.0 * math.pi * 190.0 * time_s)
        return ((0.35 * noise + 0.4 * body) * np.exp(-time_s / 0.06)).astype(np.float32)

    def _make_hat(self) -> np.ndarray:
        time_s = np.arange(round(0.08 * self._sample_rate_hz)) / self._sample_rate_hz
        noise = np.diff(self._rng.standard_normal(len(time_s) + 1))
        return (0.15 * noise * np.exp(-time_s / 0.018)).astype(np.float32)
