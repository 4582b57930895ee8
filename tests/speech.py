"""Speech made of pulses and formants: enough like a voice that a detector takes it for one."""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

RATE = 48_000
# Two syllables each: centre and width of four formants in Hz.
_VOWELS = {
    "a": ((730, 90), (1090, 110), (2440, 170), (3400, 250)),
    "i": ((270, 60), (2290, 100), (3010, 170), (3700, 250)),
    "u": ((300, 60), (870, 90), (2240, 150), (3400, 250)),
    "e": ((530, 70), (1840, 100), (2480, 160), (3500, 250)),
}


def make_speech(seconds: float, level: float = 0.2, seed: int = 1) -> np.ndarray:
    """(n, 2) float32: syllables of about a fifth of a second without longer pauses."""
    rng = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    n = round(seconds * RATE)
    names = list(_VOWELS)
    while sum(map(len, parts)) < n:
        if rng.random() < 0.5:
            parts.append(_make_hiss(rng.uniform(0.04, 0.08), rng))
        pitch = rng.uniform(105, 150)
        last = pitch * rng.uniform(0.85, 1.1)
        parts.append(_make_vowel(rng.uniform(0.12, 0.24), pitch, last, _VOWELS[rng.choice(names)], rng))
    voice = np.concatenate(parts)[:n]
    voice *= level / np.sqrt(np.mean(voice**2)) / 2
    return np.stack([voice, voice], axis=1).astype(np.float32)


def _make_vowel(seconds, first_hz, last_hz, formants, rng):
    n = round(seconds * RATE)
    phase = np.cumsum(np.linspace(first_hz, last_hz, n) * (1 + 0.01 * rng.standard_normal())) / RATE
    pulses = np.diff(np.floor(phase), prepend=0.0) + 0.003 * rng.standard_normal(n)
    source = lfilter([1.0], [1.0, -0.97], pulses)
    for centre, width in formants:
        r = np.exp(-np.pi * width / RATE)
        a = [1.0, -2 * r * np.cos(2 * np.pi * centre / RATE), r * r]
        source = lfilter([sum(a)], a, source)
    voice = np.diff(source, prepend=0.0)
    voice *= np.minimum(1, np.minimum(np.arange(n), np.arange(n)[::-1]) / (0.03 * RATE))
    return voice / np.abs(voice).max()


def _make_hiss(seconds, rng):
    n = round(seconds * RATE)
    hiss = lfilter([1.0, -0.9], [1.0], rng.standard_normal(n))
    return 0.03 * hiss * np.sin(np.linspace(0, np.pi, n))
