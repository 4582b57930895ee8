"""Decode the sound of a file to two channels, block by block."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.media.audio import resample_blocks
from vmnet_pipeline.media.channels import Stereo
from vmnet_pipeline.media.container import find_audio_stream, is_protected
from vmnet_pipeline.media.parts import open_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from fractions import Fraction

    from vmnet_pipeline.media.parts import Parts
    from vmnet_pipeline.media.reading import Reader

RATE_HZ = 48_000
"""Sample rate of every signal here: what AAC and Opus both take, and what video is edited at."""

BLOCK = RATE_HZ // 2


class Sound:
    """The sound of a file, decoded from its beginning each time; nothing is kept.

    Attributes:
        warnings: What could not be read as stored, after the sound was read to its end.
        origin_s: First instant of the file on the clock of its packets, after the first block was read.
    """

    def __init__(self, path: str, *, joined: bool = True) -> None:
        """Prepare; with `joined`, recordings that were joined end to end are read one after the other."""
        self.path, self._joined = path, joined
        self.warnings: list[str] = []
        self.origin_s: Fraction | None = None

    def blocks(self) -> Iterator[np.ndarray]:
        """Blocks of any length: (n, 2) float32, finite, nominally in [-1, 1], at `RATE_HZ`.

        Raises:
            MediaError: Reasons of `open_parts`, `no_audio_stream`, `protected` or `undecodable_audio`.
        """
        with open_parts(self.path) as parts:
            n_samples = 0
            for block in self._decode(parts):
                if self.origin_s is None and parts.reader is not None:
                    self.origin_s = parts.reader.origin_s
                if not np.isfinite(block).all():
                    raise _undecodable(self.path, "holds samples that are not finite; export the file again")
                n_samples += len(block)
                yield block
            if parts.reader is None:
                raise MediaError("no_audio_stream", f"{self.path}: has no audio that can be read; give another file")
            if not n_samples:
                raise _undecodable(self.path, "cannot be decoded (damaged, or protected); give another file")
            self.warnings = parts.describe_losses()

    def _decode(self, parts: Parts) -> Iterator[np.ndarray]:
        sides = parts.read_side(find_audio_stream)
        readers = self._check(sides if self._joined else islice(sides, 1))
        return (block for block in resample_blocks(readers, Stereo(), RATE_HZ) if len(block))

    def _check(self, readers: Iterator[Reader]) -> Iterator[Reader]:
        for reader in readers:
            if is_protected(reader.streams[0]):
                message = f"{self.path}: its audio is protected (DRM); give a file without protection"
                raise MediaError("protected", message)
            yield reader


def _undecodable(path: str, why: str) -> MediaError:
    return MediaError("undecodable_audio", f"{path}: its audio {why}")


def cut(blocks: Iterable[np.ndarray], start: int, end: int) -> Iterator[np.ndarray]:
    """Samples `start` to `end` of a signal, fewer where it ends before."""
    place = 0
    for block in blocks:
        part = block[max(0, start - place) : max(0, end - place)]
        if len(part):
            yield part
        place += len(block)
        if place >= end:
            return


def rechunk(blocks: Iterable[np.ndarray], n_samples: int, size: int = BLOCK) -> Iterator[np.ndarray]:
    """The first `n_samples` in blocks of `size`, the last one shorter; silence follows a signal that ends before."""
    source, pending, n_pending, left = iter(blocks), list[np.ndarray](), 0, n_samples
    while left:
        wanted = min(size, left)
        while n_pending < wanted:
            block = next(source, None)
            if block is None:
                block = Stereo.make_silence(wanted - n_pending)
            pending.append(block)
            n_pending += len(block)
        joined = np.concatenate(pending)
        yield joined[:wanted]
        pending, n_pending, left = [joined[wanted:]], n_pending - wanted, left - wanted


def shift(blocks: Iterable[np.ndarray], delay: int) -> Iterator[np.ndarray]:
    """A signal that begins `delay` samples later; without its beginning where the delay is negative."""
    if delay > 0:
        for start in range(0, delay, RATE_HZ):
            yield Stereo.make_silence(min(RATE_HZ, delay - start))
    yield from cut(blocks, max(0, -delay), 1 << 62)


def watch(blocks: Iterable[np.ndarray], tell: Callable[[int], None]) -> Iterator[np.ndarray]:
    """Pass blocks on, telling how many samples have gone by."""
    n = 0
    for block in blocks:
        n += len(block)
        tell(n)
        yield block
