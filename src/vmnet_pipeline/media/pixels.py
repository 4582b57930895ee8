"""Convert decoded frames to images as a player shows them: deinterlaced, upright, square pixels, SDR."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.media.container import MAX_FRAME_PX, MAX_SIDE_PX
from vmnet_pipeline.media.filters import FieldMerger, run_filters
from vmnet_pipeline.media.tone_mapping import BT2020, HLG, PQ, UNSPECIFIED, ToneMapper, needs_mapping, read_peak

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

    from vmnet_pipeline.media.cropping import Crop
    from vmnet_pipeline.media.filters import Step

PICTURE_RECIPE = "cropped, bwdif by fields, square pixels, HDR by BT.2390 to BT.709"
"""How frames are converted; part of the fingerprint of every backend that uses frames."""

# Real pixels are at most three times as wide as high (half-width recordings of wide films).
_MAX_PIXEL_ASPECT = 8
# Less than this is rounding of sizes, and not worth blurring an image.
_LEAST_STRETCH = Fraction(1, 100)
# Matrices that FFmpeg's scaler knows: RGB, BT.709, unspecified, FCC, BT.470BG, SMPTE 170M, SMPTE 240M, BT.2020.
_KNOWN_MATRICES = frozenset({0, 1, 2, 4, 5, 6, 7, 9})
_BT601 = 5
_FULL_RANGE = 2
# FFmpeg's scaler makes this of white in limited range, 0.4 % too little, which is 4 % of the light of PQ.
_LIMITED_WHITE = np.uint16(65_283)
_LIMITED_STEP = np.uint16(259)  # what is added is 252 of 65,283


class FrameConverter:
    """Converts decoded frames of one stream to RGB; keeps the last result for a repeated frame."""

    def __init__(self, stream: VideoStream, crop: Crop | None = None) -> None:
        """Prepare for a stream.

        Args:
            stream: Whose frames come; not yet decoded.
            crop: What its container leaves out at the edges of every frame.
        """
        from av.video.reformatter import VideoReformatter

        self._stream, self._crop = stream, crop
        self._fields, self._mapper = FieldMerger(stream), ToneMapper()
        self._reformatter: VideoReformatter = VideoReformatter()
        self._source: VideoFrame | None = None
        self._picture: np.ndarray = np.empty((0, 0, 3), np.uint8)
        self._angle: int | None = None
        self._matrix: np.ndarray | None = None
        self._peak: float | None = None
        self._first_aspect: Fraction | None = None

    def watch(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        """Pass on frames from the decoder; converting an interlaced one needs its neighbours."""
        return self._fields.watch(frames)

    def convert(self, frame: VideoFrame, path: str | os.PathLike[str], *, is_late: bool = False) -> np.ndarray:
        """(height, width, 3) uint8 RGB of `frame`, of an interlaced one at the moment of its second field if `is_late`.

        Raises:
            MediaError: `frame_too_large`, or `undecodable_video` for a pixel format that cannot be converted.
        """
        import av

        if frame is not self._source:
            check_frame_size(frame.width, frame.height, path)
            try:
                picture = self._develop(frame, is_late)
            except (av.error.FFmpegError, ValueError) as error:
                pixels = f"pixels of format {frame.format.name}"
                message = f"{path}: {pixels} cannot be converted ({error}); convert the file"
                raise MediaError("undecodable_video", message) from error
            self._picture = np.ascontiguousarray(orient_picture(picture, self._find_matrix(frame)))
            self._source = frame
        return self._picture

    def _develop(self, frame: VideoFrame, is_late: bool) -> np.ndarray:
        """Convert all but the orientation."""
        whole = self._run_filters(frame, is_late)
        is_mapped = needs_mapping(frame.color_trc, frame.color_primaries)
        rgb = self._reformatter.reformat(
            whole, format="rgb48le" if is_mapped else "rgb24", src_colorspace=_choose_matrix(frame), threads=1
        )
        picture = rgb.to_ndarray()
        if is_mapped:
            if not (whole.format.is_rgb or frame.color_range == _FULL_RANGE):
                np.minimum(picture, _LIMITED_WHITE, out=picture)
                picture += picture // _LIMITED_STEP
            picture = self._mapper.convert(picture, frame.color_trc, frame.color_primaries, self._find_peak(frame))
        return _stretch(picture, *square_size(whole.width, whole.height, self._find_aspect()))

    def _run_filters(self, frame: VideoFrame, is_late: bool) -> VideoFrame:
        """Deinterlace and crop, if needed."""
        import av

        frames: list[VideoFrame] = [frame]
        steps: list[Step] = []
        index = 0
        if self._fields.is_interlaced(frame):
            frames, steps, index = self._fields.choose_steps(frame, is_late=is_late)
        if self._crop is not None:
            left, top, right, bottom = self._crop
            size = {"w": f"iw-{left + right}", "h": f"ih-{top + bottom}", "x": str(left), "y": str(top)}
            steps = [*steps, ("crop", {**size, "exact": "1"})]
        try:
            return run_filters(frames, steps, index) if steps else frame
        except av.error.FFmpegError:  # a pixel format that no filter takes, or an empty crop: unchanged
            return frame

    def _find_aspect(self) -> Fraction:
        """Width of a pixel by its height: that of the container, until that of the video itself changes."""
        coded = self._stream.codec_context.sample_aspect_ratio or Fraction(1)
        if self._first_aspect is None:
            self._first_aspect = coded
        aspect = self._stream.sample_aspect_ratio if coded == self._first_aspect else coded
        return aspect if aspect and 1 <= max(aspect, 1 / aspect) <= _MAX_PIXEL_ASPECT else Fraction(1)

    def _find_peak(self, frame: VideoFrame) -> float:
        """Read once: the first frame has it for the whole film."""
        if self._peak is None:
            names = ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")
            self._peak = read_peak(*(read_side_data(frame, name) for name in names))
        return self._peak

    def _find_matrix(self, frame: VideoFrame) -> np.ndarray | None:
        """Read again only when the angle changes."""
        if frame.rotation != self._angle:
            self._angle, self._matrix = frame.rotation, read_display_matrix(frame)
        return self._matrix


def check_frame_size(width: int, height: int, path: str | os.PathLike[str]) -> None:
    """Refuse frames that would take too much memory.

    Raises:
        MediaError: `frame_too_large`, also for pictures without any pixel.
    """
    if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX and width * height <= MAX_FRAME_PX):
        limit = f"{MAX_SIDE_PX} px a side and {MAX_FRAME_PX // 10**6} megapixels"
        raise MediaError("frame_too_large", f"{path}: {width}x{height} px, accepted are 1 px to {limit}; scale it")


def _stretch(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize a (h, w, 3) uint8 image. FFmpeg's scaler would lose colours if it converted them in the same step."""
    from av import VideoFrame

    if picture.shape[:2] == (height, width):
        return picture
    frame = VideoFrame.from_ndarray(picture, format="rgb24")
    scaled: np.ndarray = frame.reformat(width=width, height=height, interpolation="BICUBIC", threads=1).to_ndarray()
    return scaled


def square_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Size in square pixels of an image whose pixels are `aspect` times as wide as high.

    The side that is too short grows; where that goes beyond the limits of `check_frame_size`, the other one shrinks.
    """
    wide, high = max(aspect, Fraction(1)), max(1 / aspect, Fraction(1))
    if max(wide, high) < 1 + _LEAST_STRETCH:
        return width, height
    grown = round(width * wide), round(height * high)
    if max(grown) <= MAX_SIDE_PX and grown[0] * grown[1] <= MAX_FRAME_PX:
        return grown
    return max(1, round(width / high)), max(1, round(height / wide))


def _choose_matrix(frame: VideoFrame) -> int | None:
    """The YUV matrix to use instead of the frame's own; None to use that.

    HDR without one has that of BT.2020. One that FFmpeg's scaler does not know (constant luminance, YCgCo, ICtCp,
    reserved numbers) is taken for the most likely of those it knows.
    """
    is_hdr = frame.color_trc in (PQ, HLG)
    if frame.colorspace not in _KNOWN_MATRICES:
        return BT2020 if is_hdr or frame.color_primaries == BT2020 else _BT601
    return BT2020 if is_hdr and frame.colorspace == UNSPECIFIED else None


def read_display_matrix(frame: VideoFrame) -> np.ndarray | None:
    """The file's display matrix of a frame, (3, 3) int32 in 16.16 fixed point, or None."""
    data = read_side_data(frame, "DISPLAYMATRIX")
    return None if data is None else np.frombuffer(data, np.int32, count=9).reshape(3, 3)


def read_side_data(frame: VideoFrame, name: str) -> bytes | None:
    """Side data of a frame, by its name in `av.sidedata.sidedata.Type`, or None.

    PyAV (18.1) ties a frame whose side data is read into a reference cycle, which keeps its pixels until Python
    collects garbage: 53 MB each at 8192x4320. So what was read is bound to a frame of one pixel afterwards.
    """
    from av import VideoFrame

    held = frame.side_data
    held.__init__(frame)  # type: ignore[misc]
    data: Any = held.get(name)
    content = None if data is None else bytes(data)
    del data
    held.__init__(VideoFrame(1, 1, "gray"))  # type: ignore[misc]
    return content


def swaps_sides(matrix: np.ndarray | None) -> bool:
    """Whether width and height are swapped by the orientation."""
    if matrix is None:
        return False
    size = np.abs(matrix[:2, :2].astype(np.int64))
    return bool(size[0, 1] + size[1, 0] > size[0, 0] + size[1, 1])


def orient_picture(picture: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Rotate and mirror a (height, width, 3) image upright, by the nearest quarter turn.

    The matrix maps a stored point (x, y) to (a x + c y, b x + d y), with a, b, c, d at [0,0], [0,1],
    [1,0], [1,1].

    Source: ISO/IEC 14496-12, track header box.
    """
    if matrix is None:
        return picture
    along_x, along_y = int(matrix[0, 0]), int(matrix[1, 1])
    if swaps_sides(matrix):
        picture = picture.transpose(1, 0, 2)
        along_x, along_y = int(matrix[1, 0]), int(matrix[0, 1])
    if along_x < 0:
        picture = picture[:, ::-1]
    if along_y < 0:
        picture = picture[::-1]
    return picture
