"""Check the length that a header declares: trust it if some packets agree, else all have to be read.

Headers are written before the content is known, copied from another file, outdated by parts that were appended, or
invented; some state the time of the last packet as the length. The cheapest evidence comes first:

1. the byte rate of the first packets, for WAV;
2. the distance from the first to the last packet, which seeking finds.

Neither works if the clock may restart within a file (MPEG-TS; Ogg and FLAC of several parts), nor for MP3, where FFmpeg
itself derives length and times from the rate of the beginning, and joined files differ in rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmnet_pipeline.media.clock import states_times
from vmnet_pipeline.media.container import open_media_file
from vmnet_pipeline.media.reading import Reader, read_length, states_end
from vmnet_pipeline.storage.paths import is_remote

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from av.container import InputContainer
    from av.stream import Stream

AGREEMENT_S = 0.25  # encoders pad the last frame, and some headers include that
_RATE_AGREEMENT = 0.02
# With fewer bits per second than speech takes, a wrong time of the last packet is more likely.
_MIN_RATE_BPS = 4_000
_MAX_DURATION_S = 30 * 24 * 3600.0
_FAR_US = 1 << 53
# First bytes of a part, in formats whose parts can be joined without a mark.
_MARKS = {"ogg": b"OggS\0\2", "flac": b"fLaC\0\0\0\x22"}
_BLOCK_BYTES = 1 << 20


def declare_length(container: InputContainer, stream: Stream | None = None) -> float | None:
    """Seconds that the header declares for a stream, or else for the file; None for no plausible value."""
    own = None if stream is None or not stream.duration or not stream.time_base else stream.duration * stream.time_base
    length_s = read_length(container) if own is None else float(own)
    return length_s if 0 < length_s <= _MAX_DURATION_S else None


def choose_length(container: InputContainer, stream: Stream | None, found_s: float) -> float | None:
    """The declared length of a stream or the file if it agrees with the measured one, else the latter.

    Encoder delays are not content, which only headers tell; the end of a file tells nothing about one stream.
    """
    declared_s = declare_length(container, stream)
    agrees = declared_s is not None and abs(found_s - declared_s) <= AGREEMENT_S and not states_end(container)
    if agrees or not found_s:
        return declared_s
    return found_s if 0 < found_s <= _MAX_DURATION_S else None


def confirm_lengths(
    path: str | os.PathLike[str],
    container: InputContainer,
    streams: Sequence[Stream],
    beginning: Reader,
    n_bytes: Mapping[int, int],
) -> dict[int | None, float] | None:
    """Whether cheap evidence supports the declared lengths of the file and of all its streams.

    Args:
        container: The file, of which some has been read; where it is left does not matter.
        beginning: What has been read of them.
        n_bytes: How much that was, by the index of the stream.

    Returns:
        The seconds that were found of the file (None) and of its streams, if any had to be; None if nothing speaks for
        the headers.
    """
    if container.format.name == "mp3" or _may_be_joined(path, container) or beginning.clock.n_jumps:
        return None
    is_plain = container.format.name == "wav" and len(container.streams) == 1
    if is_plain and _has_rate(
        container, streams[0], beginning.measure(streams[0].index), n_bytes.get(streams[0].index, 0)
    ):
        return {}
    lengths: dict[int | None, float | None] = {stream.index: declare_length(container, stream) for stream in streams}
    lengths[None] = declare_length(container)
    if any(length is None or length > 8 * container.size / _MIN_RATE_BPS for length in lengths.values()):
        return None
    found = _look_up_lengths(container, beginning, streams)
    agree = all(abs((length or 0.0) - found.get(index, 0.0)) <= AGREEMENT_S for index, length in lengths.items())
    return found if agree else None


def _may_be_joined(path: str | os.PathLike[str], container: InputContainer) -> bool:
    """Whether the clock may restart within the file, judged by format and beginnings of parts."""
    mark = _MARKS.get(container.format.name)
    if mark is None or is_remote(path):
        return not states_times(container)
    n_marks, end, n_shared = 0, b"", len(mark) - 1
    with open_media_file(path, streams=True) as file:
        while block := file.read(_BLOCK_BYTES):
            n_marks += block.count(mark) + (end + block[:n_shared]).count(mark)
            end = block[-n_shared:]
    return n_marks > len(container.streams)


def _has_rate(container: InputContainer, stream: Stream, read_s: float, n_read: int) -> bool:
    """Whether the declared length gives the byte rate of the beginning."""
    length = declare_length(container, stream)
    if length is None or not n_read:
        return False
    return abs(container.size / length * read_s / n_read - 1) <= _RATE_AGREEMENT


def _look_up_lengths(
    container: InputContainer, beginning: Reader, streams: Sequence[Stream]
) -> dict[int | None, float]:
    """Seconds from the first to the last packet of the file (None) and of each stream, as far as seeking finds them."""
    import av

    end = Reader(container, *streams)
    try:
        container.seek(_FAR_US)
        for _ in end.packets():
            pass
    except (av.error.FFmpegError, OSError, ValueError):
        return {}
    losses = end.losses
    if end.clock.n_jumps or losses.n_errors or losses.gave_up or losses.is_cut:
        return {}
    found: dict[int | None, float] = {}
    for index in (None, *(stream.index for stream in streams)):
        (start, _), (last_start, last) = beginning.clock.get_span(index), end.clock.get_span(index)
        if last > last_start:
            found[index] = (last - start) / 1e9
    return found
