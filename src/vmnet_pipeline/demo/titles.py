"""Titles of demo clips that say what one hears and sees, e.g. `Slow blue, piano`."""

from __future__ import annotations

import colorsys
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmnet_pipeline.demo.frames import SceneStyle
    from vmnet_pipeline.demo.music import SongStyle

_HUES = ((0.04, "red"), (0.11, "orange"), (0.18, "yellow"), (0.42, "green"), (0.54, "teal"), (0.68, "blue"))
_SLOW_BPM, _FAST_BPM = 90.0, 130.0
_STRONG_DRIVE, _LOUD_DRUMS = 6.0, 0.7
_SUSTAINED, _PLUCKED = 0.3, 0.65


def name_clip(song: SongStyle, scene: SceneStyle) -> str:
    """Tempo, colour and what plays the lead."""
    tempo = "Slow" if song.tempo_bpm < _SLOW_BPM else "Fast" if song.tempo_bpm > _FAST_BPM else "Steady"
    return f"{tempo} {_name_colour(scene)}, {_name_lead(song)}"


def _name_colour(scene: SceneStyle) -> str:
    hue = colorsys.rgb_to_hsv(*scene.background[0])[0]
    return next((name for end, name in _HUES if hue < end), "violet")


def _name_lead(song: SongStyle) -> str:
    if song.drive > _STRONG_DRIVE:
        return "distorted guitar"
    if song.drum_level > _LOUD_DRUMS:
        return "drums"
    if song.pluck > _PLUCKED:
        return "harp"
    return "strings" if song.pluck < _SUSTAINED else "piano"


def number_titles(titles: Iterable[str]) -> list[str]:
    """The titles in their order; from the second one on, equal ones get a number."""
    seen: Counter[str] = Counter()
    numbered = []
    for title in titles:
        seen[title] += 1
        numbered.append(title if seen[title] == 1 else f"{title} {seen[title]}")
    return numbered
