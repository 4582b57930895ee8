"""Files that were joined end to end: each recording has its own header and is opened by itself.

FFmpeg reads the first recording of most formats and stops, or reads the next with the parameters of the first.
"""

from __future__ import annotations

import io
import re
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.media.container import has_decoder, open_media_file, start_container
from vmnet_pipeline.media.cropping import Crop, read_crop
from vmnet_pipeline.media.reading import MIN_GAP_S, Reader, gives_frames
from vmnet_pipeline.media.remote import RemoteFile

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from _typeshed import WriteableBuffer as Buffer
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

    FindStream: TypeAlias = Callable[..., Stream | None]

_MAX_PARTS = 1_000
_NS = 1_000_000_000
_MAX_BOXES = 100_000
_MIN_PART_BYTES = 10_000
_BLOCK_BYTES = 1 << 20
_OVERLAP_BYTES = 64
_EBML = b"\x1a\x45\xdf\xa3"
# First bytes of formats that do not declare their length.
_HEADERS = {
    "flv": re.compile(rb"FLV\x01[\x00\x01\x04\x05]\x00\x00\x00\x09"),
    "asf": re.compile(re.escape(bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"))),
    "ogg": re.compile(rb"OggS\x00\x02"),
}
_FLAC = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
_TS_PACKET_BYTES = 188
# The first table of a transport stream: a packet of stream 0 in which a table begins. It comes every half second.
_TABLE = b"\x47\x40\x00"
_TABLE_DISTANCE_BYTES = 1 << 20


class _Slice(io.RawIOBase):
    """A part of an open file as a file; closing it leaves the whole one open.

    Attributes:
        end: Where it ends in the file: what is found of `until` while reading is the beginning of the next part.
    """

    def __init__(self, file: io.RawIOBase, start: int, end: int, until: re.Pattern[bytes] | None = None) -> None:
        self._file, self._start, self.end, self._until = file, start, end, until
        file.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        view, place = memoryview(buffer), self._file.tell()
        content = self._file.read(max(0, min(len(view), self.end - place))) or b""
        if self._until is not None and (found := self._until.search(content, place == self._start)):
            self.end = place + found.start()
            content = content[: found.start()]
        view[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (self._start, self._file.tell(), self.end)[whence]
        place = self._file.seek(base + offset)
        return place - self._start if place >= 0 else place

    def tell(self) -> int:
        return self._file.tell() - self._start


class Parts:
    """The recordings in a file, opened one after the other.

    Attributes:
        reader: To be set to what reads the part at hand; it knows where reading ended.
        unread_bytes: How much there is of a part that cannot be opened.
    """

    def __init__(self, file: io.RawIOBase, path: str | os.PathLike[str]) -> None:
        self.reader: Reader | None = None
        self.n_parts = self.unread_bytes = self.size_bytes = 0
        self._file, self._path = file, path
        self._warnings: list[str] = []
        self._failed = set[str]()
        self._unfinished: Reader | None = None
        self._bounds = (0, 0)
        self._opened: list[InputContainer] = []
        self._slice: _Slice | None = None

    def read_side(self, find_stream: FindStream) -> Iterator[Reader]:
        """Readers of one side of each part; a part without this side still takes its time."""
        base_s, before = Fraction(0), None
        for container in self:
            if before is not None:
                self._finish(before, goes_on=True)
            stream = self.choose_stream(container, find_stream)
            if stream is None:
                if self.n_parts == 1:
                    return
                base_s, before = base_s + Fraction(container.duration or 0, 1_000_000), None
                continue
            is_close = before is not None and abs(before.end_s - base_s) <= MIN_GAP_S
            start_s = Fraction(before.end_s).limit_denominator(_NS) if before is not None and is_close else base_s
            before = self.reader = self._unfinished = Reader(container, stream, base_s=start_s)
            yield before
            base_s += Fraction(before.find_duration()).limit_denominator(_NS)
        if before is not None:
            self._finish(before, goes_on=False)

    def _finish(self, reader: Reader, *, goes_on: bool) -> None:
        """Collect the warnings about a part; an error at its end is the beginning of the next part, if any."""
        is_full = goes_on and (reader.losses.gave_up or reader.losses.changes_codec)
        if is_full:
            reader.losses.failed_s -= reader.losses.barren_s
        duration_s = reader.end_s - float(reader.base_s)
        self._warnings += reader.describe_losses(reader.indices[0], duration_s, is_full=is_full)
        self._unfinished = None

    def describe_losses(self) -> list[str]:
        """Warnings about the side as far as it was read."""
        found = list(self._warnings)
        if self._unfinished is not None:
            found += self._unfinished.describe_losses(self._unfinished.indices[0], 0.0, is_full=True)
        return found + self.describe_parts()

    def describe_parts(self) -> list[str]:
        """Warnings about the parts themselves."""
        found = []
        if self.n_parts > 1:
            found.append(f"the file holds {self.n_parts} recordings or more, which are read one after the other")
        if self.unread_bytes:
            found.append(f"the last {self.unread_bytes:,} bytes hold a further recording that cannot be read")
        found += [f"nothing of its best {side} track can be decoded; another one is used" for side in self._failed]
        return found

    def choose_stream(self, container: InputContainer, find_stream: FindStream) -> Stream | None:
        """The best stream of a side that decodes, else the best. The container is not read."""
        ranked = _rank_streams(container, find_stream)
        if len(ranked) < 2:
            return find_stream(container)
        place, part = self._file.tell(), self._slice
        try:
            for stream in ranked:
                with self.reopen() as trial:
                    if gives_frames(trial, stream.index):
                        self._failed |= {stream.type} if stream is not ranked[0] else set()
                        return stream
            return ranked[0]
        finally:
            self._slice = part
            self._file.seek(place)

    def __iter__(self) -> Iterator[InputContainer]:
        """Yield containers; do not read one after the next was requested: it is closed with the one after that.

        Raises:
            MediaError: The first part cannot be opened; reasons of `start_container`.
        """
        size = self.size_bytes = self._file.seek(0, io.SEEK_END)
        starts = [*find_starts(self._file, size), size]
        start: int | None = 0
        while start is not None and self.n_parts < _MAX_PARTS:
            self._bounds = start, next(place for place in starts if place > start)
            try:
                container = self._start()
            except MediaError:
                if not self.n_parts:
                    raise
                self.unread_bytes = size - start
                return
            self.n_parts += 1
            self._opened.append(container)
            yield container
            end = self._bounds[1] if self._slice is None else self._slice.end
            start = end if end < size else self._find_rest(container, start, size)
            self.close(n_left=1)

    def close(self, *, n_left: int = 0) -> None:
        """Close all containers but the latest."""
        while len(self._opened) > n_left:
            self._opened.pop(0).close()

    def _start(self) -> InputContainer:
        start, end = self._bounds
        until = _FLAC if _read_at(self._file, start, 4) == b"fLaC" else None
        is_all = (start, end) == (0, self.size_bytes) and until is None
        self._slice = None if is_all else _Slice(self._file, start, end, until)
        part = self._slice or self._file
        part.seek(0)
        return start_container(part, self._path)

    def read_crop(self, stream: VideoStream) -> Crop | None:
        """Read the crop of a stream from the header of the current part; the position of the file is kept."""
        place = self._file.tell()
        index = stream.container.streams.video.index(stream)
        try:
            name = stream.container.format.name
            part = _Slice(self._file, *self._bounds)
            return read_crop(part, name, video_index=index, track_id=stream.id)
        finally:
            self._file.seek(place)

    @contextmanager
    def reopen(self) -> Iterator[InputContainer]:
        """Open the current part again, from its beginning; the first container must not be read any more.

        Raises:
            MediaError: Reasons of `start_container`.
        """
        container = self._start()
        try:
            yield container
        finally:
            container.close()

    def _find_rest(self, container: InputContainer, start: int, size: int) -> int | None:
        """Position of another part after the last packet, which the demuxer does not find."""
        if self.reader is None or (last := self.reader.losses.last_place) is None:
            return None
        if self.reader.losses.has_new_streams:
            rest = start + last + _TS_PACKET_BYTES
            return rest if rest + _MIN_PART_BYTES < size else None
        if container.format.name == "mpegts":
            return self._find_other_codec(self.reader, start, size)
        header = next((_HEADERS[name] for name in container.format.name.split(",") if name in _HEADERS), None)
        return None if header is None else _search(self._file, header, start + last + 1, size)

    def _find_other_codec(self, reader: Reader, start: int, size: int) -> int | None:
        """Position of the MPEG-TS table that changes the codec of a stream, if that is why nothing decodes."""
        if not reader.losses.changes_codec or reader.losses.barren_place is None:
            return None
        place = start + reader.losses.barren_place
        first = max(start, place - _TABLE_DISTANCE_BYTES)
        rest = first + max(_read_at(self._file, first, place - first).rfind(_TABLE), 0)
        stream = reader.streams[0]
        try:
            other = start_container(_Slice(self._file, rest, size), self._path)
        except MediaError:
            return None
        with other:
            found = [s.codec_context.name for s in other.streams if s.id == stream.id and has_decoder(s)]
        return rest if rest > start and found and found[0] != stream.codec_context.name else None


@contextmanager
def open_parts(path: str | os.PathLike[str]) -> Iterator[Parts]:
    """Open a media file whose recordings are read one after the other, without letting FFmpeg open anything else.

    Raises:
        MediaError: Reasons of `open_media_file`; those of `start_container` come with the first part.
    """
    with open_media_file(path) as file:
        try:
            parts = Parts(file, path)
            try:
                yield parts
            finally:
                parts.close()
        finally:
            if isinstance(file, RemoteFile):
                file.check()


def _rank_streams(container: InputContainer, find_stream: FindStream) -> list[Stream]:
    """The streams of a side that have a decoder, the best first."""
    ranked: list[Stream] = []
    while (stream := find_stream(container, [other.index for other in ranked])) is not None and has_decoder(stream):
        ranked.append(stream)
    return ranked


def _search(file: io.RawIOBase, header: re.Pattern[bytes], start: int, size: int) -> int | None:
    block = b""
    file.seek(start)
    while start < size:
        kept = len(block)
        more = file.read(_BLOCK_BYTES)
        if not more:
            return None
        block += more
        if found := header.search(block):
            return start - kept + found.start()
        start += len(more)
        block = block[-_OVERLAP_BYTES:]
    return None


def find_starts(file: io.RawIOBase, size: int) -> list[int]:
    """Positions of recordings, in formats that declare the length of their top-level pieces; 0 is the first."""
    head = _read_at(file, 0, 12)
    if head[4:8] == b"ftyp":
        return _walk(file, size, _measure_box, lambda head: head[4:8] == b"ftyp")
    if head[:4] == _EBML:
        return _walk(file, size, _measure_element, lambda head: head[:4] == _EBML)
    if head[:4] == b"RIFF":
        return _walk(file, size, _measure_chunk, lambda head: head[:4] == b"RIFF" and head[8:12] in (b"WAVE", b"AVI "))
    return [0]


def _walk(file: io.RawIOBase, size: int, measure: Any, begins: Any) -> list[int]:
    place, starts = 0, list[int]()
    for _ in range(_MAX_BOXES):
        head = _read_at(file, place, 16) if place < size else b""
        if begins(head) and len(starts) < _MAX_PARTS:
            starts.append(place)
        length = measure(head) if len(head) >= 12 else 0
        if length < 2:
            break
        place += length
    return starts


def _read_at(file: io.RawIOBase, place: int, n: int) -> bytes:
    file.seek(place)
    return file.read(n) or b""


def _measure_box(head: bytes) -> int:
    """Source: ISO/IEC 14496-12, 4.2."""
    length = int.from_bytes(head[:4], "big")
    return int.from_bytes(head[8:16], "big") if length == 1 else length


def _measure_chunk(head: bytes) -> int:
    length = int.from_bytes(head[4:8], "little")
    return 8 + length + length % 2


def _measure_element(head: bytes) -> int:
    """Size of an EBML element with a four-byte id; 0 if unknown. Source: RFC 8794, 4 and 6."""
    width = 9 - head[4].bit_length()
    if head[0] >> 4 != 1 or width > 8:
        return 0
    size = int.from_bytes(head[4 : 4 + width], "big") & ((1 << 7 * width) - 1)
    return 0 if size == (1 << 7 * width) - 1 else 4 + width + size
