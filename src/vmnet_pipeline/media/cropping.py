"""Read the crop that a container declares: PixelCrop of Matroska, clean aperture of MP4 and QuickTime.

PyAV (18.1) does not expose what FFmpeg reads. Only lengths and a few numbers are read here, from untrusted files: every
walk is bounded, and anything invalid means no crop.

Sources: RFC 9559, 5.1.4 (Matroska) and RFC 8794 (EBML); ISO/IEC 14496-12, 12.1.4 (`clap`).
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_CHILDREN = 1000
_HEAD_BYTES = 12  # the longest id and the longest size

_SEGMENT, _SEEK_HEAD, _SEEK, _SEEK_ID, _SEEK_POSITION = 0x18538067, 0x114D9B74, 0x4DBB, 0x53AB, 0x53AC
_CLUSTER, _TRACKS, _TRACK_ENTRY, _TRACK_TYPE, _VIDEO = 0x1F43B675, 0x1654AE6B, 0xAE, 0x83, 0xE0
_CROPS = (0x54CC, 0x54BB, 0x54DD, 0x54AA)  # left, top, right, bottom
_VIDEO_TYPE = 1
_VISUAL_ENTRY_BYTES = 86


class Crop(NamedTuple):
    """Pixels to remove at each edge of the stored frame, all >= 0."""

    left: int
    top: int
    right: int
    bottom: int


class _Span(NamedTuple):
    """An element of a file: its id, and where its content begins and ends."""

    id: int | bytes
    start: int
    end: int


def read_crop(file: io.RawIOBase, format_name: str, *, video_index: int, track_id: int) -> Crop | None:
    """Read the crop of one video stream of an open file, whose position is kept; `track_id` is that of FFmpeg."""
    names = format_name.split(",")
    position = file.tell()
    try:
        if "matroska" in names:
            crop = _read_matroska(file, video_index)
        else:
            crop = _read_mp4(file, track_id) if "mov" in names else None
    except (struct.error, ValueError, OSError, ZeroDivisionError, OverflowError):
        return None
    finally:
        file.seek(position)
    return crop if crop is not None and any(crop) else None


def _read_at(file: io.RawIOBase, position: int, n_bytes: int) -> bytes:
    file.seek(position)
    return file.read(n_bytes) or b""


# --- Matroska ---------------------------------------------------------------------------------------------------------


def _read_matroska(file: io.RawIOBase, video_index: int) -> Crop | None:
    size = file.seek(0, io.SEEK_END)
    segment = next((span for span in _list_elements(file, 0, size) if span.id == _SEGMENT), None)
    tracks = None if segment is None else _find_tracks(file, segment)
    if tracks is None:
        return None
    entries = [span for span in _list_elements(file, tracks.start, tracks.end) if span.id == _TRACK_ENTRY]
    videos = [video for entry in entries if (video := _find_video(file, entry)) is not None]
    if video_index >= len(videos):
        return None
    values = {span.id: _read_uint(file, span) for span in _list_elements(file, *videos[video_index][1:])}
    return Crop(*(values.get(name, 0) for name in _CROPS))


def _find_tracks(file: io.RawIOBase, segment: _Span) -> _Span | None:
    """The list of tracks: before the first cluster, or at the position in the seek head."""
    places: list[int] = []
    for span in _list_elements(file, segment.start, segment.end):
        if span.id == _TRACKS:
            return span
        if span.id == _SEEK_HEAD:
            places += _read_seek_head(file, span)
        if span.id == _CLUSTER:
            break
    spans = (next(_list_elements(file, segment.start + place, segment.end), None) for place in places)
    return next((span for span in spans if span is not None and span.id == _TRACKS), None)


def _read_seek_head(file: io.RawIOBase, head: _Span) -> list[int]:
    """Positions of tracks, relative to the content of the segment."""
    places = []
    for seek in _list_elements(file, head.start, head.end):
        if seek.id == _SEEK:
            values = {span.id: _read_uint(file, span) for span in _list_elements(file, seek.start, seek.end)}
            if values.get(_SEEK_ID) == _TRACKS and _SEEK_POSITION in values:
                places.append(values[_SEEK_POSITION])
    return places


def _find_video(file: io.RawIOBase, entry: _Span) -> _Span | None:
    """The video settings of a track, empty if it has none; None if it is not a video track."""
    spans = {span.id: span for span in _list_elements(file, entry.start, entry.end)}
    if _TRACK_TYPE not in spans or _read_uint(file, spans[_TRACK_TYPE]) != _VIDEO_TYPE:
        return None
    return spans.get(_VIDEO, _Span(_VIDEO, entry.end, entry.end))


def _list_elements(file: io.RawIOBase, start: int, end: int) -> Iterator[_Span]:
    """Successive EBML elements, as far as they are valid."""
    for _ in range(_MAX_CHILDREN):
        head = _read_at(file, start, _HEAD_BYTES) if start < end else b""
        if not head or not head[0]:
            return
        id_bytes = 9 - head[0].bit_length()
        size_bytes = 9 - head[id_bytes : id_bytes + 1][0].bit_length() if len(head) > id_bytes else 9
        if id_bytes > 4 or size_bytes > 8 or len(head) < id_bytes + size_bytes:
            return
        size = int.from_bytes(head[id_bytes : id_bytes + size_bytes]) & ((1 << 7 * size_bytes) - 1)
        is_open = size == (1 << 7 * size_bytes) - 1  # of unknown size: up to the end of what holds it
        start += id_bytes + size_bytes
        stop = end if is_open else min(start + size, end)
        yield _Span(int.from_bytes(head[:id_bytes]), start, stop)
        start = stop


def _read_uint(file: io.RawIOBase, span: _Span) -> int:
    return int.from_bytes(_read_at(file, span.start, min(span.end - span.start, 8)))


# --- MP4 and QuickTime ------------------------------------------------------------------------------------------------


def _read_mp4(file: io.RawIOBase, track_id: int) -> Crop | None:
    size = file.seek(0, io.SEEK_END)
    movie = _find_box(file, _Span(b"", 0, size), b"moov")
    if movie is None:
        return None
    for track in _list_boxes(file, movie.start, movie.end):
        if track.id == b"trak" and _read_track_id(file, track) == track_id:
            return _read_clean_aperture(file, track)
    return None


def _read_track_id(file: io.RawIOBase, track: _Span) -> int | None:
    header = _find_box(file, track, b"tkhd")
    if header is None:
        return None
    data = _read_at(file, header.start, 24)
    value: int = struct.unpack_from(">I", data, 20 if data[:1] == b"\x01" else 12)[0]
    return value


def _read_clean_aperture(file: io.RawIOBase, track: _Span) -> Crop | None:
    """Convert its size, and the offset of its centre from that of the stored frame, all fractions."""
    table = _find_box(file, track, b"mdia", b"minf", b"stbl", b"stsd")
    entry = None if table is None else next(_list_boxes(file, table.start + 8, table.end), None)
    if entry is None:
        return None
    width, height = struct.unpack(">HH", _read_at(file, entry.start + 24, 4))
    box = _find_box(file, entry._replace(start=entry.start + _VISUAL_ENTRY_BYTES - 8), b"clap")
    if box is None:
        return None
    values = struct.unpack(">IIIIiIiI", _read_at(file, box.start, 32))
    shown_width, shown_height, along_x, along_y = (values[k] / values[k + 1] for k in (0, 2, 4, 6))
    left, top = round(along_x + (width - shown_width) / 2), round(along_y + (height - shown_height) / 2)
    crop = Crop(left, top, round(width - shown_width) - left, round(height - shown_height) - top)
    return crop if min(crop) >= 0 else None


def _find_box(file: io.RawIOBase, parent: _Span, *path: bytes) -> _Span | None:
    span: _Span | None = parent
    for name in path:
        if span is None:
            return None
        span = next((box for box in _list_boxes(file, span.start, span.end) if box.id == name), None)
    return span


def _list_boxes(file: io.RawIOBase, start: int, end: int) -> Iterator[_Span]:
    """Successive boxes, as far as they are valid."""
    for _ in range(_MAX_CHILDREN):
        head = _read_at(file, start, 16) if start + 8 <= end else b""
        if len(head) < 8:
            return
        size, head_bytes = int.from_bytes(head[:4]), 8
        if size == 1:
            size, head_bytes = int.from_bytes(head[8:16]), 16
        size = end - start if size == 0 else size
        if size < head_bytes:
            return
        stop = min(start + size, end)
        yield _Span(head[4:8], start + head_bytes, stop)
        start = stop
