"""Sound of any media file as one mono signal of a given sample rate."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.errors import MediaError, ParameterError
from vmnet_pipeline.media.clock import MAX_HOLD_S
from vmnet_pipeline.media.container import find_audio_stream
from vmnet_pipeline.media.parts import open_parts
from vmnet_pipeline.media.reading import MIN_GAP_S, Reader

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import soxr
    from av.audio.frame import AudioFrame

# Integer formats: offset of silence and full scale. Float formats are taken as they are.
_INTEGER_SCALES = {"u8": (128.0, 2.0**7), "s16": (0.0, 2.0**15), "s32": (0.0, 2.0**31), "s64": (0.0, 2.0**63)}
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
# From 8 planes on, PyAV (18.1) takes the memory behind FFmpeg's list of planes for planes, too.
_MAX_PLANES = 7
# Sound goes to the resampler in blocks of about this length: long enough that the calls cost nothing,
# short enough that little is decoded beyond the window.
_BLOCK_S = 0.25
# Sample rates outside this range stem from damaged headers, and would have the resampler allocate gigabytes.
_NATIVE_RATES_HZ = range(1_000, 1_000_001)
_NOTHING = np.empty(0, np.float32)


def decode_audio(
    path: str | os.PathLike[str],
    *,
    sample_rate_hz: int,
    max_duration_s: float | None = None,
    warnings: list[str] | None = None,
) -> np.ndarray:
    """Decode the beginning of a file's sound to mono.

    All channels are averaged with equal weight at the native rate, then resampled with soxr HQ; sound
    that has the wanted rate already passes unchanged. The resampler works on the running stream and
    decoding ends as soon as the window is full, so the result is exactly the beginning of what the
    whole file would give. Encoder delay that the file declares (AAC, MP3, Opus) is cut off.

    Time counts from the first instant of the file, be it of audio or of frames, as in `video.sample_frames`.
    Silence stands where the audio begins later or has a gap of 0.1 s and more, be it damaged or left out; a clock
    that jumps is bridged (`media.clock`).

    Args:
        path: A media file; sound of a film will do.
        sample_rate_hz: Wanted sample rate, > 0.
        max_duration_s: Length of the window in seconds; None for everything.
        warnings: Takes a sentence on everything that could not be read as the file has it.

    Returns:
        (n,) float32, finite, nominally in [-1, 1] (not clipped), n >= 1 and at most
        `round(max_duration_s * sample_rate_hz)`.

    Raises:
        MediaError: Reasons of `open_media_file` and `start_container`, `no_audio_stream`, or `undecodable_audio`
            when no sample decodes (at a rate between 1 kHz and 1 MHz), or a sample is not a finite number.
        ParameterError: A rate or a duration that is not positive.
    """
    n_wanted = _count_wanted(sample_rate_hz, max_duration_s)
    with open_parts(path) as parts:
        blocks = _collect_blocks(_resample_blocks(parts.read_side(find_audio_stream), sample_rate_hz), n_wanted)
        if parts.reader is None:
            raise MediaError("no_audio_stream", f"{path}: has no sound; give another file for the audio side")
        if not blocks:
            raise MediaError("undecodable_audio", f"{path}: its sound cannot be decoded; convert or replace the file")
        signal = np.concatenate(blocks)[:n_wanted]
        if warnings is not None:
            warnings += parts.describe_losses()
    if not np.isfinite(signal).all():
        message = f"{path}: its sound holds samples that are no finite numbers; export the file again"
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


def _resample_blocks(readers: Iterator[Reader], sample_rate_hz: int) -> Iterator[np.ndarray]:
    """Blocks of mono sound at the wanted rate; a stream that changes its rate midway gets a new resampler there."""
    current_hz = 0
    resampler = None
    for rate_hz, block in _mix_blocks(readers):
        if rate_hz != current_hz:
            if resampler is not None:
                yield resampler.resample_chunk(_NOTHING, last=True)
            current_hz = rate_hz
            resampler = _make_resampler(rate_hz, sample_rate_hz)
        yield block if resampler is None else resampler.resample_chunk(block)
    if resampler is not None:
        yield resampler.resample_chunk(_NOTHING, last=True)


def _make_resampler(from_hz: int, to_hz: int) -> soxr.ResampleStream | None:
    import soxr

    return None if from_hz == to_hz else soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality="HQ")


def _mix_blocks(readers: Iterator[Reader]) -> Iterator[tuple[int, np.ndarray]]:
    """(native rate in Hz, (n,) float32 mono block) pairs, each block of one rate and about `_BLOCK_S` long."""
    pending: list[np.ndarray] = []
    n_pending = 0
    rate_hz = 0
    for frame_rate_hz, samples in chain(_fill_gaps(readers), ((0, _NOTHING),)):
        if pending and (frame_rate_hz != rate_hz or n_pending >= _BLOCK_S * rate_hz):
            yield rate_hz, np.concatenate(pending)
            pending, n_pending = [], 0
        rate_hz = frame_rate_hz
        pending.append(samples)
        n_pending += len(samples)


def _fill_gaps(readers: Iterator[Reader]) -> Iterator[tuple[int, np.ndarray]]:
    """(native rate in Hz, (n,) float32 mono samples) of each frame, and silence where the next one is not due yet."""
    played_s, silent_s = 0.0, 0.0
    for reader in readers:
        for frame in reader.frames():
            if frame.sample_rate not in _NATIVE_RATES_HZ:
                continue
            start_s = reader.tell(frame)
            gap_s = 0.0 if start_s is None else min(float(start_s) - played_s, MAX_HOLD_S - silent_s)
            if gap_s >= MIN_GAP_S:
                yield from _make_silence(frame.sample_rate, gap_s)
                played_s, silent_s = played_s + gap_s, silent_s + gap_s
            yield frame.sample_rate, _mix_frame(frame)
            played_s += frame.samples / frame.sample_rate
            reader.end_s = played_s


def _make_silence(rate_hz: int, duration_s: float) -> Iterator[tuple[int, np.ndarray]]:
    n = round(rate_hz * duration_s)
    for start in range(0, n, rate_hz):
        yield rate_hz, np.zeros(min(rate_hz, n - start), np.float32)


def _mix_frame(frame: AudioFrame) -> np.ndarray:
    """Mean of the channels of one decoded frame, (n,) float32, integer formats scaled to [-1, 1)."""
    channels = _view_channels(frame)
    mixed: np.ndarray = channels[0].astype(np.float32)
    for channel in channels[1:]:
        mixed += channel
    offset, full_scale = _INTEGER_SCALES.get(frame.format.packed.name, (0.0, 1.0))
    if offset:
        mixed -= np.float32(offset * len(channels))
    mixed *= np.float32(1.0 / (full_scale * len(channels)))
    return mixed


def _view_channels(frame: AudioFrame) -> list[np.ndarray]:
    """One (n,) view of the decoder's memory per channel, in the native sample format."""
    dtype = np.dtype(_DTYPES[frame.format.packed.name])
    n_channels = frame.layout.nb_channels
    if frame.format.is_planar and n_channels <= _MAX_PLANES:
        planes: list[Any] = list(frame.planes)
        return [np.frombuffer(plane, dtype, count=frame.samples) for plane in planes[:n_channels]]
    packed: Any = _pack_frame(frame).planes[0] if frame.format.is_planar else frame.planes[0]
    samples = np.frombuffer(packed, dtype, count=frame.samples * n_channels)
    return [samples[k::n_channels] for k in range(n_channels)]


def _pack_frame(frame: AudioFrame) -> AudioFrame:
    """The same samples, channels interleaved in one plane."""
    import av

    repacker = av.AudioResampler(format=frame.format.packed.name, layout=frame.layout, rate=frame.sample_rate)
    packed: list[AudioFrame] = repacker.resample(frame)
    return packed[0]
