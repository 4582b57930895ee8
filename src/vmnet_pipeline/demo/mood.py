"""The hidden mood that audio and video of a demo clip have in common."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import ParameterError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Mood:
    """What a clip feels like; every dimension lies in [0, 1]."""

    energy: float = 0.5  # calm to driving: tempo, loudness and drums; motion, contrast and sharpness
    valence: float = 0.5  # dark to happy: mode, pads against plucks; cold against warm colours
    brightness: float = 0.5  # low to high register and overtones; dark to light frames
    density: float = 0.5  # few long notes to many short ones; few large shapes to many small ones
    roughness: float = 0.5  # clean to distorted; smooth round shapes to grainy spiky ones

    def __post_init__(self) -> None:
        for name, value in zip(self.__slots__, astuple(self), strict=True):
            if not 0.0 <= value <= 1.0:
                raise ParameterError(f"mood {name}={value!r} is outside [0, 1]; give a number from 0 to 1")


def draw_mood(rng: np.random.Generator) -> Mood:
    """Draw a mood, each dimension uniform in [0, 1)."""
    return Mood(*(float(value) for value in rng.random(5)))


def blur_mood(mood: Mood, rng: np.random.Generator, noise: float) -> Mood:
    """Add normal noise of standard deviation `noise` to every dimension and clip to [0, 1].

    Each side of a clip renders its own blurred copy, so that the video does not determine the audio exactly.
    """
    steps = rng.normal(0.0, noise, 5)
    return Mood(*(min(1.0, max(0.0, value + float(step))) for value, step in zip(astuple(mood), steps, strict=True)))
