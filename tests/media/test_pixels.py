"""Pictures as a player shows them, each against the plain film of the same content."""

from __future__ import annotations

import gc
import io
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from hdr import (
    BT709,
    BT2020,
    BT2020_SDR,
    DISPLAY_P3,
    FULL,
    HLG,
    LIMITED,
    PQ,
    TO_BT2020,
    TO_P3,
    code_hdr,
    to_frame,
    write_tagged,
)
from hostile import add_clean_aperture, add_pixel_crop, draw_number, encode_video, read_number
from PIL import Image

from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.media.container import MAX_FRAME_PX, MAX_SIDE_PX
from vmnet_pipeline.media.pixels import FrameConverter, square_size
from vmnet_pipeline.media.thumbnails import make_picture
from vmnet_pipeline.media.tone_mapping import ToneMapper, map_luminance, read_peak
from vmnet_pipeline.media.video import sample_frames

if TYPE_CHECKING:
    from pathlib import Path


def draw_colours(height: int = 96, width: int = 160) -> np.ndarray:
    """Soft colours of every hue and level, a white and a black field."""
    y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    waves = [0.5 + 0.45 * np.sin(2 * np.pi * (x * (1 + k) + y * (2 - k) + k / 3)) for k in range(3)]
    picture = np.round(255 * np.stack(waves, axis=2)).astype(np.uint8)
    picture[: height // 4, : width // 4] = 255
    picture[-height // 4 :, -width // 4 :] = 0
    return picture


def first_picture(path: Path) -> np.ndarray:
    return next(iter(sample_frames(path)))[1]


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


# --- HDR --------------------------------------------------------------------------------------------------------------

X265 = {"x265-params": "log-level=none:lossless=1"}
METADATA = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1):max-cll=1000,400"


@pytest.mark.parametrize("white", [100, 203])
@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "color_range", "options"),
    [
        ("a.mp4", "libx265", "yuv420p10le", LIMITED, X265),
        ("a.mkv", "libx265", "yuv444p12le", LIMITED, {"x265-params": f"log-level=none:lossless=1:{METADATA}"}),
        ("a.mp4", "libx265", "gbrp10le", FULL, X265),
        ("a.mkv", "ffv1", "gbrp12le", FULL, {}),
        ("a.mov", "libx265", "yuv420p10le", FULL, X265),
        ("a.mp4", "libsvtav1", "yuv420p10le", LIMITED, {"crf": "4", "preset": "8"}),
    ],
)
def test_hdr_film_looks_like_the_plain_one(
    tmp_path: Path,
    name: str,
    codec: str,
    pixel_format: str,
    color_range: int,
    options: dict[str, str],
    transfer: int,
    white: float,
) -> None:
    plain = draw_colours()
    frame = to_frame(code_hdr(plain, transfer, white), pixel_format, color_range)
    tags = {"primaries": BT2020, "matrix": 0 if pixel_format.startswith("gbr") else BT2020, "color_range": color_range}
    write_tagged(tmp_path / name, [frame], codec=codec, transfer=transfer, options=options, **tags)
    picture = first_picture(tmp_path / name)
    assert picture.dtype == np.uint8
    assert mean_difference(picture, plain) < 4


def test_tags_that_are_missing_are_those_of_bt2100(tmp_path: Path) -> None:
    plain = draw_colours()
    write_tagged(tmp_path / "a.mkv", [to_frame(code_hdr(plain, HLG, 203), "yuv420p10le")], codec="ffv1", transfer=HLG)
    assert mean_difference(first_picture(tmp_path / "a.mkv"), plain) < 4


def test_ten_bits_alone_are_no_hdr(tmp_path: Path) -> None:
    frame = to_frame(draw_colours() / 255, "yuv420p10le")
    write_tagged(tmp_path / "a.mp4", [frame], codec="libx265", options=X265)
    with av.open(str(tmp_path / "a.mp4")) as container:
        expected = next(container.decode(video=0)).reformat(format="rgb24").to_ndarray()
    np.testing.assert_array_equal(first_picture(tmp_path / "a.mp4"), expected)


@pytest.mark.parametrize("transfer", [BT709, PQ])
@pytest.mark.parametrize("matrix", [3, 8, 10, 14, 17])
def test_a_matrix_that_is_not_known_costs_no_film(tmp_path: Path, matrix: int, transfer: int) -> None:
    frame = to_frame(code_hdr(draw_colours(), PQ, 203), "yuv420p10le")
    write_tagged(tmp_path / "a.mkv", [frame], codec="ffv1", transfer=transfer, primaries=BT2020, matrix=matrix)
    assert first_picture(tmp_path / "a.mkv").std() > 20


@pytest.mark.parametrize(("primaries", "matrix"), [(BT2020, TO_BT2020), (DISPLAY_P3, TO_P3)])
def test_wide_gamut_without_hdr(tmp_path: Path, primaries: int, matrix: np.ndarray) -> None:
    plain = draw_colours()
    signal = np.clip((plain / 255) ** 2.4 @ matrix.T, 0, 1) ** (1 / 2.4)
    transfer = BT2020_SDR if primaries == BT2020 else BT709
    tags = {"transfer": transfer, "primaries": primaries, "matrix": 0, "color_range": FULL}
    write_tagged(tmp_path / "a.mkv", [to_frame(signal, "gbrp10le")], codec="ffv1", **tags)
    assert mean_difference(first_picture(tmp_path / "a.mkv"), plain) < 1


def test_highlights_are_compressed_in_order() -> None:
    """A grey ramp up to 4000 cd/m2: dark levels keep their place, bright ones are told apart up to the top."""
    ramp = np.repeat(np.linspace(0, 1, 256)[None, :, None], 3, axis=2) ** 3 * 4000
    power = (ramp / 10_000) ** 0.1593017578125
    signal = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    codes = np.round(np.repeat(signal, 64, axis=0) * 65_535).astype(np.uint16)
    mapped = ToneMapper().convert(codes, PQ, BT2020, 10_000)[0, :, 0].astype(int)
    assert (np.diff(mapped) >= 0).all()
    assert len(set(mapped[ramp[0, :, 0] > 400])) > 15
    dark = ramp[0, :, 0] < 40
    np.testing.assert_allclose(mapped[dark], 255 * (ramp[0, dark, 0] / 203) ** (1 / 2.4), atol=2)
    declared = ToneMapper().convert(codes, PQ, BT2020, 1000)[0, :, 0].astype(int)
    assert (declared >= mapped).all()
    assert (declared[ramp[0, :, 0] > 1010] >= 254).all()  # beyond what the film says it has


def test_eetf_follows_its_report_point_by_point() -> None:
    def to_pq(light: float) -> float:
        power = (light / 10_000) ** 0.1593017578125
        return float(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)

    peak, target = 1000.0, 203.0
    limit = to_pq(target) / to_pq(peak)
    knee = 1.5 * limit - 0.5
    for light in (0.01, 5.0, 80.0, 120.0, 203.0, 600.0, 999.0):
        level = to_pq(light) / to_pq(peak)
        if level >= knee:
            t = (level - knee) / (1 - knee)
            level = (
                (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * limit
            )
        assert to_pq(float(map_luminance(np.array(light), peak, target))) / to_pq(peak) == pytest.approx(
            level, abs=1e-6
        )
    assert float(map_luminance(np.array(5000.0), peak, target)) == pytest.approx(target, rel=1e-4)


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("brightest", [195, 215, 235, 255])
def test_white_of_a_converter_is_known_in_a_film_that_does_not_reach_it(brightest: int, transfer: int) -> None:
    plain = np.minimum(draw_colours(), brightest)
    codes = np.round(code_hdr(plain, transfer, 100) * 65_535).astype(np.uint16)
    assert mean_difference(ToneMapper().convert(codes, transfer, BT2020, 10_000), plain) < 2


def test_one_film_keeps_one_white() -> None:
    """A bright frame decides for the ones after it, also for one that is just as bright as SDR."""
    bright, dark = (
        np.round(code_hdr(draw_colours(), PQ, 203, gain) * 65_535).astype(np.uint16) for gain in (1, 100 / 203)
    )
    mapper = ToneMapper()
    mapper.convert(bright, PQ, BT2020, 10_000)
    expected = 255 * (100 / 203 * (draw_colours() / 255) ** 2.4) ** (1 / 2.4)
    assert mean_difference(mapper.convert(dark, PQ, BT2020, 10_000), expected) < 1


@pytest.mark.parametrize(
    ("mastering", "content", "peak"),
    [
        (None, None, 10_000),
        ((1000 * 10_000, 10_000, 1), (0, 0), 1000),
        ((1000 * 10_000, 10_000, 1), (600, 100), 600),
        ((1000, 0, 1), (3, 0), 10_000),  # denominator 0, three cd/m2
        ((-5, 1, 1), (4_000_000_000, 0), 10_000),
        ((1000, 1, 0), None, 10_000),  # says that it holds no luminance
    ],
)
def test_declared_peak(mastering: tuple[int, int, int] | None, content: tuple[int, int] | None, peak: float) -> None:
    numbers = np.zeros(22, np.int32)
    if mastering is not None:
        numbers[18:20], numbers[21] = mastering[:2], mastering[2]
    light = None if content is None else np.array(content, np.uint32).tobytes()
    assert read_peak(None if mastering is None else numbers.tobytes(), light) == peak
    assert read_peak(b"short", b"") == 10_000


def test_metadata_of_a_film_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = []

    def convert(self: Any, picture: np.ndarray, transfer: int, primaries: int, declared_peak: float) -> np.ndarray:
        peaks.append((transfer, primaries, declared_peak))
        return np.zeros(picture.shape, np.uint8)

    monkeypatch.setattr(ToneMapper, "convert", convert)
    frame = to_frame(code_hdr(draw_colours(), PQ, 203), "yuv420p10le")
    options = {"x265-params": f"log-level=none:{METADATA.replace('1000,400', '777,400')}"}
    write_tagged(tmp_path / "a.mp4", [frame], codec="libx265", transfer=PQ, primaries=BT2020, options=options)
    first_picture(tmp_path / "a.mp4")
    assert peaks == [(PQ, BT2020, 777)]


# --- pixels that are not square ---------------------------------------------------------------------------------------


def draw_disc(height: int, width: int, shown_width: float, shown_height: float) -> np.ndarray:
    """A white disc, as stored in pixels that are not square."""
    y, x = np.mgrid[:height, :width] + 0.5
    inside = np.hypot((x / width - 0.5) * shown_width, (y / height - 0.5) * shown_height) < 0.3 * min(
        shown_width, shown_height
    )
    return np.repeat(np.uint8(255) * inside[..., None], 3, axis=2).astype(np.uint8)


def measure_disc(picture: np.ndarray) -> tuple[int, int]:
    white = picture[..., 1] > 127
    return int(white.any(axis=0).sum()), int(white.any(axis=1).sum())


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.avi", "mpeg4")]
)
@pytest.mark.parametrize(("aspect", "size"), [("64/45", (256, 144)), ("8/15", (180, 270)), ("2/1", (360, 144))])
def test_pixels_come_out_square(tmp_path: Path, name: str, codec: str, aspect: str, size: tuple[int, int]) -> None:
    picture = draw_disc(144, 180, *size)
    encode_video(tmp_path / name, [picture] * 3, codec=codec, pixel_aspect=Fraction(aspect), options={"b": "4M"})
    decoded = first_picture(tmp_path / name)
    assert (decoded.shape[1], decoded.shape[0]) == size
    across, down = measure_disc(decoded)
    assert across == pytest.approx(down, abs=3)


@pytest.mark.parametrize("aspect", ["16/15", "64/45", "8/9"])
def test_stretching_keeps_the_colours(tmp_path: Path, aspect: str) -> None:
    """The same pixels as in a film of square ones, only resized."""
    blocks = np.random.default_rng(0).integers(0, 256, (36, 45, 3)).astype(np.uint8)
    picture = np.kron(blocks, np.ones((4, 4, 1))).astype(np.uint8)
    encode_video(tmp_path / "plain.mkv", [picture] * 3, options={"qp": "0"})
    encode_video(tmp_path / "a.mkv", [picture] * 3, options={"qp": "0"}, pixel_aspect=Fraction(aspect))
    stretched = first_picture(tmp_path / "a.mkv")
    plain = Image.fromarray(first_picture(tmp_path / "plain.mkv"))
    expected = plain.resize(stretched.shape[1::-1], Image.Resampling.BICUBIC)
    assert mean_difference(stretched, np.asarray(expected)) < 3


@pytest.mark.parametrize(("aspect", "expected"), [("1/1000000", (144, 180)), ("9/1", (144, 180)), ("2", (144, 360))])
def test_hostile_pixel_aspects_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aspect: str, expected: tuple[int, int]
) -> None:
    """Whatever a file or a decoder says."""
    encode_video(tmp_path / "a.mp4", [draw_number(3, 144, 180)] * 3)

    class Stream:
        def __init__(self, stream: Any) -> None:
            self.codec_context, self.sample_aspect_ratio = stream.codec_context, Fraction(aspect)

    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        converter = FrameConverter(Stream(stream))  # type: ignore[arg-type]
        assert converter.convert(next(container.decode(stream)), "a.mp4").shape[:2] == expected


def test_a_pixel_aspect_that_changes_within_the_film(tmp_path: Path) -> None:
    """A broadcast that goes from 4:3 to 16:9."""
    with av.open(str(tmp_path / "a.ts"), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 180, 144, "yuv420p"
        for part, aspect in enumerate((Fraction(16, 15), Fraction(64, 45))):
            encoder = av.CodecContext.create("mpeg2video", "w")
            encoder.width, encoder.height, encoder.pix_fmt = 180, 144, "yuv420p"
            encoder.time_base, encoder.framerate = Fraction(1, 25), 25
            encoder.sample_aspect_ratio = aspect
            for k in range(50):
                frame = av.VideoFrame.from_ndarray(draw_number(k, 144, 180))
                frame.pts, frame.time_base = k + 50 * part, Fraction(1, 25)
                for packet in encoder.encode(frame):
                    packet.stream = stream
                    container.mux(packet)
            for packet in encoder.encode(None):
                packet.stream = stream
                container.mux(packet)
    sizes = [picture.shape[:2] for _, picture in sample_frames(tmp_path / "a.ts")]
    assert sizes == [(144, 192), (144, 192), (144, 256), (144, 256)]


def test_no_pixel_aspect_goes_beyond_the_limits() -> None:
    for width, height in ((MAX_SIDE_PX, 100), (100, MAX_SIDE_PX), (10_000, 10_000), (40, 30)):
        for aspect in (Fraction(8), Fraction(1, 8), Fraction(64, 45), Fraction(1)):
            shown = square_size(width, height, aspect)
            assert 1 <= min(shown) <= max(shown) <= MAX_SIDE_PX
            assert shown[0] * shown[1] <= MAX_FRAME_PX
            assert shown[0] / shown[1] == pytest.approx(width * aspect / height, rel=0.1)
    assert square_size(640, 360, Fraction(405, 404)) == (640, 360)  # a rounding, no reason to blur


def test_turned_after_it_is_square(tmp_path: Path) -> None:
    disc = draw_disc(144, 180, 256, 144)
    encode_video(tmp_path / "a.mp4", [disc] * 3, pixel_aspect=Fraction(64, 45), rotation=(90.0, False, False))
    assert first_picture(tmp_path / "a.mp4").shape[:2] == (256, 144)


# --- interlaced -------------------------------------------------------------------------------------------------------


def draw_moving(moment: int, height: int = 96, width: int = 160) -> np.ndarray:
    """A disc that moves eight pixels from field to field, over a texture that stands still."""
    texture = np.random.default_rng(3).integers(60, 120, (height // 8, width // 8))
    picture = np.repeat(np.kron(texture, np.ones((8, 8)))[..., None], 3, axis=2).astype(np.uint8)
    y, x = np.mgrid[:height, :width]
    picture[np.hypot(x - (20 + 8 * (moment % 16)), y - height // 2) < 16] = 250
    return picture


def weave(k: int, first: int) -> np.ndarray:
    """Frame k of interlaced film, whose first field is the upper one (0) or the lower one (1)."""
    picture = draw_moving(2 * k)
    picture[1 - first :: 2] = draw_moving(2 * k + 1)[1 - first :: 2]
    return picture


def measure_combs(picture: np.ndarray) -> float:
    """How much neighbouring lines differ more than lines two apart."""
    luma = picture[..., 1].astype(int)
    return float(np.maximum(np.abs(luma[1:-1] - luma[2:]) - np.abs(luma[:-2] - luma[2:]), 0).mean())


FIELDS = ("tff", "bff")


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"crf": "8", "bf": "2"}),
        ("a.ts", "libx264", {"crf": "8", "g": "10"}),
        ("a.mpg", "mpeg2video", {"b": "8M"}),
        ("a.mov", "prores_ks", {}),
    ],
)
def test_interlaced_film_shows_its_first_field(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], first: int
) -> None:
    pixel_format = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    film = [weave(k, first) for k in range(51)]
    encode_video(tmp_path / name, film, codec=codec, fields=FIELDS[first], options=options, pixel_format=pixel_format)
    check_fields(tmp_path / name, first)


@pytest.mark.parametrize("first", [0, 1])
def test_field_order_of_the_container_counts_where_frames_have_none(tmp_path: Path, first: int) -> None:
    film = [weave(k, first) for k in range(51)]
    options = {"field_order": ("tt", "bb")[first]}
    encode_video(tmp_path / "a.mov", film, codec="png", options=options, pixel_format="rgb24")
    check_fields(tmp_path / "a.mov", first)


def check_fields(path: Path, first: int) -> None:
    """At the beginning, amid the film, and its last frame."""
    pictures = [picture for _, picture in sample_frames(path)]
    assert len(pictures) == 3
    for k, picture in zip((0, 25, 50), pictures, strict=True):
        assert 0.5 * measure_combs(weave(k, first)) > max(1, measure_combs(picture))
        assert mean_difference(picture, draw_moving(2 * k)) < 0.6 * mean_difference(picture, draw_moving(2 * k + 1))


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(("name", "codec", "options"), [("a.mkv", "libx264", {"crf": "8"}), ("a.mov", "png", {})])
def test_the_field_that_is_on_the_screen_is_shown(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], first: int
) -> None:
    """Twenty fields a second, of which every third is asked for."""
    film = [weave(k, first) for k in range(12)]
    if codec == "png":
        encode_video(tmp_path / name, film, codec=codec, rate_hz=10, options={"field_order": ("tt", "bb")[first]},
                     pixel_format="rgb24")  # fmt: skip
    else:
        encode_video(tmp_path / name, film, codec=codec, rate_hz=10, options=options, fields=FIELDS[first])
    pictures = [picture for _, picture in sample_frames(tmp_path / name, rate_hz=20 / 3)]
    assert len(pictures) == 8
    for k, picture in enumerate(pictures):
        distances = [mean_difference(picture, draw_moving(moment)) for moment in range(16)]
        assert int(np.argmin(distances)) == 3 * k % 16


def test_a_single_interlaced_frame(tmp_path: Path) -> None:
    encode_video(tmp_path / "a.mp4", [weave(2, 0)], options={"crf": "8"}, fields="tff")
    assert measure_combs(first_picture(tmp_path / "a.mp4")) < 0.5 * measure_combs(weave(2, 0))


def test_hevc_in_fields(tmp_path: Path) -> None:
    """FFmpeg gives each field as a frame of half the height."""
    fields = [np.ascontiguousarray(draw_moving(k)[k % 2 :: 2]) for k in range(20)]
    options = {"x265-params": "interlace=tff:log-level=none:crf=8"}
    encode_video(tmp_path / "a.mkv", fields, codec="libx265", rate_hz=10, options=options)
    pictures = [picture for _, picture in sample_frames(tmp_path / "a.mkv")]
    assert pictures[1].shape == (96, 160, 3)
    assert mean_difference(pictures[1], draw_moving(10)) < 6


def test_progressive_film_keeps_every_pixel(tmp_path: Path) -> None:
    encode_video(tmp_path / "a.mp4", [draw_moving(k) for k in range(30)], options={"bf": "2"})
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = list(container.decode(video=0))
    for (_, picture), frame in zip(sample_frames(tmp_path / "a.mp4"), frames[::25], strict=True):
        np.testing.assert_array_equal(picture, frame.reformat(format="rgb24", threads=1).to_ndarray())


# --- cropped by the container -----------------------------------------------------------------------------------------


def draw_framed(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """A number within black bars."""
    inner = draw_number(341, 80 - top - bottom, 160 - left - right) // 2 + 60
    return np.pad(inner, ((top, bottom), (left, right), (0, 0)))


@pytest.mark.parametrize("edges", [(0, 12, 0, 12), (10, 0, 30, 0), (3, 5, 7, 9)])
@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.mp4", "a.mov"])
def test_what_the_container_crops_is_left_out(tmp_path: Path, name: str, edges: tuple[int, int, int, int]) -> None:
    codec = "libvpx-vp9" if name == "a.webm" else "libx264"
    encode_video(tmp_path / name, [draw_framed(*edges)] * 3, codec=codec, options={"crf": "4"})
    whole = first_picture(tmp_path / name)
    (add_pixel_crop if name in ("a.mkv", "a.webm") else add_clean_aperture)(tmp_path / name, *edges)
    left, top, right, bottom = edges
    picture = first_picture(tmp_path / name)
    assert picture.shape == (80 - top - bottom, 160 - left - right, 3)
    assert mean_difference(picture, whole[top : 80 - bottom, left : 160 - right]) < 3
    assert picture.min() > 30


@pytest.mark.parametrize("edges", [(100, 0, 100, 0), (0, 0, 0, 80), (-20, 0, 0, 0), (2**30, 0, 0, 0)])
def test_a_crop_that_leaves_nothing_is_ignored(tmp_path: Path, edges: tuple[int, int, int, int]) -> None:
    encode_video(tmp_path / "a.mp4", [draw_number(5, 80, 160)] * 3)
    add_clean_aperture(tmp_path / "a.mp4", *edges)
    assert first_picture(tmp_path / "a.mp4").shape == (80, 160, 3)
    if min(edges) >= 0:
        encode_video(tmp_path / "a.mkv", [draw_number(5, 80, 160)] * 3)
        add_pixel_crop(tmp_path / "a.mkv", *edges)
        with pytest.raises(MediaError, match="not a media file"):  # FFmpeg refuses it
            first_picture(tmp_path / "a.mkv")


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_damaged_headers_end_in_a_picture_or_a_reason(tmp_path: Path, name: str) -> None:
    path, rng = tmp_path / name, np.random.default_rng(1)
    encode_video(path, [draw_number(5, 80, 160)] * 3)
    (add_pixel_crop if name == "a.mkv" else add_clean_aperture)(path, 2, 2, 2, 2)
    content = path.read_bytes()
    for _ in range(60):
        damaged = bytearray(content)
        for at in rng.integers(0, len(content), 12):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert first_picture(path).size
        except MediaError as error:
            assert error.reason


# --- everywhere -------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_no_frame_stays_behind(tmp_path: Path) -> None:
    """Nothing waits for the garbage collector, neither HDR metadata nor neighbours of interlaced frames."""
    frame = to_frame(code_hdr(draw_colours(), PQ, 203), "yuv420p10le")
    options = {"x265-params": f"log-level=none:{METADATA}"}
    write_tagged(tmp_path / "a.mkv", [frame], codec="libx265", transfer=PQ, primaries=BT2020, options=options)
    encode_video(tmp_path / "b.mkv", [weave(k, 0) for k in range(80)], fields="tff")
    del frame
    gc.collect()
    gc.disable()
    before = list_frames()
    try:
        assert len(list(sample_frames(tmp_path / "a.mkv"))) == len(list(sample_frames(tmp_path / "b.mkv"))) == 4
        assert set(map(id, list_frames())) == set(map(id, before))  # which are held here: no address is used again
    finally:
        gc.enable()


def list_frames() -> list[av.VideoFrame]:
    return [thing for thing in gc.get_objects() if issubclass(type(thing), av.VideoFrame) and thing.width > 1]


def test_thumbnails_show_the_same(tmp_path: Path) -> None:
    plain = draw_colours()
    write_tagged(tmp_path / "a.mkv", [to_frame(code_hdr(plain, PQ, 203), "gbrp10le")], codec="ffv1", transfer=PQ,
                 primaries=BT2020, matrix=0, color_range=FULL)  # fmt: skip
    thumbnail = Image.open(io.BytesIO(make_picture(tmp_path / "a.mkv", max_side_px=160)))
    assert mean_difference(np.asarray(thumbnail), plain) < 8
    encode_video(tmp_path / "b.mp4", [draw_disc(144, 180, 256, 144)] * 3, pixel_aspect=Fraction(64, 45))
    assert Image.open(io.BytesIO(make_picture(tmp_path / "b.mp4", max_side_px=128))).size == (128, 72)


def test_frames_are_still_chosen_by_time(tmp_path: Path) -> None:
    pictures = [draw_number(k) for k in range(80)]
    encode_video(tmp_path / "a.mp4", pictures, pixel_aspect=Fraction(4, 3), fields="tff")
    assert [read_number(picture) for _, picture in sample_frames(tmp_path / "a.mp4")] == [0, 25, 50, 75]
