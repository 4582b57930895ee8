"""Cuts, motion and scenes of videos in which they are known."""

from __future__ import annotations

import numpy as np
import pytest
from made_media import write_shots

from vmnet_pipeline.passages.videos import VideoStructure, follow_video, list_scenes

pytestmark = pytest.mark.long


def test_known_cuts_are_found_to_a_frame(tmp_path):
    cuts = [2.0, 4.52, 7.0]
    found = follow_video(write_shots(tmp_path / "shots.mp4", cuts, 10.0))
    np.testing.assert_allclose(found.cuts_s, cuts, atol=0.041)
    assert found.duration_s == pytest.approx(10.0, abs=0.05)
    assert float(found.motion.max()) < 0.05  # pictures stand, and a cut is no motion


def test_a_video_is_followed_beyond_the_usual_minute(tmp_path):
    found = follow_video(write_shots(tmp_path / "long.mp4", [30.0, 64.0], 66.0, rate=10))
    assert found.duration_s == pytest.approx(66.0, abs=0.1)
    np.testing.assert_allclose(found.cuts_s, [30.0, 64.0], atol=0.041)
    assert len(found.motion) == 132


def test_motion_is_where_things_move(tmp_path):
    still = follow_video(write_shots(tmp_path / "still.mp4", [], 3.0))
    moving = follow_video(write_shots(tmp_path / "moving.mp4", [], 3.0, moving=True))
    assert moving.motion[1:-1].min() > 5 * still.motion.max()


def test_short_shots_join_to_scenes():
    video = VideoStructure(30.0, np.array([2.0, 9.0, 12.0, 25.0]), np.zeros(60))
    assert list_scenes(video, 8.0) == [(0.0, 9.0), (9.0, 30.0)]
    assert list_scenes(VideoStructure(3.0, np.empty(0), np.zeros(6)), 8.0) == [(0.0, 3.0)]
