"""What the process does that reads the files: analyse, then write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmnet_pipeline.soundtrack.encoding import Encoder, Output
from vmnet_pipeline.soundtrack.extend import Track
from vmnet_pipeline.soundtrack.mix import Plan, mix
from vmnet_pipeline.soundtrack.muxing import write_film
from vmnet_pipeline.soundtrack.signals import Sound, watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmnet_pipeline.params import MixParams


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        loudness_lufs: Of the sound as it is decoded again.
        true_peak_dbtp: The same.
        warnings: What was left out.
    """

    loudness_lufs: float
    true_peak_dbtp: float
    warnings: list[str]


def write(
    video: str,
    music: str,
    *,
    plan: Plan,
    params: MixParams,
    file_format: str,
    codec: str,
    progress: Callable[[float], None],
    descriptor: int,
) -> Written:
    """Mix and write into an open, empty file.

    Raises:
        MediaError: The frames cannot be copied to this format.
        OSError: The file cannot be written.
    """
    track, encoder = Track(Sound(music)), Encoder(codec, params.bitrate_kbps)
    if len(plan.pieces) > 1:
        track.keep_short()
    blocks = watch(mix(plan, video, track, params), lambda n: progress(n / plan.n_samples))
    warnings = write_film(video, plan.film, blocks, Output(descriptor), file_format=file_format, encoder=encoder)
    return Written(*encoder.measure(), warnings)
