"""Decode the audio of any media file to one mono signal of a given sample rate."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.errors import MediaError, ParameterError
from vmnet_pipeline.media.channels import Mixer, Stereo
from vmnet_pipeline.media.clock import MAX_HOLD_S
from vmnet_pipeline.media.container import find_audio_stream
from vmnet_pipeline.media.parts import open_parts
from vmnet_pipeline.media.reading import MIN_GAP_S, Reader

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import soxr

# The resampler gets blocks of about this length: the calls cost little, and little is decoded beyond the window.
_BLOCK_S = 0.25
# Other sample rates come from damaged headers and would make the resampler allocate gigabytes.
_NATIVE_RATES_HZ = range(1_000, 1_000_001)
_JUDGED_S = 60.0
_NOTHING = np.empty(0, np.float32)


def decode_audio(
    path: str | os.PathLike[str],
    *,
    sample_rate_hz: int,
    max_duration_s: float | None = None,
    warnings: list[str] | None = None,
) -> np.ndarray:
    """Decode the beginning of a file's audio to mono.

    All channels are averaged with equal weight at the native rate, then resampled with soxr HQ unless they have the
    wanted rate. If the channels of the window cancel each other (`channels.CANCELLED_SHARE`), it is decoded again and
    the loudest channel used. The resampler works on the stream and decoding ends when the window is full, so the result
    is exactly the beginning of that of the whole file, unless the channels cancel in only one of them. Declared encoder
    delay (AAC, MP3, Opus) is removed.

    Time counts from the first instant of the file, of audio or of frames, as in `video.sample_frames`. A late beginning
    and gaps of 0.1 s or more, damaged or missing, are silent; jumps of the clock are bridged (`media.clock`).

    Args:
        path: A media file, audio or video.
        max_duration_s: Length of the window in seconds; None for everything.
        warnings: Receives a sentence on everything that could not be read as stored.

    Returns:
        (n,) float32, finite, nominally in [-1, 1] (not clipped), n >= 1 and at most
        `round(max_duration_s * sample_rate_hz)`.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from vmnet_pipeline.demo.clip import make_clip
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     clip = make_clip(Path(folder, "clip.wav"), duration_s=1.0)
        ...     samples = decode_audio(clip, sample_rate_hz=16000)
        >>> samples.shape, samples.dtype
        ((16000,), dtype('float32'))

    Raises:
        MediaError: Reasons of `open_media_file` and `start_container`, `no_audio_stream`, or `undecodable_audio`
            when no sample decodes (at a rate between 1 kHz and 1 MHz), or a sample is not a finite number.
        ParameterError: A rate or a duration that is not positive.
    """
    n_wanted = _count_wanted(sample_rate_hz, max_duration_s)
    mixer, found = Mixer(max_duration_s), list[str]()
    signal = _decode_window(path, sample_rate_hz, n_wanted, mixer, found)
    if mixer.cancels:
        found.append(mixer.describe())
        signal = _decode_window(path, sample_rate_hz, n_wanted, Mixer(channel=mixer.loudest), [])
    if warnings is not None:
        warnings += found
    return signal


def stream_audio(
    path: str | os.PathLike[str], *, sample_rate_hz: int, warnings: list[str] | None = None
) -> Iterator[np.ndarray]:
    """Decode the whole audio of a file as `decode_audio` does, block by block: memory does not grow with its length.

    Whether channels cancel is judged by the first minute.

    Yields:
        (n,) float32 mono, about `_BLOCK_S` long.

    Raises:
        MediaError: As in `decode_audio`, perhaps after some blocks.
        ParameterError: A rate that is not positive.
    """
    mixer, found = Mixer(_JUDGED_S), list[str]()
    _decode_window(path, sample_rate_hz, _count_wanted(sample_rate_hz, _JUDGED_S), mixer, [])
    if mixer.cancels:
        found.append(mixer.describe())
    with open_parts(path) as parts:
        chosen = Mixer(channel=mixer.loudest) if mixer.cancels else Mixer(0.0)
        for block in resample_blocks(parts.read_side(find_audio_stream), chosen, sample_rate_hz):
            if not np.isfinite(block).all():
                message = f"{path}: its audio holds samples that are not finite; export the file again"
                raise MediaError("undecodable_audio", message)
            if len(block):
                yield block
        found += parts.describe_losses()
    if warnings is not None:
        warnings += found


def _decode_window(
    path: str | os.PathLike[str], sample_rate_hz: int, n_wanted: int | None, mixer: Mixer, warnings: list[str]
) -> np.ndarray:
    with open_parts(path) as parts:
        blocks = _collect_blocks(resample_blocks(parts.read_side(find_audio_stream), mixer, sample_rate_hz), n_wanted)
        if parts.reader is None:
            raise MediaError("no_audio_stream", f"{path}: has no audio; give another file for the audio side")
        if not blocks:
            raise MediaError("undecodable_audio", f"{path}: its audio cannot be decoded; convert or replace the file")
        signal = np.concatenate(blocks)[:n_wanted]
        warnings += parts.describe_losses()
    if not np.isfinite(signal).all():
        message = f"{path}: its audio holds samples that are not finite; export the file again"
        raise MediaError("undecodable_audio", message)
    return signal


def _count_wanted(sample_rate_hz: int, max_duration_s: float | None) -> int | None:
    if sample_rate_hz <= 0:
        raise ParameterError(f"sample_rate_hz={sample_rate_hz}: must be positive")
    if max_duration_s is None:
        return None
    n_wanted = round(max_duration_s * sample_rate_hz)
    if n_wanted < 1:
        raise ParameterError(f"max_duration_s={max_duration_s}: must be at least one sample long, or None")
    return n_wanted


def _collect_blocks(blocks: Iterator[np.ndarray], n_wanted: int | None) -> list[np.ndarray]:
    collected = []
    n_collected = 0
    for block in blocks:
        if block.size:
            collected.append(block)
            n_collected += block.size
        if n_wanted is not None and n_collected >= n_wanted:
            break
    return collected


def resample_blocks(readers: Iterator[Reader], mixer: Mixer | Stereo, sample_rate_hz: int) -> Iterator[np.ndarray]:
    """Blocks at the wanted rate, as the mixer makes them; a stream that changes its rate gets a new resampler."""
    current_hz = 0
    resampler = None
    for rate_hz, block in _mix_blocks(readers, mixer):
        if rate_hz != current_hz:
            if resampler is not None:
                yield resampler.resample_chunk(mixer.make_silence(0), last=True)
            current_hz = rate_hz
            resampler = _make_resampler(rate_hz, sample_rate_hz, mixer.n_channels)
        yield block if resampler is None else resampler.resample_chunk(block)
    if resampler is not None:
        yield resampler.resample_chunk(mixer.make_silence(0), last=True)


def _make_resampler(from_hz: int, to_hz: int, n_channels: int) -> soxr.ResampleStream | None:
    import soxr

    if from_hz == to_hz:
        return None
    return soxr.ResampleStream(from_hz, to_hz, n_channels, dtype="float32", quality="HQ")


def _mix_blocks(readers: Iterator[Reader], mixer: Mixer | Stereo) -> Iterator[tuple[int, np.ndarray]]:
    """(native rate in Hz, float32 block) pairs, each block of one rate and about `_BLOCK_S` long."""
    pending: list[np.ndarray] = []
    n_pending = 0
    rate_hz = 0
    for frame_rate_hz, samples in chain(_fill_gaps(readers, mixer), ((0, _NOTHING),)):
        if pending and (frame_rate_hz != rate_hz or n_pending >= _BLOCK_S * rate_hz):
            yield rate_hz, np.concatenate(pending)
            pending, n_pending = [], 0
        rate_hz = frame_rate_hz
        pending.append(samples)
        n_pending += len(samples)


def _fill_gaps(readers: Iterator[Reader], mixer: Mixer | Stereo) -> Iterator[tuple[int, np.ndarray]]:
    """(native rate in Hz, float32 samples) of each frame, with silence for gaps."""
    played_s, silent_s = 0.0, 0.0
    for reader in readers:
        for frame in reader.frames():
            if frame.sample_rate not in _NATIVE_RATES_HZ:
                continue
            start_s = reader.tell(frame)
            gap_s = 0.0 if start_s is None else min(float(start_s) - played_s, MAX_HOLD_S - silent_s)
            if gap_s >= MIN_GAP_S:
                yield from _make_silence(frame.sample_rate, gap_s, mixer)
                played_s, silent_s = played_s + gap_s, silent_s + gap_s
            yield frame.sample_rate, mixer.mix(frame, played_s)
            played_s += frame.samples / frame.sample_rate
            reader.end_s = played_s


def _make_silence(rate_hz: int, duration_s: float, mixer: Mixer | Stereo) -> Iterator[tuple[int, np.ndarray]]:
    n = round(rate_hz * duration_s)
    for start in range(0, n, rate_hz):
        yield rate_hz, mixer.make_silence(min(rate_hz, n - start))
