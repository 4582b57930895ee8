"""FFmpeg filters on single frames: deinterlacing by the neighbouring frames, cropping."""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    Step = tuple[str, dict[str, str]]

# Decoders that never mark a frame as interlaced; for them the container's field order counts.
_CODECS_WITHOUT_FLAG = frozenset({"cfhd", "ffvhuff", "huffyuv", "jpeg2000", "magicyuv", "png", "qtrle", "v210", "v410"})
# AVFieldOrder: top or bottom field shown first.
_PARITIES = {2: "tff", 3: "bff", 4: "bff", 5: "tff"}
# Frames further apart than this share of their duration are not neighbours: the decoder skipped some.
_MAX_DISTANCE = 1.5


class FieldMerger:
    """Deinterlaces frames. It sees every decoded frame, and keeps three of them if some are interlaced.

    A frame is deinterlaced by `bwdif`, which keeps what stands still and interpolates what moves, and shows the moment
    of the field that is on the screen. Without a frame before it nothing tells what moves: `estdif` interpolates it.
    """

    def __init__(self, stream: VideoStream) -> None:
        """Take the field order from the container where the decoder has none.

        Args:
            stream: Whose frames come; not yet decoded.
        """
        context = stream.codec_context
        self._parity = _PARITIES.get(int(context.field_order)) if context.name in _CODECS_WITHOUT_FLAG else None
        self._gives_fields = context.name == "hevc"  # FFmpeg gives its fields as frames of half the height
        self._recent: deque[VideoFrame] = deque(maxlen=3)

    def watch(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        """Pass on frames from the decoder."""
        was_interlaced = False
        for frame in frames:
            is_interlaced = self.is_interlaced(frame)
            if is_interlaced or was_interlaced:
                self._recent.append(frame)
            elif self._recent:
                self._recent.clear()
            was_interlaced = is_interlaced
            yield frame

    def is_interlaced(self, frame: VideoFrame) -> bool:
        """Whether the lines of a frame were taken at two moments."""
        return frame.interlaced_frame or self._parity is not None

    def choose_steps(self, frame: VideoFrame, *, is_late: bool) -> tuple[list[VideoFrame], list[Step], int]:
        """Arguments of `run_filters` for the moment of the first or the second field of a frame."""
        before, after = self._find_neighbours(frame)
        marks: list[Step] = [] if self._parity is None else [("setfield", {"mode": self._parity})]
        if self._gives_fields:
            return [frame], [("scale", {"w": "iw", "h": "2*ih", "flags": "bicubic"})], 0
        if before is None:
            return [frame], [*marks, ("estdif", {"mode": "field", "deint": "all"})], int(is_late)
        steps = [*marks, ("bwdif", {"mode": "send_field", "deint": "all"})]
        return [before, frame, after or frame], steps, 2 + is_late

    def _find_neighbours(self, frame: VideoFrame) -> tuple[VideoFrame | None, VideoFrame | None]:
        """The frames before and after, if they were decoded and have the same format."""
        before = after = None
        for one, two in itertools.pairwise(self._recent):
            if _are_neighbours(one, two):
                before = one if two is frame else before
                after = two if one is frame else after
        return before, after


def _are_neighbours(first: VideoFrame, second: VideoFrame) -> bool:
    if (first.width, first.height, first.format.name) != (second.width, second.height, second.format.name):
        return False
    if first.pts is None or second.pts is None or not first.duration:
        return True
    return 0 < second.pts - first.pts <= _MAX_DISTANCE * first.duration


def run_filters(frames: list[VideoFrame], steps: list[Step], index: int = 0) -> VideoFrame:
    """Filter consecutive frames of one format and return output number `index`. Nothing is kept.

    Raises:
        av.error.FFmpegError: A filter refuses them.
    """
    import av.filter

    wanted = frames[len(frames) // 2]  # the others have its form
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add(
        "buffer",
        video_size=f"{wanted.width}x{wanted.height}",
        pix_fmt=wanted.format.name,
        time_base="1/1",
        pixel_aspect="1/1",
        colorspace=str(int(wanted.colorspace)),
        range=str(int(wanted.color_range)),
    )
    filters = [graph.add(name, **options) for name, options in steps]
    graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
    for frame in [*frames, None]:
        graph.push(frame)
    for _ in range(index):
        graph.pull()
    result: VideoFrame = graph.pull()
    return result
