"""Thumbnails for the report: a JPEG frame, an MP3 clip."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.media.audio import decode_audio
from vmnet_pipeline.media.sandbox import Sandbox
from vmnet_pipeline.media.video import sample_frames
from vmnet_pipeline.params import LimitParams
from vmnet_pipeline.prefetch import run_ahead

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from vmnet_pipeline.types import Modality

PICTURE_PX = 144
CLIP_S = 4.0
LATEST_START_S = 10.0  # everything before has to be decoded
_SAMPLE_RATE_HZ = 22_050
_BIT_RATE = 32_000
_FADE_S = 0.02
_N_THREADS = 2
_LIMIT_S = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PreviewRequest:
    """One side of one item to show."""

    id: str
    modality: Modality
    path: str
    duration_s: float = 0.0  # length of that side; 0 where it is not known

    @property
    def start_s(self) -> float:
        """A third into the file, as beginnings are often dark and silent."""
        return min(self.duration_s / 3, LATEST_START_S)


def make_previews(requests: Sequence[PreviewRequest]) -> dict[tuple[Modality, str], bytes]:
    """Map (modality, id) to a JPEG or MP3 file, made in child processes; unreadable media are logged and skipped."""
    previews: dict[tuple[Modality, str], bytes] = {}
    with Sandbox(LimitParams.model_validate({"seconds": _LIMIT_S})) as sandbox:

        def make_preview(request: PreviewRequest) -> bytes:
            if request.modality == "video":
                return sandbox.call(make_picture, request.path, at_s=request.start_s)
            return sandbox.call(cut_clip, request.path, start_s=request.start_s)

        for request, result in zip(requests, run_ahead(make_preview, requests, _N_THREADS), strict=True):
            try:
                previews[request.modality, request.id] = result()
            except MediaError as error:
                logger.warning("No thumbnail for item %s: %s", request.id, error)
    return previews


def make_picture(path: str | os.PathLike[str], *, at_s: float = 0.0, max_side_px: int = PICTURE_PX) -> bytes:
    """Make a small JPEG of the frame at a time; of a shorter video the first one.

    Args:
        max_side_px: The longer side of the result; nothing is enlarged.

    Raises:
        MediaError: Reasons of `video.sample_frames`.
    """
    from PIL import Image

    frames = sample_frames(path, rate_hz=1 / at_s if at_s else 1.0, max_duration_s=None, max_frames=2 if at_s else 1)
    picture = Image.fromarray([frame for _, frame in frames][-1])
    picture.thumbnail((max_side_px, max_side_px))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=75)
    return file.getvalue()


def cut_clip(path: str | os.PathLike[str], *, start_s: float = 0.0, duration_s: float = CLIP_S) -> bytes:
    """Cut a few seconds of mono audio, of a shorter file the end, to an MP3 file.

    Args:
        duration_s: Its length, > 0; four seconds take 16 kB.

    Raises:
        MediaError: Reasons of `audio.decode_audio`.
    """
    signal = decode_audio(path, sample_rate_hz=_SAMPLE_RATE_HZ, max_duration_s=start_s + duration_s)
    clip = np.clip(signal[-round(duration_s * _SAMPLE_RATE_HZ) :], -1.0, 1.0)
    ramp = np.linspace(0.0, 1.0, min(round(_FADE_S * _SAMPLE_RATE_HZ), len(clip)), dtype=np.float32)
    clip[: len(ramp)] *= ramp
    clip[len(clip) - len(ramp) :] *= ramp[::-1]
    return _encode_mp3(clip)


def _encode_mp3(signal: np.ndarray) -> bytes:
    """A mono signal, (n,) float32 in [-1, 1] at 22,050 Hz, as an MP3 file, which every browser plays."""
    import av
    from av.codec.context import Flags

    file = io.BytesIO()
    with av.open(file, "w", format="mp3", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libmp3lame", rate=_SAMPLE_RATE_HZ, layout="mono", format="fltp")
        stream.codec_context.bit_rate = _BIT_RATE
        stream.codec_context.flags |= Flags.bitexact
        frame = av.AudioFrame.from_ndarray(signal[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = _SAMPLE_RATE_HZ
        frame.pts = 0
        for packets in (stream.encode(frame), stream.encode(None)):
            container.mux(packets)
    return file.getvalue()
