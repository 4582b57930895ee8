"""Parameters of the encoders."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from vmnet_pipeline.backends.engine import BackendParams


class EncoderParams(BackendParams):
    """Parameters of every encoder; what is left out is that of the preset."""

    never_recalled: ClassVar[frozenset[str]] = frozenset({"allow_remote_code"})

    model: str = Field("", description="Folder of a model, or OWNER/NAME of the hub. Default: that of the preset.")
    revision: str = Field(
        "", pattern=r"^[\w.-]{0,64}$", description="Commit on the hub, 40 digits; of a folder what you call it."
    )
    layer: int = Field(-1, description="Layer of wav2vec2, HuBERT, MERT and the like; -1 is the last.")
    licence: str = Field("", max_length=100, description="Of the weights, where their folder does not name it.")
    allow_noncommercial: bool = Field(False, description="Accept weights that are not for commercial use.")
    allow_remote_code: str = Field(
        "", description="Run the Python code of a model, of the revision that is named here; default: never."
    )
    overlap: float = Field(0.0, ge=0, le=0.9, description="Share of a window that the next one repeats.")


class AudioEncoderParams(EncoderParams):
    """Parameters of encoders of audio."""

    window_s: float | None = Field(None, gt=0.0, le=600, description="Seconds of audio per entry.")
    max_duration_s: float = Field(300.0, gt=0, le=36_000, description="Length of the window; later audio is ignored.")


class FrameEncoderParams(EncoderParams):
    """Parameters of encoders of single frames."""

    rate_hz: float | None = Field(None, gt=0, le=240, description="Frames taken per second of video.")
    max_duration_s: float = Field(60.0, gt=0, le=36_000, description="Length of the window; later video is ignored.")


class ClipEncoderParams(FrameEncoderParams):
    """Parameters of encoders of clips."""

    n_frames: int | None = Field(None, ge=1, le=512, description="Frames per clip.")
