"""Encode the sound, and hear at once what a player will."""

from __future__ import annotations

import errno
import io
import os
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.soundtrack.loudness import LoudnessMeter, PeakMeter
from vmnet_pipeline.soundtrack.signals import BLOCK, RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from av.container import OutputContainer
    from av.packet import Packet
    from typing_extensions import Buffer

_ENCODERS = {"aac": "aac", "opus": "libopus"}


class Output(io.RawIOBase):
    """An open file to write to by its descriptor. PyAV may lose an error of the disk, so it is kept.

    Attributes:
        error: The first error of the disk.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._place, self._end = descriptor, 0, 0
        self.error: OSError | None = None

    def writable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def write(self, content: Buffer, /) -> int:
        """Write everything, or raise."""
        view = memoryview(content).cast("B")
        n = 0
        try:
            while n < len(view):
                n += os.pwrite(self._descriptor, view[n:], self._place + n)
        except OSError as error:
            self.error = self.error or error
            raise
        self._place += n
        self._end = max(self._end, self._place)
        return n

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Change the position; an impossible one returns an error number, which FFmpeg understands."""
        place = (0, self._place, self._end)[whence] + offset
        if place < 0:
            return -errno.EINVAL
        self._place = place
        return place

    def tell(self) -> int:
        """The place."""
        return self._place


class Encoder:
    """Encodes one signal.

    Attributes:
        name: `aac` or `opus`.
    """

    def __init__(self, name: str, bitrate_kbps: int) -> None:
        self.name, self._bitrate_kbps = name, bitrate_kbps
        self._stream: Any = None
        self._decoder: Any = None
        self._first = self._n_lead = 0
        self._loudness, self._peak = LoudnessMeter(), PeakMeter()
        self._heard, self._n_heard = list[np.ndarray](), 0

    def start(self, out: OutputContainer, first_s: Fraction) -> None:
        """Add the stream to a file, its first sample at `first_s`."""
        stream: Any = out.add_stream(_ENCODERS[self.name], rate=RATE_HZ, bit_rate=self._bitrate_kbps * 1000)
        stream.codec_context.layout = "stereo"
        self._stream, self._first = stream, round(first_s * RATE_HZ)

    def encode(self, blocks: Iterable[np.ndarray]) -> Iterator[Packet[Any]]:
        """Packets of a signal: (n, 2) float32 blocks."""
        import av

        place = self._first
        for block in blocks:
            frame = av.AudioFrame.from_ndarray(block.reshape(1, -1), format="flt", layout="stereo")
            frame.sample_rate, frame.time_base, frame.pts = RATE_HZ, Fraction(1, RATE_HZ), place
            place += len(block)
            yield from self._hear(self._stream.encode(frame))
        yield from self._hear(self._stream.encode(None))

    def _hear(self, packets: list[Packet[Any]]) -> Iterator[Packet[Any]]:
        if packets and self._decoder is None:
            self._decoder = _make_decoder(self._stream.codec_context)
            self._n_lead = max(0, self._first - (packets[0].pts or 0))
        for packet in packets:
            for frame in self._decoder.decode(packet):
                self._listen(frame)
            yield packet

    def _listen(self, frame: Any) -> None:
        samples = frame.to_ndarray().T if frame.format.is_planar else frame.to_ndarray().reshape(-1, 2)
        n_lead = min(self._n_lead, len(samples))  # what the encoder puts in front, and players drop
        samples, self._n_lead = samples[n_lead:], self._n_lead - n_lead
        self._heard.append(samples)
        self._n_heard += len(samples)
        if self._n_heard >= BLOCK:
            self._judge()

    def _judge(self) -> None:
        """Measure what was heard, many frames at a time, since each call costs."""
        samples = np.concatenate(self._heard) if self._heard else np.empty((0, 2), np.float32)
        self._heard, self._n_heard = [], 0
        if len(samples):
            self._loudness.add(samples)
            self._peak.add(samples)

    def measure(self) -> tuple[float, float]:
        """Loudness in LUFS and true peak in dBTP of what was encoded, after all."""
        for frame in self._decoder.decode(None) if self._decoder else []:
            self._listen(frame)
        self._judge()
        return self._loudness.measure(), self._peak.measure()


def _make_decoder(encoder: Any) -> Any:
    import av

    decoder: Any = av.CodecContext.create({"libopus": "opus"}.get(encoder.name, encoder.name), "r")
    decoder.extradata = encoder.extradata
    decoder.thread_count = 1
    return decoder
