"""Numbers of `descriptors_video`: what each frame looks like, how frames change, and where the cuts are."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.backends.descriptors import series
from vmnet_pipeline.backends.descriptors.cuts import CutDetector
from vmnet_pipeline.backends.descriptors.names import VIDEO_DESCRIPTORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    _Changes = tuple[float, float, float, float]
    _Row = tuple[list[float], np.ndarray, _Changes]

HEIGHT_PX = 160
MAX_WIDTH_PX = 640  # of frames that are a narrow band
LUMA = (0.299, 0.587, 0.114)
DARK, BRIGHT = 0.15, 0.85
N_LEVELS, N_HUES = 64, 24
EDGE = 0.1  # change of light per pixel, 0 to 1, from which it is an edge
MOVING = 0.04  # change of a pixel's light from frame to frame that noise and compression do not reach
STILL_SHARE = 0.002  # of the pixels; a frame in which fewer move stands still


@dataclass(frozen=True, slots=True)
class VideoCurves:
    """Curves of n frames, frame k at k / `rate_hz`; shares and levels from 0 to 1.

    Attributes:
        rate_hz: Frames per second.
        looks: (n, 11) float32, one column for each of `LOOKS`.
        hues: (n, 24) float32, share of saturation of each hue.
        light_change: (n,) float32, magnitude of the change of mean light since the frame before; 0 for the first.
        motion: (n,) float32, mean magnitude of the change of a pixel's light since then; 0 at a cut.
        moving: (n,) float32, share of the pixels that change visibly; 0 at a cut.
        shift: (n,) float32, how far the whole frame has moved since then, in frame heights; 0 at a cut.
        is_cut: (n,) bool, first frame of a shot, but for the first frame of all.
    """

    rate_hz: float
    looks: np.ndarray
    hues: np.ndarray
    light_change: np.ndarray
    motion: np.ndarray
    moving: np.ndarray
    shift: np.ndarray
    is_cut: np.ndarray

    def cut(self, start_s: float = 0.0, end_s: float | None = None) -> VideoCurves:
        """The frames that lie in a span, at least one. What led to the first of them is not part of it."""
        n = len(self.motion)
        first = min(round(start_s * self.rate_hz), n - 1)
        last = n if end_s is None else max(first + 1, round(end_s * self.rate_hz))
        parts = {field.name: getattr(self, field.name)[first:last].copy() for field in fields(self)[1:]}
        for name in ("light_change", "motion", "moving", "shift", "is_cut"):
            parts[name][0] = 0
        return VideoCurves(self.rate_hz, **parts)


LOOKS = ("light", "contrast", "shadows", "highlights", "sky", "saturation", "warmth", "greenness", "colourfulness",
         "edges", "entropy")  # fmt: skip
NO_CHANGE = (0.0, 0.0, 0.0, 0.0)


def measure_curves(frames: Iterable[np.ndarray], rate_hz: float) -> VideoCurves:
    """Follow a film frame by frame; only two frames are held.

    Args:
        frames: (height, width, 3) uint8 RGB, at least one; a frame that stands may be the same array again.
        rate_hz: Frames per second.
    """
    import cv2

    cv2.setNumThreads(1)  # several films are read side by side
    detector = CutDetector(rate_hz)
    rows: list[_Row] = []
    frame: np.ndarray | None = None
    light: np.ndarray | None = None
    for small in shrink_frames(frames):
        detector.add(small)
        if small is frame:
            rows.append((*rows[-1][:2], NO_CHANGE))
            continue
        frame, before = small, light
        light = small.astype(np.float32) @ (np.array(LUMA, np.float32) / 255)
        rows.append((*_describe_frame(small, light), NO_CHANGE if before is None else _compare(before, light)))
    looks, hues, changes = (np.array(part, np.float32) for part in zip(*rows, strict=True))
    is_cut = detector.finish()
    changes[is_cut, 1:] = 0.0
    light_change, motion, moving, shift = changes.T
    return VideoCurves(rate_hz, looks, hues, light_change, motion, moving, shift, is_cut)


def shrink_frames(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """At most 160 px high; the size of the first one for all."""
    import cv2

    size: tuple[int, int] | None = None
    latest = small = np.empty(0)
    for frame in frames:
        if frame is latest:
            yield small
            continue
        latest, (height, width) = frame, frame.shape[:2]
        if size is None:
            scale = min(1.0, HEIGHT_PX / height, MAX_WIDTH_PX / width)
            size = max(1, round(width * scale)), max(1, round(height * scale))
        small = frame if (width, height) == size else cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        yield small


def _describe_frame(frame: np.ndarray, light: np.ndarray) -> tuple[list[float], np.ndarray]:
    """Values of `LOOKS`, and saturation by hue.

    Args:
        frame: (h, w, 3) uint8 RGB.
        light: (h, w) float32, 0 to 1.
    """
    import cv2

    red, green, blue = (frame[..., k].astype(np.float32) / 255 for k in range(3))
    hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
    saturation = hsv[..., 1].astype(np.float32) / 255 * (hsv[..., 2].astype(np.float32) / 255)
    hues = np.bincount(hsv[..., 0].ravel().astype(int) * N_HUES // 180, saturation.ravel(), N_HUES)
    opponents = red - green, 0.5 * (red + green) - blue
    spread = np.hypot(*(part.std() for part in opponents)) + 0.3 * np.hypot(*(part.mean() for part in opponents))
    slopes = cv2.Sobel(light, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(light, cv2.CV_32F, 0, 1, scale=0.125)
    levels = np.bincount(np.minimum(light.ravel() * N_LEVELS, N_LEVELS - 1).astype(int), minlength=N_LEVELS)
    half = max(1, len(light) // 2)
    looks = [
        light.mean(),
        light.std(),
        (light < DARK).mean(),
        (light > BRIGHT).mean(),
        light[:half].mean() - light[-half:].mean(),
        saturation.mean(),
        (red - blue).mean(),
        (green - 0.5 * (red + blue)).mean(),
        spread,
        (np.hypot(*slopes) > EDGE).mean(),
        series.measure_entropy(levels),
    ]
    return [float(value) for value in looks], hues / light.size


def _compare(before: np.ndarray, light: np.ndarray) -> _Changes:
    """Change of mean light, motion, moving share and shift between two frames."""
    import cv2

    change = np.abs(light - before)
    moving = float((change > MOVING).mean())
    shift = (0.0, 0.0)
    if moving > STILL_SHARE and min(light.shape) > 1:
        shift = cv2.phaseCorrelate(before, light)[0]
    return abs(float(light.mean() - before.mean())), float(change.mean()), moving, float(np.hypot(*shift)) / len(light)


def describe_video(curves: VideoCurves) -> np.ndarray:
    """The numbers of `VIDEO_DESCRIPTORS` over all frames of some curves; `curves.cut` gives those of a span.

    Returns:
        (31,) float32, finite for any film.
    """
    values = {**_describe_looks(curves), **_describe_motion(curves), **_describe_cuts(curves)}
    return np.array([values[descriptor.name] for descriptor in VIDEO_DESCRIPTORS], np.float32)


def _describe_looks(curves: VideoCurves) -> dict[str, float]:
    looks = dict(zip(LOOKS, curves.looks.astype(np.float64).T, strict=True))
    deviations = ("light", "contrast", "saturation", "warmth", "edges", "entropy")
    return {
        **{name: float(curve.mean()) for name, curve in looks.items()},
        **{f"{name}_deviation": float(looks[name].std()) for name in deviations},
        "light_trend": series.correlate_with_time(looks["light"]),
        "flicker": _mean_step(curves.light_change[~curves.is_cut]) * curves.rate_hz,
        "hue_variety": series.measure_entropy(curves.hues.sum(axis=0, dtype=np.float64)),
    }


def _mean_step(changes: np.ndarray) -> float:
    """Mean of the changes between frames; the first value belongs to no change."""
    return float(changes[1:].mean(dtype=np.float64)) if len(changes) > 1 else 0.0


def _describe_motion(curves: VideoCurves) -> dict[str, float]:
    motion = curves.motion.astype(np.float64)[1:] if len(curves.motion) > 1 else np.zeros(1)
    is_cut = curves.is_cut[1:] if len(curves.motion) > 1 else np.zeros(1, bool)
    steady = motion[~is_cut] if not is_cut.all() else np.zeros(1)
    tempo_bpm, strength = series.find_pulse(motion, curves.rate_hz)
    moving = curves.moving[1:][~is_cut] if len(curves.moving) > 1 and not is_cut.all() else np.zeros(1)
    return {
        "motion": float(steady.mean()) * curves.rate_hz,
        "motion_deviation": float(steady.std()) * curves.rate_hz,
        "motion_peak": float(np.percentile(steady, 95)) * curves.rate_hz,
        "motion_trend": series.correlate_with_time(steady),
        "motion_area": float(moving.mean(dtype=np.float64)),
        "stillness": float((moving <= STILL_SHARE).mean()),
        "camera_speed": _mean_step(curves.shift[~curves.is_cut]) * curves.rate_hz,
        "motion_tempo": tempo_bpm,
        "motion_pulse": strength,
    }


def _describe_cuts(curves: VideoCurves) -> dict[str, float]:
    n = len(curves.is_cut)
    cuts = np.flatnonzero(curves.is_cut)
    shots = np.diff(np.concatenate([[0], cuts, [n]]))
    return {
        "cuts": len(cuts) * 60 * curves.rate_hz / n,
        "shot_irregularity": series.measure_irregularity(shots),
    }
