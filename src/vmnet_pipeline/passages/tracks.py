"""Curves of a whole track, and what they tell: beats, bar lines, sections, energy, and where it can be heard.

Curves are measured in a child process, block by block; for an hour they take 18 MB. Beats are librosa's, found in the
process of the caller, as numba cannot compile where no file may be written.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.backends.descriptors import audio, series
from vmnet_pipeline.backends.framing import cut_windows
from vmnet_pipeline.media.audio import stream_audio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmnet_pipeline.media.sandbox import Sandbox

BLOCK_FRAMES, EDGE_FRAMES = 1024, 8
N_CEPSTRAL = 12
BASS_BANDS = 8  # up to about 230 Hz
ENERGY_HZ = 2.0
AUDIBLE_DB = 45.0  # below the loudest moment; quieter edges do not count as music
MIN_PULSE = 0.12  # normalised autocorrelation of the onsets below which there is no beat
MIN_BEAT_RISE = 1.5  # onsets at beats are at least so many times as strong as elsewhere
METERS = (4, 3)
MIN_DOWNBEAT_RISE = 0.25  # deviations that downbeats stand out from other beats, else bars of four from the first beat
SECTION_BARS = 8  # each side of a boundary that is compared
MIN_NOVELTY = 0.35  # of the greatest novelty
FADE_DB = 8.0


@dataclass(frozen=True, slots=True)
class TrackCurves:
    """Curves of n frames, `audio.FRAME_RATE_HZ` of them a second.

    Attributes:
        onset_db: (n,) float32, onset strength.
        bass_db: (n,) float32, level of the loudest band of the bass.
        loudness_db: (n,) float32.
        colours: (n, 24) float32, chroma and cepstral coefficients.
        warnings: What could not be read.
    """

    onset_db: np.ndarray
    bass_db: np.ndarray
    loudness_db: np.ndarray
    colours: np.ndarray
    warnings: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """Length of the track, to one frame."""
        return len(self.onset_db) / audio.FRAME_RATE_HZ


@dataclass(frozen=True, slots=True)
class TrackStructure:
    """What is known of a track; times in seconds, rising.

    Attributes:
        duration_s: Its length.
        start_s: Where music can be heard first.
        end_s: Where it ends to be heard.
        beats_s: (b,) beats; none of a drone or speech.
        bars_s: (k,) bar lines, which are beats.
        meter: Beats of a bar.
        sections_s: (s,) where sections begin, the first one at `start_s`.
        energy_db: (m,) loudness, `ENERGY_HZ` values a second.
        tempo_bpm: Median tempo; 0 without beats.
        warnings: What to know before trusting this.
    """

    duration_s: float
    start_s: float
    end_s: float
    beats_s: np.ndarray
    bars_s: np.ndarray
    meter: int
    sections_s: np.ndarray
    energy_db: np.ndarray
    tempo_bpm: float
    warnings: tuple[str, ...] = ()


def follow_track(path: str, sandbox: Sandbox | None = None) -> TrackCurves:
    """Measure the curves of a whole track, in a child process of the sandbox.

    Raises:
        MediaError: The file cannot be used.
    """
    parts = list(stream_curves(path) if sandbox is None else sandbox.stream(stream_curves, path))
    names = [field.name for field in fields(TrackCurves)[:-1]]
    onset, bass, loudness, colours = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
    return TrackCurves(onset, bass, loudness, colours, tuple(text for part in parts for text in part.warnings))


def stream_curves(path: str) -> Iterator[TrackCurves]:
    """Measure the curves of a track, 24 s at a time; the last part has the warnings."""
    warnings: list[str] = []
    hop = BLOCK_FRAMES * audio.HOP
    blocks = stream_audio(path, sample_rate_hz=audio.SAMPLE_RATE_HZ, warnings=warnings)
    yield from _measure_windows(cut_windows(blocks, hop + 2 * EDGE_FRAMES * audio.HOP, hop))
    nothing = np.empty(0, np.float32)
    yield TrackCurves(nothing, nothing, nothing, np.empty((0, 12 + N_CEPSTRAL), np.float32), tuple(warnings))


def _measure_windows(windows: Iterator[np.ndarray]) -> Iterator[TrackCurves]:
    """The curves of windows that overlap by twice the edge, each without edges but those of the track."""
    from scipy import fft

    n_done, latest = 0, None
    for number, samples in enumerate(windows):
        curves = audio.measure_curves(samples)
        cepstrum = fft.dct(curves.mel_db, norm="ortho", axis=1)[:, 1 : N_CEPSTRAL + 1]
        bass_db = curves.mel_db[:, :BASS_BANDS].max(axis=1)
        whole = curves.onset_db, bass_db, curves.loudness_db, np.hstack([curves.chroma, cepstrum])
        first = n_done - number * BLOCK_FRAMES
        last = BLOCK_FRAMES + EDGE_FRAMES
        yield _cut_curves(whole, first, last)
        n_done = number * BLOCK_FRAMES + min(last, len(curves.onset_db))
        latest = number, whole, last
    if latest is not None and len(latest[1][0]) > latest[2]:  # the end of the track has no window after it
        yield _cut_curves(latest[1], latest[2], None)


def _cut_curves(curves: tuple[np.ndarray, ...], first: int, last: int | None) -> TrackCurves:
    onset, bass, loudness, colours = (np.asarray(curve[first:last], np.float32) for curve in curves)
    return TrackCurves(onset, bass, loudness, colours)


def find_structure(curves: TrackCurves) -> TrackStructure:
    """Find beats, bar lines, sections, energy and edges of a track."""
    warnings, duration_s = list(curves.warnings), curves.duration_s
    start_s, end_s = _find_edges(curves.loudness_db, duration_s)
    beats = find_beats(curves.onset_db)
    beats = beats[(beats >= start_s - 0.1) & (beats <= end_s)]
    if len(beats) < 4:
        beats = beats[:0]
        warnings.append("no beats were found in it, as in drones and speech; its passage does not begin on a bar line")
    bars, meter, is_sure = find_bars(curves, beats)
    if len(beats) and not is_sure:
        warnings.append("its bar lines are not clear; bars of four beats from the first beat are assumed")
    sections = find_sections(curves, bars, start_s, end_s)
    tempo = 60 / float(np.median(np.diff(beats))) if len(beats) > 1 else 0.0
    energy = average_rate(curves.loudness_db, audio.FRAME_RATE_HZ, ENERGY_HZ)
    return TrackStructure(duration_s, start_s, end_s, beats, bars, meter, sections, energy, tempo, tuple(warnings))


def _find_edges(loudness_db: np.ndarray, duration_s: float) -> tuple[float, float]:
    audible = np.flatnonzero(loudness_db > max(float(loudness_db.max()) - AUDIBLE_DB, audio.SILENT_DB))
    if not len(audible):
        return 0.0, duration_s
    return float(audible[0]) / audio.FRAME_RATE_HZ, min(duration_s, float(audible[-1] + 1) / audio.FRAME_RATE_HZ)


def find_beats(onset_db: np.ndarray) -> np.ndarray:
    """(b,) seconds of the beats by librosa's tracker; none where onsets do not repeat."""
    _, strength = series.find_pulse(onset_db, audio.FRAME_RATE_HZ)
    if strength < MIN_PULSE:
        return np.empty(0)
    from librosa.beat import beat_track

    _, frames = beat_track(onset_envelope=onset_db, sr=audio.SAMPLE_RATE_HZ, hop_length=audio.HOP, trim=False)
    frames = np.asarray(frames, np.int64)
    if not len(frames) or take_peaks(onset_db, frames).mean() < MIN_BEAT_RISE * max(float(onset_db.mean()), 1e-6):
        return np.empty(0)
    return frames / audio.FRAME_RATE_HZ


def take_peaks(curve: np.ndarray, frames: np.ndarray, reach: int = 2) -> np.ndarray:
    """(b,) the greatest value within `reach` frames of each frame."""
    places = np.clip(frames[:, None] + np.arange(-reach, reach + 1), 0, len(curve) - 1)
    return np.asarray(curve[places].max(axis=1))


def find_bars(curves: TrackCurves, beats_s: np.ndarray) -> tuple[np.ndarray, int, bool]:
    """Bar lines: the beats of the meter and phase whose onsets, bass, loudness and changes of colour stand out most.

    Returns:
        (k,) seconds, the beats of a bar, and whether they stand out at all.
    """
    frames = np.round(beats_s * audio.FRAME_RATE_HZ).astype(int)
    if len(frames) < 2 * max(METERS):
        return beats_s[:: METERS[0]], METERS[0], False
    means = np.stack([part.mean(axis=0) for part in np.split(curves.colours, frames[1:])])
    change = np.r_[0.0, np.linalg.norm(np.diff(_standardise(means), axis=0), axis=1)]
    accents = [*(take_peaks(part, frames) for part in (curves.onset_db, curves.bass_db, curves.loudness_db)), change]
    accent = np.mean([_standardise(np.asarray(part, np.float64)) for part in accents], axis=0)
    best = (-np.inf, METERS[0], 0)
    for meter in METERS:
        for phase in range(meter):
            is_down = np.arange(len(accent)) % meter == phase
            rise = float(accent[is_down].mean() - accent[~is_down].mean()) * np.sqrt((meter - 1) / meter**2)
            best = max(best, (rise, meter, phase))
    rise, meter, phase = best
    is_sure = rise * meter / np.sqrt(meter - 1) >= MIN_DOWNBEAT_RISE
    return (beats_s[phase::meter], meter, True) if is_sure else (beats_s[:: METERS[0]], METERS[0], False)


def _standardise(values: np.ndarray) -> np.ndarray:
    return np.asarray((values - values.mean(axis=0)) / np.maximum(values.std(axis=0), series.TINY**0.5))


def find_sections(curves: TrackCurves, bars_s: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    """(s,) seconds where sections begin: bar lines at which colour and loudness change for long.

    At each bar line (without bars: every 2 s) the mean of the bars before is compared with that of those after it,
    in units of how much bars differ on each side.
    """
    from scipy import signal

    lines = bars_s if len(bars_s) > 2 else np.arange(start_s, end_s, 2.0)
    frames = np.round(lines * audio.FRAME_RATE_HZ).astype(int)
    if len(frames) < 4:
        return np.array([start_s])
    colours = np.hstack([curves.colours, curves.loudness_db[:, None] / 2])
    parts = np.split(colours, frames)[1:]
    means = np.stack([part.mean(axis=0) if len(part) else colours[-1] for part in parts])
    novelty = _measure_novelty(_standardise(means))
    peaks, _ = signal.find_peaks(np.r_[0.0, novelty, 0.0], height=MIN_NOVELTY * novelty.max(), distance=3)
    return np.unique(np.r_[start_s, lines[peaks - 1][lines[peaks - 1] > start_s + 1.0]])


def _measure_novelty(rows: np.ndarray) -> np.ndarray:
    """(n,) how much the rows before each differ from those after it; 0 at the first, and where nothing differs."""
    novelty = np.zeros(len(rows))
    for k in range(1, len(rows)):
        before, after = rows[max(0, k - SECTION_BARS) : k], rows[k : k + SECTION_BARS]
        size = min(len(before), len(after), SECTION_BARS)
        if size < 2:
            continue
        spread = np.sqrt(before.var(axis=0).sum() + after.var(axis=0).sum())
        distance = float(np.linalg.norm(before.mean(axis=0) - after.mean(axis=0)))
        novelty[k] = distance**2 / max(spread, 0.5) * np.sqrt(size / SECTION_BARS)
    return novelty


def average_rate(curve: np.ndarray, rate_hz: float, wanted_hz: float) -> np.ndarray:
    """(m,) means of a curve over equal spans, `wanted_hz` of them a second; m >= 1."""
    n = max(1, round(len(curve) / rate_hz * wanted_hz))
    bounds = np.round(np.arange(n + 1) * len(curve) / n).astype(int)
    return np.array([curve[a : max(b, a + 1)].mean() for a, b in pairwise(bounds)])
