"""Cuts and motion of a whole video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.backends.descriptors import video
from vmnet_pipeline.backends.descriptors.cuts import CutDetector
from vmnet_pipeline.media.video import sample_frames
from vmnet_pipeline.passages.tracks import ENERGY_HZ, average_rate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vmnet_pipeline.media.sandbox import Sandbox

RATE_HZ = 25.0
PART_FRAMES = 1500


@dataclass(frozen=True, slots=True)
class VideoStructure:
    """What is known of a video; times in seconds, rising.

    Attributes:
        duration_s: Its length.
        cuts_s: (c,) where shots begin, but for the first.
        motion: (m,) mean magnitude of the change of light per second, `ENERGY_HZ` values a second.
        warnings: What could not be read.
    """

    duration_s: float
    cuts_s: np.ndarray
    motion: np.ndarray
    warnings: tuple[str, ...] = ()


def follow_video(path: str, sandbox: Sandbox | None = None) -> VideoStructure:
    """Look for cuts and motion in a whole video, in a child process of the sandbox.

    Raises:
        MediaError: The file cannot be used.
    """
    parts = list(stream_motion(path) if sandbox is None else sandbox.stream(stream_motion, path))
    motion = np.concatenate([part.motion for part in parts])
    cuts, warnings = parts[-1].cuts_s, parts[-1].warnings
    motion[np.round(cuts * RATE_HZ).astype(int)] = 0.0
    return VideoStructure(len(motion) / RATE_HZ, cuts, average_rate(motion, RATE_HZ, ENERGY_HZ), warnings)


def stream_motion(path: str) -> Iterator[VideoStructure]:
    """Follow a video, 25 frames a second, of which two are held; the last part has cuts and warnings.

    `motion` of a part has a value per frame.
    """
    import cv2

    cv2.setNumThreads(1)
    warnings: list[str] = []
    detector, changes = CutDetector(RATE_HZ), list[float]()
    before, light = np.empty(0), np.empty(0)
    frames = (frame for _, frame in sample_frames(path, rate_hz=RATE_HZ, max_duration_s=None, warnings=warnings))
    for number, small in enumerate(video.shrink_frames(frames)):
        detector.add(small)
        change = 0.0
        if small is not before:
            previous, light = light, cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
            change = float(cv2.absdiff(previous, light).mean()) / 255 * RATE_HZ if number else 0.0
        changes.append(change)
        before = small
        if len(changes) == PART_FRAMES:
            yield VideoStructure(0.0, np.empty(0), np.array(changes))
            changes = []
    cuts = np.flatnonzero(detector.finish()) / RATE_HZ
    yield VideoStructure(0.0, cuts, np.array(changes), tuple(warnings))


def list_scenes(video: VideoStructure, min_scene_s: float) -> Sequence[tuple[float, float]]:
    """(start, end) of the scenes: shots, joined to the one before until they are long enough."""
    bounds = [0.0]
    for cut in video.cuts_s:
        if cut - bounds[-1] >= min_scene_s and video.duration_s - cut >= min_scene_s:
            bounds.append(float(cut))
    return list(zip(bounds, [*bounds[1:], video.duration_s], strict=True))
