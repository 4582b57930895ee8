"""The cover of a track: the picture attached to its file."""

from __future__ import annotations

import io
from contextlib import closing
from typing import TYPE_CHECKING

from vmnet_pipeline.media.container import open_media_file, start_container

if TYPE_CHECKING:
    import os

COVER_PX = 160
MAX_COVER_BYTES = 16 << 20
MAX_COVER_PIXELS = 50_000_000


def read_cover(path: str | os.PathLike[str], *, max_side_px: int = COVER_PX) -> bytes:
    """A small JPEG of the picture attached to a media file; empty if there is none that can be read.

    Args:
        max_side_px: The longer side of the result; nothing is enlarged.

    Raises:
        MediaError: Reasons of `open_media_file` and `start_container`.
    """
    from av.error import FFmpegError
    from av.stream import Disposition

    with open_media_file(path) as file, closing(start_container(file, path)) as container:
        attached = [s for s in container.streams.video if s.disposition & Disposition.attached_pic]
        try:
            pictures = [bytes(packet) for packet in container.demux(attached[0]) if packet.size] if attached else []
        except FFmpegError:  # the picture stands before what is damaged, or is of no use
            pictures = []
    return _shrink(pictures[0], max_side_px) if pictures and len(pictures[0]) <= MAX_COVER_BYTES else b""


def _shrink(content: bytes, max_side_px: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP", "GIF", "BMP")) as picture:
            if picture.width * picture.height > MAX_COVER_PIXELS:
                return b""
            picture.draft("RGB", (max_side_px, max_side_px))
            small = picture.convert("RGB")
            small.thumbnail((max_side_px, max_side_px))
            small.save(file, "JPEG", quality=80)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises for damaged pictures
        return b""
    return file.getvalue()
