"""Descriptors of the picture: what each number says, cuts, spans, and odd films."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from vmnet_pipeline.backends.descriptors import video
from vmnet_pipeline.backends.descriptors.names import VIDEO_DESCRIPTORS
from vmnet_pipeline.backends.registry import get_backend
from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.media.sandbox import Sandbox
from vmnet_pipeline.params import LimitParams

RATE = 8.0
NAMES = [descriptor.name for descriptor in VIDEO_DESCRIPTORS]
HEIGHT, WIDTH = 72, 128


def describe(frames, rate_hz=RATE) -> dict[str, float]:
    found = video.describe_video(video.measure_curves(frames, rate_hz))
    return dict(zip(NAMES, found.tolist(), strict=True))


def fill(*colour: int, n: int = 24) -> list[np.ndarray]:
    return [np.full((HEIGHT, WIDTH, 3), colour, np.uint8)] * n


def make_scene(seed: int) -> np.ndarray:
    """A picture of coloured blocks, twice as wide as a frame."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 20, 3), np.uint8)
    return blocks.repeat(12, axis=0).repeat(13, axis=1)


def pan(seed: int, n: int = 24, px_per_frame: float = 2.0) -> list[np.ndarray]:
    scene = make_scene(seed)
    return [scene[:, round(k * px_per_frame) : round(k * px_per_frame) + WIDTH] for k in range(n)]


def blink(bpm: float, n: int = 80) -> list[np.ndarray]:
    """A small block that jumps to and fro, once a beat."""
    frames = []
    for k in range(n):
        frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        left = 10 + 60 * (int(k / RATE * bpm / 60) % 2)
        frame[20:32, left : left + 16] = 150
        frames.append(frame)
    return frames


def fade(start: int, stop: int) -> list[np.ndarray]:
    return [frame for level in np.linspace(start, stop, 24) for frame in fill(*[int(level)] * 3, n=1)]


NOISE = list(np.random.default_rng(2).integers(0, 256, (24, HEIGHT, WIDTH, 3), np.uint8))
SKY = [np.concatenate([np.full((36, WIDTH, 3), 230, np.uint8), np.full((36, WIDTH, 3), 40, np.uint8)])] * 24


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("light", fill(20, 20, 20), fill(220, 220, 220)),
        ("light_deviation", fill(100, 100, 100), fade(0, 255)),
        ("light_trend", fade(255, 0), fade(0, 255)),
        ("flicker", fill(100, 100, 100), [*fill(90, 90, 90, n=1), *fill(110, 110, 110, n=1)] * 12),
        ("shadows", fill(220, 220, 220), fill(10, 10, 10)),
        ("highlights", fill(20, 20, 20), fill(250, 250, 250)),
        ("contrast", fill(100, 100, 100), SKY),
        ("sky", [frame[::-1] for frame in SKY], SKY),
        ("saturation", fill(120, 120, 120), fill(220, 20, 20)),
        ("warmth", fill(20, 60, 220), fill(220, 120, 20)),
        ("warmth_deviation", fill(220, 120, 20), [*fill(20, 60, 220, n=12), *fill(220, 120, 20, n=12)]),
        ("greenness", fill(200, 20, 200), fill(20, 200, 20)),
        ("colourfulness", fill(120, 120, 120), pan(1)),
        ("hue_variety", fill(220, 20, 20), pan(1)),
        ("edges", fill(120, 120, 120), NOISE),
        ("entropy", fill(120, 120, 120), NOISE),
        ("motion", pan(1, px_per_frame=0), pan(1)),
        ("motion_deviation", pan(1), [*pan(1, 12, 0), *pan(1, 12, 6)]),
        ("motion_trend", [*pan(1, 12, 4), *pan(1, 12, 0.5)], [*pan(1, 12, 0.5), *pan(1, 12, 4)]),
        ("motion_area", blink(60), NOISE),
        ("stillness", pan(1), pan(1, px_per_frame=0)),
        ("camera_speed", pan(1, px_per_frame=0), pan(1, px_per_frame=4)),
        ("cuts", pan(1), [*pan(1, 12), *pan(2, 12)]),
    ],
)
def test_a_number_says_what_its_name_says(name, low, high):
    found = [describe(frames)[name] for frames in (low, high)]
    assert found[1] > found[0] + 0.01 * max(1.0, abs(found[0]))


def test_levels_are_those_of_the_pixels():
    found = describe(fill(204, 51, 0))
    assert found["light"] == pytest.approx(0.299 * 0.8 + 0.587 * 0.2, abs=1e-3)
    assert found["warmth"] == pytest.approx(0.8, abs=1e-3)
    assert found["saturation"] == pytest.approx(0.8, abs=0.01)
    assert found["greenness"] == pytest.approx(0.2 - 0.4, abs=1e-3)
    assert found["entropy"] == found["hue_variety"] == 0.0
    assert found["contrast"] == pytest.approx(0.0, abs=1e-6)


def test_every_hue_counts():
    """Hues go to 180 in a byte: times the number of classes they would run over."""
    wheel = [(255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255)]
    curves = video.measure_curves([np.full((16, 16, 3), colour, np.uint8) for colour in wheel], RATE)
    assert curves.hues.argmax(axis=1).tolist() == [0, 4, 8, 12, 16, 20]


def test_speed_of_the_camera_is_in_frame_heights_per_second():
    rng = np.random.default_rng(4)
    scene = rng.integers(0, 256, (HEIGHT, 400, 3), np.uint8)
    frames = [np.ascontiguousarray(scene[:, 3 * k : 3 * k + WIDTH]) for k in range(24)]
    assert describe(frames)["camera_speed"] == pytest.approx(3 * RATE / HEIGHT, rel=0.1)


@pytest.mark.parametrize("bpm", [60, 96, 120])
def test_motion_has_the_tempo_of_what_moves(bpm):
    found = describe(blink(bpm))
    assert found["motion_tempo"] == pytest.approx(bpm, rel=0.03)
    assert found["motion_pulse"] > 0.5


@pytest.mark.parametrize("rate_hz", [4, 8.0, 24.0])
def test_cuts_are_found_where_they_are(rate_hz):
    lengths_s = [3.0, 1.5, 4.0, 2.0, 1.0, 2.5]
    frames = [
        frame
        for seed, seconds in enumerate(lengths_s)
        for frame in pan(seed, round(seconds * rate_hz), px_per_frame=12 / rate_hz)
    ]
    curves = video.measure_curves(frames, rate_hz)
    np.testing.assert_allclose(np.flatnonzero(curves.is_cut) / rate_hz, np.cumsum(lengths_s)[:-1], atol=1e-9)
    found = dict(zip(NAMES, video.describe_video(curves), strict=True))
    assert found["cuts"] == pytest.approx(5 * 60 / sum(lengths_s))
    assert found["shot_irregularity"] == pytest.approx(np.std(lengths_s) / np.mean(lengths_s), rel=0.02)


def test_fast_motion_a_fade_and_a_flicker_are_no_cuts():
    for frames in (pan(1, 40, 3.0), NOISE, fade(0, 255), blink(120)):
        assert describe(frames)["cuts"] == 0.0


def test_a_cut_is_no_motion():
    still = [*fill(20, 20, 20, n=12), *pan(3, 12, 0)]
    curves = video.measure_curves(still, RATE)
    found = dict(zip(NAMES, video.describe_video(curves), strict=True))
    assert found["cuts"] > 0
    assert found["motion"] == found["motion_peak"] == found["flicker"] == 0.0
    assert not curves.motion.any()  # a rhythm of cuts is no rhythm of motion


def test_frames_that_stand_may_be_the_same_array():
    once = [frame for frame in pan(1, 12) for _ in range(2)]
    np.testing.assert_array_equal(
        video.describe_video(video.measure_curves(once, RATE)),
        video.describe_video(video.measure_curves([frame.copy() for frame in once], RATE)),
    )


def test_a_span_is_described_as_if_it_were_alone():
    frames = [*pan(1, 16, 0), *pan(2, 24, 4)]
    curves = video.measure_curves(frames, RATE)
    for span, part in (((0.0, 2.0), frames[:16]), ((2.0, None), frames[16:])):
        alone = video.describe_video(video.measure_curves(part, RATE))
        np.testing.assert_allclose(video.describe_video(curves.cut(*span)), alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("span", [(0.0, 0.0), (100.0, None), (1.0, 1.001)])
def test_a_span_has_at_least_one_frame(span):
    curves = video.measure_curves(pan(1), RATE)
    assert np.isfinite(video.describe_video(curves.cut(*span))).all()


@pytest.mark.parametrize("n", [1, 2, 3, 40])
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (36, 64), (720, 405)])
@pytest.mark.parametrize("level", [0, 255])
def test_odd_film_gives_finite_numbers_without_warnings(shape, level, n):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = describe([np.full((*shape, 3), level, np.uint8) for _ in range(n)])
    assert np.isfinite(list(found.values())).all()
    assert found["cuts"] == found["motion"] == 0.0


def test_the_size_of_a_film_may_change_within_it():
    assert np.isfinite(list(describe([*pan(1, 12), *(np.zeros((300, 200, 3), np.uint8),) * 12]).values())).all()


def test_size_hardly_changes_the_numbers():
    large = [frame.repeat(6, axis=0).repeat(6, axis=1) for frame in pan(1)]
    small = [frame.repeat(3, axis=0).repeat(3, axis=1) for frame in pan(1)]
    one, other = describe(large), describe(small)
    for name in ("light", "saturation", "warmth", "contrast", "colourfulness", "hue_variety", "motion", "camera_speed"):
        assert one[name] == pytest.approx(other[name], rel=0.1, abs=0.01)


def test_the_backend_makes_one_row_of_a_film(tmp_path):
    clip = make_clip(tmp_path / "film.mp4", duration_s=2.0, width=128, height=72)
    backend = get_backend("descriptors_video", weights_dir=tmp_path / "none")
    backend.load()
    prepared = backend.prepare(str(clip))
    feature = backend.finish(backend.infer(prepared.inputs))
    assert feature.shape == (len(VIDEO_DESCRIPTORS),)
    assert feature.dtype == np.float32
    assert np.isfinite(feature).all()
    np.testing.assert_array_equal(backend.pool(feature), feature)
    np.testing.assert_array_equal(backend.pool(prepared.inputs), feature)


def test_the_fingerprint_names_what_changes_the_numbers():
    settings = get_backend("descriptors_video").fingerprint().settings
    import cv2

    assert cv2.__version__ in settings["front_end"]
    assert "scenedetect 0.7" in settings["cuts"]
    for params in ({"rate_hz": 4.0}, {"max_duration_s": 60.0}):
        assert get_backend("descriptors_video", params).fingerprint().settings != settings


@pytest.mark.process
def test_libraries_are_imported_once_and_not_at_the_expense_of_a_file(tmp_path):
    clip = make_clip(tmp_path / "film.mp4", duration_s=2.0, width=128, height=72)
    backend = get_backend("descriptors_video")
    with Sandbox(LimitParams(memory_mb=128, seconds=60.0)) as sandbox:
        for _ in range(3):
            found = sandbox.call(backend.prepare, str(clip))
        (child,) = sandbox._everyone
        assert child.n_asked == 3
    np.testing.assert_array_equal(found.inputs, backend.prepare(str(clip)).inputs)
