"""How music is mixed under a video."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vmnet_pipeline.params.base import Params, Share


class MixParams(Params):
    """How music is mixed under a video; `kedro render` takes these as `--set NAME=VALUE`."""

    own_sound: Literal["duck", "keep", "mute"] = Field(
        "duck", description="The video's own sound: `duck` keeps it and lowers the music under speech."
    )
    loudness_lufs: float = Field(
        -14.0, ge=-40.0, le=-5.0, description="Integrated loudness of the result (ITU-R BS.1770), in LUFS."
    )
    true_peak_dbtp: float = Field(
        -1.0, ge=-20.0, le=0.0, description="Highest true peak of the result; a limiter keeps to it, in dBTP."
    )
    music_gain_db: float = Field(
        0.0, ge=-40.0, le=20.0, description="Music against `loudness_lufs`, before it is mixed with the own sound."
    )
    own_max_gain_db: float = Field(
        12.0, ge=0.0, le=40.0, description="The own sound is moved toward `loudness_lufs` by at most this; 0: not."
    )
    duck_depth_db: float = Field(15.0, ge=0.0, le=60.0, description="How much lower the music is under speech.")
    duck_attack_s: float = Field(0.25, ge=0.01, le=10.0, description="Time to lower the music, before speech begins.")
    duck_release_s: float = Field(0.8, ge=0.01, le=10.0, description="Time to raise it again, after speech has ended.")
    speech_threshold: Share = Field(0.5, description="Probability from which 32 ms of the own sound are speech.")
    fade_in_s: float = Field(0.1, ge=0.0, le=60.0, description="Fade-in of the music, equal in power.")
    fade_out_s: float = Field(2.0, ge=0.0, le=60.0, description="Fade-out at the end; at most half of the video.")
    crossfade_s: float = Field(
        2.0, ge=0.005, le=30.0, description="Where music without known bars begins again; at bar lines: 30 ms."
    )
    codec: Literal["auto", "aac", "opus"] = Field("auto", description="Of the sound; `auto`: Opus in WebM, else AAC.")
    bitrate_kbps: int = Field(192, ge=32, le=512, description="Of the sound, two channels at 48 kHz.")
    max_hours: float = Field(12.0, gt=0.0, le=100.0, description="A longer video is refused as `too_long`.")
    stall_s: float = Field(300.0, gt=0.0, description="Reading or writing ends if it does not go on for this long.")
