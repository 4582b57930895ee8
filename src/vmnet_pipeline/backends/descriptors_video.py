"""Numbers with names about the picture: light, colour, detail, motion and cuts."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from vmnet_pipeline.backends.descriptors import video
from vmnet_pipeline.backends.descriptors.backend import DescriptorBackend, DescriptorParams
from vmnet_pipeline.backends.framing import count_pieces
from vmnet_pipeline.media.pixels import PICTURE_RECIPE
from vmnet_pipeline.media.video import sample_frames
from vmnet_pipeline.types import Modality, PreparedItem

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = 1
"""Raised by whoever changes a number."""


class VideoDescriptorParams(DescriptorParams):
    """Parameters of the `descriptors_video` backend."""

    rate_hz: float = Field(8.0, ge=1, le=60, description="Frames looked at per second of video.")
    max_duration_s: float = Field(300.0, gt=0, le=36_000, description="Length of the window; later video is ignored.")


class VideoDescriptorBackend(DescriptorBackend):
    """(32,) float32 per item."""

    name: ClassVar[str] = "descriptors_video"
    modality: ClassVar[Modality] = "video"
    params_type: ClassVar[type[DescriptorParams]] = VideoDescriptorParams

    def describe_settings(self) -> dict[str, Any]:
        """See `DescriptorBackend`."""
        return {
            "version": VERSION,
            "rate_hz": self.params.rate_hz,
            "max_duration_s": self.params.max_duration_s,
            "decoder": f"ffmpeg, one clock, picture on screen at t; {PICTURE_RECIPE}",
            "front_end": f"area average to {video.HEIGHT_PX} px, opencv {metadata.version('opencv-python-headless')}",
            "cuts": f"AdaptiveDetector of scenedetect {metadata.version('scenedetect-headless')}",
        }

    def import_libraries(self) -> None:
        """See `DescriptorBackend`."""
        import cv2  # noqa: F401
        import scenedetect.detectors  # noqa: F401
        import scipy.signal  # noqa: F401

    def prepare(self, path: str) -> PreparedItem:
        """See `FeatureBackend.prepare`; inputs are (1, 31) numbers."""
        warnings: list[str] = []
        rate_hz, window_s = self.params.rate_hz, self.params.max_duration_s
        timed = sample_frames(path, rate_hz=rate_hz, max_duration_s=window_s, warnings=warnings)
        curves = video.measure_curves((frame for _, frame in timed), rate_hz)
        return PreparedItem(video.describe_video(curves)[None], 1, tuple(warnings))

    def stream(self, path: str, window_s: float, hop_s: float) -> Iterator[PreparedItem]:
        """See `whole_file.WholeFileBackend`; one entry per piece. A frame leaves 160 bytes of curves."""
        warnings: list[str] = []
        rate_hz = self.params.rate_hz
        timed = sample_frames(path, rate_hz=rate_hz, max_duration_s=None, warnings=warnings)
        curves = video.measure_curves((frame for _, frame in timed), rate_hz)
        starts = np.arange(count_pieces(len(curves.motion) / rate_hz, window_s, hop_s)) * hop_s
        rows = np.stack([video.describe_video(curves.cut(start, start + window_s)) for start in starts])
        yield PreparedItem(rows, len(rows), tuple(warnings))
