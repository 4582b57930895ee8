"""Find cuts with PySceneDetect, on frames that are decoded already."""

from __future__ import annotations

import numpy as np

# Thresholds of the cut detector: its own defaults, but for the shortest shot.
CUT_RATIO = 3.0  # a cut changes the frame so many times as much as the frames around it do,
MIN_CUT_CHANGE = 15.0  # and its hue, saturation and light by so much, 0 to 255, on average
CUT_WINDOW_FRAMES = 2
MIN_SHOT_S = 0.4


class CutDetector:
    """Marks the frames at which a shot begins, in one pass.

    `AdaptiveDetector` compares each change with those around it, so that fast motion is no cut. The first and last
    two frames are none either, as it does not see what is around them.
    """

    def __init__(self, rate_hz: float) -> None:
        """Prepare for frames at a steady rate."""
        from scenedetect.detectors import AdaptiveDetector

        self._rate_hz, self._n, self._cuts = float(rate_hz), 0, list[int]()
        self._detector = AdaptiveDetector(
            adaptive_threshold=CUT_RATIO,
            min_scene_len=max(1, round(MIN_SHOT_S * rate_hz)),
            window_width=CUT_WINDOW_FRAMES,
            min_content_val=MIN_CUT_CHANGE,
        )

    def add(self, frame: np.ndarray) -> None:
        """The next frame, (h, w, 3) uint8 RGB."""
        from scenedetect import FrameTimecode

        time = FrameTimecode(self._n, self._rate_hz)
        self._cuts += [cut.frame_num for cut in self._detector.process_frame(time, frame[..., ::-1])]
        self._n += 1

    def finish(self) -> np.ndarray:
        """(n,) bool: whether a shot begins at each of the n frames; the first one is not counted."""
        is_cut = np.zeros(self._n, bool)
        is_cut[self._cuts] = True
        is_cut[0] = False
        return is_cut
