"""Synthetic video frames: gradients, rays, grain and drifting shapes, controlled by a mood."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmnet_pipeline.demo.mood import Mood

Rgb = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class SceneStyle:
    """What all shots of one scene share."""

    background: tuple[Rgb, Rgb]  # colours of the two ends of the backdrop, RGB in [0, 1]
    palette: tuple[Rgb, ...]  # colours of the shapes, RGB in [0, 1]
    n_shapes: int
    size: float  # radius of a typical shape as a share of the frame height
    softness: float  # width of a shape's edge as a share of its radius
    spikes: int  # points of a shape
    spike_depth: float  # how far the points protrude, 0 = a disc
    grain: float  # amplitude of the texture, 0 to 1
    grain_cells: int  # texture cells along the frame height; many = fine
    rays: float  # contrast of the rays on the backdrop, 0 to 1
    n_rays: int
    speed: float  # drift of the shapes in frame heights per second
    beat_hz: float  # beats per second, those of the music
    beats_per_cut: int  # beats between two cuts
    flash: float  # how much brighter the frame is on a beat


def draw_scene_style(mood: Mood, tempo_bpm: float, rng: np.random.Generator) -> SceneStyle:
    """Choose the scene that expresses a mood; what the mood leaves open is drawn."""
    # From blue-violet (dark) through green to orange (happy): the path avoids red, where hue wraps around.
    hue = 0.70 - 0.62 * mood.valence + float(rng.normal(0.0, 0.02))
    saturation = 0.25 + 0.65 * mood.energy
    value = 0.08 + 0.84 * mood.brightness
    contrast = 0.25 + 0.6 * mood.energy
    # Light shapes on dark backgrounds, dark ones on light.
    shape_value = value + contrast if value < 0.5 else max(0.14, value - contrast)
    return SceneStyle(
        background=(
            _to_rgb(hue, 0.8 * saturation, value),
            _to_rgb(hue + 0.06, 0.8 * saturation, value * (0.95 - 0.45 * mood.energy)),
        ),
        palette=tuple(
            _to_rgb(hue + float(rng.normal(0.0, 0.04)), saturation, shape_value + float(rng.uniform(-0.12, 0.12)))
            for _ in range(5)
        ),
        n_shapes=round(3.0 * 15.0**mood.density),
        size=0.34 * 0.16**mood.density * float(rng.uniform(0.85, 1.15)),
        softness=0.03 + 0.9 * (1.0 - mood.energy) ** 2,
        spikes=int(rng.integers(4, 8)),
        spike_depth=0.65 * mood.roughness,
        grain=0.38 * mood.roughness**1.3,
        grain_cells=20 + int(70 * mood.roughness),
        rays=0.7 * max(0.0, mood.energy - 0.25),
        n_rays=int(rng.integers(5, 12)),
        speed=0.02 + 0.7 * mood.energy**2,
        beat_hz=tempo_bpm / 60.0,
        beats_per_cut=(16, 8, 8, 4, 4)[min(4, int(mood.energy * 5))],
        flash=0.3 * mood.energy,
    )


def _to_rgb(hue: float, saturation: float, value: float) -> Rgb:
    return colorsys.hsv_to_rgb(hue % 1.0, min(1.0, max(0.0, saturation)), min(1.0, max(0.0, value)))


def render_frames(
    style: SceneStyle, rng: np.random.Generator, duration_s: float, width: int, height: int, frame_rate_hz: int
) -> Iterator[np.ndarray]:
    """Yield the frames of one clip, (height, width, 3) uint8 RGB, `round(duration_s * frame_rate_hz)` times.

    Args:
        rng: Draws the shots: positions, directions, textures.
    """
    shot = _Shot(style, rng, width, height)
    last_cut = 0
    for index in range(round(duration_s * frame_rate_hz)):
        time_s = index / frame_rate_hz
        beat = time_s * style.beat_hz
        cut = int(beat // style.beats_per_cut)
        if cut != last_cut:
            shot, last_cut = _Shot(style, rng, width, height), cut
        yield shot.draw(time_s, flash=style.flash * math.exp(-6.0 * (beat % 1.0)))


class _Shot:
    """One shot: a fixed backdrop and grain, and shapes that drift across the frame."""

    def __init__(self, style: SceneStyle, rng: np.random.Generator, width: int, height: int) -> None:
        self._backdrop = _draw_backdrop(style, rng, width, height)
        self._grain = _draw_grain(style, rng, width, height)
        self._sprites = [_draw_sprite(style, rng, height) for _ in range(style.n_shapes)]
        self._colours = np.array(style.palette, np.float32)[rng.integers(0, len(style.palette), style.n_shapes)]
        self._places = rng.random((style.n_shapes, 2))
        angles = rng.normal(float(rng.uniform(0, 2 * math.pi)), 0.6, style.n_shapes)
        speeds = style.speed * rng.uniform(0.6, 1.4, style.n_shapes)
        self._velocities = np.stack([np.sin(angles) * speeds, np.cos(angles) * speeds * height / width], axis=1)

    def draw(self, time_s: float, flash: float) -> np.ndarray:
        """Draw the frame at a time: (height, width, 3) uint8."""
        frame: np.ndarray = self._backdrop.copy()
        places = (self._places + self._velocities * time_s) % 1.0
        for sprite, colour, (row, column) in zip(self._sprites, self._colours, places, strict=True):
            _blit(frame, sprite, colour, float(row), float(column))
        frame *= self._grain
        frame *= np.float32(255.0 * (1.0 + flash))
        np.clip(frame, 0.0, 255.0, out=frame)
        return frame.astype(np.uint8)


def _draw_backdrop(style: SceneStyle, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A two-colour gradient with rays from one point: (height, width, 3) float32 in [0, 1]."""
    rows = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None]
    columns = np.linspace(0.0, 1.0, width, dtype=np.float32)[None, :]
    angle = float(rng.uniform(0.0, 2.0 * math.pi))
    slope = np.clip(0.5 + (rows - 0.5) * math.sin(angle) + (columns - 0.5) * math.cos(angle), 0.0, 1.0)
    centre = rng.uniform(0.2, 0.8, 2)
    bearing = np.arctan2(rows - centre[0], (columns - centre[1]) * (width / height))
    rays = np.tanh(4.0 * np.sin(style.n_rays * bearing + angle))
    first, second = (np.array(colour, np.float32) for colour in style.background)
    gradient = first + (second - first) * slope[..., None].astype(np.float32)
    return np.asarray(gradient * (1.0 + style.rays * 0.5 * rays[..., None]), np.float32)


def _draw_grain(style: SceneStyle, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A texture of square cells to multiply with: (height, width, 1) float32 around 1."""
    cell = max(1, height // style.grain_cells)
    cells = rng.uniform(-1.0, 1.0, (math.ceil(height / cell), math.ceil(width / cell)))
    texture = np.repeat(np.repeat(cells, cell, axis=0), cell, axis=1)[:height, :width]
    return (1.0 + style.grain * texture[..., None]).astype(np.float32)


def _draw_sprite(style: SceneStyle, rng: np.random.Generator, height: int) -> np.ndarray:
    """The opacity of one shape: (2 r + 1, 2 r + 1, 1) float32 in [0, 1]."""
    radius = max(2.0, style.size * height * float(rng.uniform(0.6, 1.4)))
    edge = max(1.0, style.softness * radius)
    reach = math.ceil(radius * (1.0 + style.spike_depth) + edge / 2.0)
    offsets = np.arange(-reach, reach + 1, dtype=np.float32)
    distance = np.hypot(offsets[:, None], offsets[None, :])
    bearing = np.arctan2(offsets[:, None], offsets[None, :]) + float(rng.uniform(0.0, 2.0 * math.pi))
    outline = radius * (1.0 + style.spike_depth * np.cos(style.spikes * bearing))
    return np.clip((outline - distance) / edge + 0.5, 0.0, 1.0).astype(np.float32)[..., None]


def _blit(frame: np.ndarray, sprite: np.ndarray, colour: np.ndarray, row: float, column: float) -> None:
    """Lay a shape over the frame, centred at relative coordinates in [0, 1); what sticks out is cut off."""
    height, width = frame.shape[:2]
    reach = len(sprite) // 2
    top, left = round(row * height) - reach, round(column * width) - reach
    rows = slice(max(0, top), max(0, min(height, top + len(sprite))))
    columns = slice(max(0, left), max(0, min(width, left + len(sprite))))
    opacity = sprite[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    area = frame[rows, columns]
    area += opacity * (colour - area)
