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
    from collections.abc import Sequence

RATE_HZ = 25.0


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


def follow_video(path: str) -> VideoStructure:
    """Look for cuts and motion, 25 frames a second, of which two are held. Runs in a child process.

    Raises:
        MediaError: The file cannot be used.
    """
    import cv2

    cv2.setNumThreads(1)
    warnings: list[str] = []
    frames = (frame for _, frame in sample_frames(path, rate_hz=RATE_HZ, warnings=warnings))
    detector, changes, before, light = CutDetector(RATE_HZ), [0.0], None, None
    for small in video.shrink_frames(frames):
        detector.add(small)
        if before is not None:
            previous, light = light, light if small is before else cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
            changes.append(0.0 if small is before else float(cv2.absdiff(previous, light).mean()) / 255 * RATE_HZ)
        else:
            light = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        before = small
    is_cut, motion = detector.finish(), np.array(changes)
    motion[is_cut] = 0.0
    duration_s = len(motion) / RATE_HZ
    return VideoStructure(
        duration_s, np.flatnonzero(is_cut) / RATE_HZ, average_rate(motion, RATE_HZ, ENERGY_HZ), tuple(warnings)
    )


def list_scenes(video: VideoStructure, min_scene_s: float) -> Sequence[tuple[float, float]]:
    """(start, end) of the scenes: shots, joined to the one before until they are long enough."""
    bounds = [0.0]
    for cut in video.cuts_s:
        if cut - bounds[-1] >= min_scene_s and video.duration_s - cut >= min_scene_s:
            bounds.append(float(cut))
    return list(zip(bounds, [*bounds[1:], video.duration_s], strict=True))
