"""Pictures: which one is chosen is checked against numbers drawn into them, colours against the formula."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hostile import (
    add_mp3_cover,
    draw_number,
    encode_sound,
    encode_video,
    make_sine,
    overwrite,
    read_number,
    truncate,
)

from vmnet_pipeline.errors import MediaError, ParameterError
from vmnet_pipeline.media import video
from vmnet_pipeline.media.pixels import orient_picture
from vmnet_pipeline.media.video import sample_frames

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import CountingFile

MILLISECOND = Fraction(1, 1000)


def sample_numbers(path: Path, **arguments: float | None) -> list[tuple[float, int]]:
    return [(t_s, read_number(picture)) for t_s, picture in sample_frames(path, **arguments)]  # type: ignore[arg-type]


def draw_scene(number: int, n: int = 200, height: int = 96, width: int = 160) -> np.ndarray:
    """A number over a moving, textured background, so that encoders use all their kinds of frames."""
    rng = np.random.default_rng(7)
    texture = np.kron(rng.integers(0, 255, (40, 80)), np.ones((8, 8))).astype(np.uint8)
    x = int(200 + 190 * np.sin(number / 9))
    picture = np.repeat(texture[40 : 40 + height, x : x + width, None], 3, axis=2)
    picture[height // 3 : 2 * height // 3] = draw_number(number, height, width)[height // 3 : 2 * height // 3]
    return np.ascontiguousarray(picture)


# --- the choice of pictures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx265"), ("a.avi", "mpeg4"), ("a.webm", "libvpx-vp9"), ("a.ts", "libx264"),
     ("a.mp4", "libsvtav1")],
)  # fmt: skip
def test_one_picture_a_second(tmp_path: Path, name: str, codec: str) -> None:
    encode_video(tmp_path / name, [draw_number(k) for k in range(90)], codec=codec, rate_hz=25)
    assert sample_numbers(tmp_path / name) == [(0.0, 0), (1.0, 25), (2.0, 50), (3.0, 75)]


def test_end_of_the_video_is_not_a_sampling_time(tmp_path: Path) -> None:
    encode_video(tmp_path / "a.mp4", [draw_number(k) for k in range(50)], rate_hz=25)
    assert sample_numbers(tmp_path / "a.mp4") == [(0.0, 0), (1.0, 25)]
    encode_video(tmp_path / "a.mp4", [draw_number(k) for k in range(51)], rate_hz=25)
    assert sample_numbers(tmp_path / "a.mp4") == [(0.0, 0), (1.0, 25), (2.0, 50)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"max_duration_s": 2.0}, [0, 25]),
        ({"max_duration_s": 2.01}, [0, 25, 50]),
        ({"max_frames": 1}, [0]),
        ({"rate_hz": 2.0, "max_duration_s": 1.5}, [0, 12, 25]),
        ({"rate_hz": 0.5, "max_duration_s": None}, [0, 50]),
        ({"rate_hz": 25.0, "max_duration_s": 0.2}, [0, 1, 2, 3, 4]),
    ],
)
def test_rate_and_window(tmp_path: Path, arguments: dict[str, float], expected: list[int]) -> None:
    encode_video(tmp_path / "a.mp4", [draw_number(k) for k in range(90)], rate_hz=25)
    assert [number for _, number in sample_numbers(tmp_path / "a.mp4", **arguments)] == expected


def test_variable_frame_rate_goes_by_time(tmp_path: Path) -> None:
    times_ms = [0, 10, 20, 990, 1_001, 1_990, 2_000, 2_500, 4_700, 4_710]
    pictures = [draw_number(k) for k in range(len(times_ms))]
    encode_video(tmp_path / "a.mkv", pictures, rate_hz=25, pts=times_ms, time_base=MILLISECOND)
    assert sample_numbers(tmp_path / "a.mkv") == [(0.0, 0), (1.0, 3), (2.0, 6), (3.0, 7), (4.0, 7)]


@pytest.mark.parametrize("first_ms", [0, 400, 3_600_000])
def test_time_counts_from_the_first_picture(tmp_path: Path, first_ms: int) -> None:
    pts = [first_ms + 40 * k for k in range(60)]
    pictures = [draw_number(k) for k in range(60)]
    encode_video(tmp_path / "a.mkv", pictures, rate_hz=25, pts=pts, time_base=MILLISECOND)
    assert sample_numbers(tmp_path / "a.mkv") == [(0.0, 0), (1.0, 25), (2.0, 50)]


def test_video_shorter_than_a_second_gives_its_first_picture(tmp_path: Path) -> None:
    encode_video(tmp_path / "a.mp4", [draw_number(k + 3) for k in range(5)])
    assert sample_numbers(tmp_path / "a.mp4") == [(0.0, 3)]


def test_single_picture(tmp_path: Path) -> None:
    encode_video(tmp_path / "a.mp4", [draw_number(9)])
    assert sample_numbers(tmp_path / "a.mp4") == [(0.0, 9)]


def test_one_wrong_timestamp_does_not_go_on_for_ever(tmp_path: Path) -> None:
    pts = [40 * k for k in range(30)] + [10**9]
    encode_video(tmp_path / "a.mkv", [draw_number(k) for k in range(31)], pts=pts, time_base=MILLISECOND)
    numbers = sample_numbers(tmp_path / "a.mkv", max_duration_s=None)
    assert numbers[:2] == [(0.0, 0), (1.0, 25)]
    assert len(numbers) <= 3


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"x264-params": "bframes=3:b-adapt=0:b-pyramid=2:keyint=30"}),
        ("a.mkv", "libx264", {"x264-params": "bframes=8:b-adapt=0:b-pyramid=0:open-gop=1:keyint=20"}),
        ("a.ts", "libx264", {"x264-params": "bframes=3:b-adapt=0:keyint=30"}),
        ("a.avi", "libx264", {"x264-params": "bframes=2:b-adapt=0"}),
        ("a.mp4", "libx264", {"x264-params": "bframes=3:b-adapt=0:tff=1"}),
        ("a.mp4", "libx265", {"x265-params": "bframes=4:b-pyramid=1:log-level=none"}),
        ("a.avi", "mpeg4", {"bf": "2"}),
        ("a.mp4", "mpeg4", {"bf": "2", "g": "12"}),
    ],
)
@pytest.mark.parametrize("rate_hz", [1.0, 2.9])
def test_skipping_changes_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str, options: dict[str, str], rate_hz: float
) -> None:
    path = tmp_path / name
    encode_video(path, [draw_scene(k) for k in range(130)], codec=codec, options=options)
    skipping = list(sample_frames(path, rate_hz=rate_hz))
    monkeypatch.setattr(video, "_CODECS_THAT_SKIP", frozenset())
    complete = list(sample_frames(path, rate_hz=rate_hz))
    assert [t_s for t_s, _ in skipping] == [t_s for t_s, _ in complete]
    for (_, fast), (_, full) in zip(skipping, complete, strict=True):
        np.testing.assert_array_equal(fast, full)


def test_skipping_spares_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode_video(
        tmp_path / "a.mp4", [draw_scene(k) for k in range(100)], options={"x264-params": "bframes=3:b-adapt=0"}
    )
    n_decoded = []
    time_really = video._time_frames

    def time_counted(*arguments):  # type: ignore[no-untyped-def]
        n_decoded.append(0)
        for timed in time_really(*arguments):
            n_decoded[-1] += 1
            yield timed

    monkeypatch.setattr(video, "_time_frames", time_counted)
    list(sample_frames(tmp_path / "a.mp4"))
    monkeypatch.setattr(video, "_CODECS_THAT_SKIP", frozenset())
    list(sample_frames(tmp_path / "a.mp4"))
    assert n_decoded[0] < 0.7 * n_decoded[1]
    assert n_decoded[1] == 100


def test_more_threads_give_the_same(tmp_path: Path) -> None:
    encode_video(tmp_path / "a.mp4", [draw_scene(k) for k in range(60)], options={"bf": "3"})
    for (_, one), (_, two) in zip(
        sample_frames(tmp_path / "a.mp4"), sample_frames(tmp_path / "a.mp4", n_threads=2), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_only_the_window_is_read(tmp_path: Path, counted_files: list[CountingFile]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (96, 160, 3), dtype=np.uint8)
    pictures = [np.roll(noise, 7 * k, axis=1) for k in range(300)]
    path = tmp_path / "a.mkv"
    encode_video(path, pictures, rate_hz=25, options={"preset": "ultrafast", "g": "1"})
    assert len(list(sample_frames(path, max_duration_s=1.0))) == 1
    # the next second is read ahead, and FFmpeg looks at the end of the file for its index
    assert sum(file.n_bytes_read for file in counted_files) < 0.4 * path.stat().st_size


# --- upright, in true colours ----------------------------------------------------------------------------------------


def make_quadrants(height: int = 48, width: int = 80) -> np.ndarray:
    """Red, green / blue, white, read line by line."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (255, 0, 0)
    picture[: height // 2, width // 2 :] = (0, 255, 0)
    picture[height // 2 :, : width // 2] = (0, 0, 255)
    picture[height // 2 :, width // 2 :] = 255
    return picture


def name_quadrants(picture: np.ndarray) -> str:
    names = {(True, False, False): "R", (False, True, False): "G", (False, False, True): "B", (True,) * 3: "W"}
    height, width = picture.shape[:2]
    points = [
        (height // 4, width // 4),
        (height // 4, -width // 4),
        (-height // 4, width // 4),
        (-height // 4, -width // 4),
    ]
    return "".join(names[tuple(bool(level > 127) for level in picture[point])] for point in points)  # type: ignore[index]


@pytest.mark.parametrize(
    ("rotation", "expected", "swapped"),
    [
        ((0.0, False, False), "RGBW", False),
        ((90.0, False, False), "GWRB", True),  # counter-clockwise
        ((180.0, False, False), "WBGR", False),
        ((270.0, False, False), "BRWG", True),
        ((0.0, True, False), "GRWB", False),
        ((0.0, False, True), "BWRG", False),
        ((90.0, True, False), "WGBR", True),
        ((270.0, True, False), "RBGW", True),
    ],
)
def test_pictures_come_upright(
    tmp_path: Path, rotation: tuple[float, bool, bool], expected: str, swapped: bool
) -> None:
    encode_video(tmp_path / "a.mp4", [make_quadrants()] * 3, rotation=rotation)
    [(_, picture)] = sample_frames(tmp_path / "a.mp4")
    assert picture.shape == ((80, 48, 3) if swapped else (48, 80, 3))
    assert picture.flags.c_contiguous
    assert name_quadrants(picture) == expected


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("flips", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_orientation_follows_the_matrix_point_by_point(flips: tuple[int, int], transposed: bool) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (3, 5, 3), dtype=np.uint8)
    one = 1 << 16
    (a, d), (b, c) = ((0, 0), flips) if transposed else (flips, (0, 0))
    matrix = np.array([[a * one, b * one, 0], [c * one, d * one, 0], [0, 0, 1 << 30]], np.int32)
    points = {(a * x + c * y, b * x + d * y): picture[y, x] for y in range(3) for x in range(5)}
    left, top = min(x for x, _ in points), min(y for _, y in points)
    expected = np.zeros((5, 3, 3) if transposed else (3, 5, 3), np.uint8)
    for (x, y), colour in points.items():
        expected[y - top, x - left] = colour
    np.testing.assert_array_equal(orient_picture(picture, matrix), expected)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mp4", "libx264", "yuvj420p"),
        ("a.mp4", "libx264", "yuv420p10le"),
        ("a.mp4", "libx264", "yuv444p"),
        ("a.mp4", "libx265", "yuv420p12le"),
        ("a.mkv", "ffv1", "yuva420p"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.mov", "qtrle", "argb"),
        ("a.mov", "png", "rgb24"),
        ("a.mov", "prores_ks", "yuva444p10le"),
        ("a.gif", "gif", "rgb8"),
        ("a.mkv", "libx265", "gbrp"),
        ("a.avi", "mjpeg", "yuvj422p"),
    ],
)
def test_pixel_formats_come_as_rgb(tmp_path: Path, name: str, codec: str, pixel_format: str) -> None:
    encode_video(tmp_path / name, [make_quadrants()] * 3, codec=codec, pixel_format=pixel_format)
    [(_, picture)] = sample_frames(tmp_path / name)
    assert (picture.shape, picture.dtype) == ((48, 80, 3), np.uint8)
    assert name_quadrants(picture) == "RGBW"
    inner = np.array([picture[12, 20], picture[12, 60], picture[36, 20], picture[36, 60]], int)
    expected = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)])
    assert np.abs(inner - expected).max() <= 12


def test_palette_comes_as_rgb(tmp_path: Path) -> None:
    indices = np.zeros((48, 80), np.uint8)
    indices[:, 40:] = 1
    palette = np.zeros((256, 4), np.uint8)
    palette[0], palette[1] = (255, 255, 0, 0), (255, 0, 0, 255)  # ARGB: red, blue
    path = tmp_path / "a.mov"
    encode_video(path, [(indices, palette)], codec="png", pixel_format="pal8", picture_format="pal8")
    [(_, picture)] = sample_frames(path)
    assert picture[20, 10].tolist() == [255, 0, 0]
    assert picture[20, 70].tolist() == [0, 0, 255]


@pytest.mark.parametrize(("width", "height"), [(79, 47), (33, 50), (50, 33), (17, 17)])
def test_odd_sizes(tmp_path: Path, width: int, height: int) -> None:
    picture = np.full((height, width, 3), 200, np.uint8)
    encode_video(tmp_path / "a.mp4", [picture] * 3, pixel_format="yuv444p")
    encode_video(tmp_path / "a.mkv", [picture] * 3, codec="ffv1", pixel_format="yuv420p")
    for name in ("a.mp4", "a.mkv"):
        [(_, decoded)] = sample_frames(tmp_path / name)
        assert decoded.shape == (height, width, 3)
        assert np.abs(decoded.astype(int) - 200).max() <= 2  # to the last column and row


BT601, BT709, LIMITED, FULL = 5, 1, 1, 2


@pytest.mark.parametrize("colorspace", [BT601, BT709])
@pytest.mark.parametrize("color_range", [LIMITED, FULL])
def test_matrix_and_range_of_the_file_are_used(tmp_path: Path, colorspace: int, color_range: int) -> None:
    y, u, v = 120, 90, 180
    planes = np.concatenate([np.full(64 * 64, y), np.full(32 * 32, u), np.full(32 * 32, v)]).astype(np.uint8)
    path = tmp_path / "a.mkv"
    write_raw_yuv(path, planes.reshape(96, 64), colorspace, color_range)
    [(_, picture)] = sample_frames(path)
    red, blue = (0.299, 0.114) if colorspace == BT601 else (0.2126, 0.0722)
    luma = (y - 16) / 219 if color_range == LIMITED else y / 255
    pb, pr = ((c - 128) / (224 if color_range == LIMITED else 255) for c in (u, v))
    r, b = luma + 2 * (1 - red) * pr, luma + 2 * (1 - blue) * pb
    g = (luma - red * r - blue * b) / (1 - red - blue)
    expected = np.clip(np.array([r, g, b]) * 255, 0, 255)
    np.testing.assert_allclose(picture[32, 32], expected, atol=2)


def write_raw_yuv(path: Path, planes: np.ndarray, colorspace: int, color_range: int) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = colorspace, color_range
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.colorspace, frame.color_range = colorspace, color_range
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


# --- refused or damaged ----------------------------------------------------------------------------------------------


def test_sound_file_is_refused_also_with_a_cover(tmp_path: Path) -> None:
    encode_sound(tmp_path / "a.mp3", make_sine(1.0, 44_100), 44_100, "libmp3lame")
    for _ in range(2):
        with pytest.raises(MediaError, match=r"a\.mp3.*has no video") as caught:
            next(sample_frames(tmp_path / "a.mp3"))
        assert caught.value.reason == "no_video_stream"
        add_mp3_cover(tmp_path / "a.mp3", draw_number(1))


def test_truncated_video_gives_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    encode_video(path, [draw_scene(k) for k in range(150)])
    truncate(path, 0.5)
    numbers = [number for _, number in ((t, read_number(p)) for t, p in sample_frames(path))]
    assert 2 <= len(numbers) < 6
    assert numbers == [25 * k for k in range(len(numbers))]


def test_damaged_stretch_leaves_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    encode_video(path, [draw_scene(k) for k in range(150)], options={"g": "10"})
    overwrite(path, 0.4, 0.5)
    numbers = sample_numbers(path)
    assert numbers[:2] == [(0.0, 0), (1.0, 25)]
    assert numbers[-1] == (5.0, 125)


def test_container_without_one_good_packet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mov"
    encode_video(path, [draw_number(k) for k in range(30)], codec="png", pixel_format="rgb24")
    path.write_bytes(path.read_bytes().replace(b"IHDR", b"XXXX"))
    with pytest.raises(MediaError, match="can be decoded") as caught:
        list(sample_frames(path))
    assert caught.value.reason == "undecodable_video"


@pytest.mark.parametrize(
    "arguments", [{"rate_hz": 0.0}, {"rate_hz": float("nan")}, {"max_duration_s": 0.0}, {"max_frames": 0}]
)
def test_impossible_arguments_are_refused(tmp_path: Path, arguments: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match="must be"):
        sample_numbers(tmp_path / "a.mp4", **arguments)


def test_one_bad_consumer_leaves_no_file_open(tmp_path: Path, counted_files: list[CountingFile]) -> None:
    encode_video(tmp_path / "a.mp4", [draw_number(k) for k in range(60)])
    frames = sample_frames(tmp_path / "a.mp4")
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    assert [file.closed for file in counted_files] == [True]
