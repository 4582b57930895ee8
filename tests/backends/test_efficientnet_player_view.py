"""The feature of a film that is HDR, interlaced or anamorphic is that of the plain film of the same content."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vmnet_pipeline.backends.efficientnet import EfficientnetBackend
from vmnet_pipeline.demo.frames import draw_scene_style, render_frames
from vmnet_pipeline.demo.mood import draw_mood

sys.path.append(str(Path(__file__).resolve().parents[1] / "media"))
import hdr
import hostile

pytestmark = pytest.mark.long
RATE_HZ = 50
WIDTH, HEIGHT = 640, 360


def draw_scene(seed, speed):
    """Two seconds of a demo film, one picture per field."""
    rng = np.random.default_rng(seed)
    style = draw_scene_style(draw_mood(rng), 120.0, rng)
    pictures = render_frames(style, rng, 2.0 * speed, width=WIDTH, height=HEIGHT, frame_rate_hz=RATE_HZ)
    return list(pictures)[::speed]


def write_plain(path, scene):
    hostile.encode_video(path, scene[::2], options={"crf": "6"})


def write_hdr(path, scene, transfer):
    frames = [hdr.to_frame(hdr.code_hdr(scene[k * RATE_HZ], transfer, 203), "yuv420p10le") for k in range(2)]
    options = {"x265-params": "log-level=none:crf=4:keyint=1"}
    hdr.write_tagged(path, frames, codec="libx265", transfer=transfer, primaries=9, matrix=9, options=options)


def write_anamorphic(path, scene):
    pictures = [np.asarray(Image.fromarray(picture).resize((450, HEIGHT), Image.BICUBIC)) for picture in scene[::2]]
    hostile.encode_video(path, pictures, pixel_aspect=Fraction(64, 45), options={"crf": "6"})


def write_interlaced(path, scene):
    woven = []
    for upper, lower in zip(scene[::2], scene[1::2], strict=True):
        woven.append(upper.copy())
        woven[-1][1::2] = lower[1::2]
    hostile.encode_video(path, woven, fields="tff", options={"crf": "6"})


@pytest.fixture(scope="module")
def backend(weights_dir):
    backend = EfficientnetBackend({"n_threads": 1, "engine": "torch"}, weights_dir=weights_dir)
    backend.load()
    return backend


def extract(backend, path):
    return backend.infer(backend.prepare(str(path)).inputs).mean(axis=0)


@pytest.fixture(scope="module")
def plain_scene(backend, tmp_path_factory):
    """A scene and the feature of its plain film."""
    scene, path = draw_scene(1, speed=1), tmp_path_factory.mktemp("plain") / "plain.mp4"
    write_plain(path, scene)
    return scene, extract(backend, path)


KINDS = {
    "HLG": lambda path, scene: write_hdr(path, scene, hdr.HLG),
    "PQ": lambda path, scene: write_hdr(path, scene, hdr.PQ),
    "anamorphic": write_anamorphic,
}


def similarity(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("kind", KINDS)
def test_feature_is_that_of_the_plain_film(backend, plain_scene, tmp_path, kind):
    scene, plain = plain_scene
    KINDS[kind](tmp_path / "other.mp4", scene)
    assert similarity(plain, extract(backend, tmp_path / "other.mp4")) >= 0.99


def test_feature_of_interlaced_film_is_that_of_the_plain_film(backend, tmp_path):
    scene = draw_scene(5, speed=3)
    write_plain(tmp_path / "plain.mp4", scene)
    write_interlaced(tmp_path / "other.mp4", scene)
    assert similarity(*(extract(backend, tmp_path / f"{name}.mp4") for name in ("plain", "other"))) >= 0.99
