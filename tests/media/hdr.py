"""A second way to HDR: SDR pictures coded in HLG and PQ by formula, and films with colour tags."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

BT709, BT2020, DISPLAY_P3 = 1, 9, 12
BT2020_SDR, PQ, HLG = 14, 16, 18
LIMITED, FULL = 1, 2

# Linear BT.709 to BT.2020. Source: Recommendation ITU-R BT.2087, table 3.
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
TO_P3 = np.array([[0.8225, 0.1774, 0.0], [0.0332, 0.9669, 0.0], [0.0171, 0.0724, 0.9108]])


def code_hdr(picture: np.ndarray, transfer: int, white: float, gain: float = 1.0) -> np.ndarray:
    """(height, width, 3) float64 R'G'B' in [0, 1] of an SDR picture whose white gets `white` cd/m2 in HDR."""
    light = gain * white * (picture / 255) ** 2.4 @ TO_BT2020.T
    if transfer == PQ:
        power = (light / 10_000) ** 0.1593017578125
        return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375  # type: ignore[no-any-return]
    luminance = np.maximum(light @ np.array([0.2627, 0.6780, 0.0593]), 1e-9)[..., None]
    scene = light / 1000 * (luminance / 1000) ** (1 / 1.2 - 1)
    logarithm = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), logarithm)


def to_frame(signal: np.ndarray, pixel_format: str, color_range: int = LIMITED) -> av.VideoFrame:
    """A frame of R'G'B' in [0, 1], by the matrix of BT.2020 where the format is YUV."""
    if pixel_format.startswith("gbr"):
        most = 2 ** int(pixel_format.removeprefix("gbrp").removesuffix("le")) - 1
        return av.VideoFrame.from_ndarray(np.round(signal * most).astype(np.uint16), format=pixel_format)
    luma = signal @ np.array([0.2627, 0.6780, 0.0593])
    chroma = [(signal[..., 2] - luma) / 1.8814, (signal[..., 0] - luma) / 1.4746]
    scale, offset, scale_c = (219 * 256, 16 * 256, 224 * 256) if color_range == LIMITED else (65_535, 0, 65_535)
    planes = [luma * scale + offset, *(c * scale_c + 32_768 for c in chroma)]
    frame = av.VideoFrame.from_ndarray(np.stack(planes, axis=2).round().astype(np.uint16), format="yuv444p16le")
    frame.color_range = color_range
    return frame.reformat(format=pixel_format, interpolation="AREA")


def write_tagged(
    path: Path,
    frames: list[av.VideoFrame],
    *,
    codec: str,
    transfer: int = 2,
    primaries: int = 2,
    matrix: int = 2,
    color_range: int = LIMITED,
    options: dict[str, str] | None = None,
) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1, options=options or {})
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, frames[0].format.name
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace = transfer, primaries, matrix
        context.color_range = color_range
        for k, frame in enumerate(frames * 4):  # FFmpeg (8.1) often fails to write a single frame of HEVC into MP4
            frame.color_trc, frame.color_primaries, frame.colorspace = transfer, primaries, matrix
            frame.color_range, frame.pts, frame.time_base = color_range, k, Fraction(1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
