"""Render a video with music: the one call behind the command, the page and `kedro soundtrack`."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import ParameterError, StorageError
from vmnet_pipeline.params import LimitParams, MixParams
from vmnet_pipeline.soundtrack.confined import ConfinedProcess
from vmnet_pipeline.soundtrack.loudness import SILENCE_LUFS
from vmnet_pipeline.soundtrack.mix import Plan, analyse
from vmnet_pipeline.soundtrack.muxing import FORMATS, check_format
from vmnet_pipeline.soundtrack.signals import RATE_HZ
from vmnet_pipeline.soundtrack.tasks import Written, write
from vmnet_pipeline.storage.atomic import replace_atomically
from vmnet_pipeline.storage.paths import as_path, is_remote

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

_ATTEMPTS = 3
_CLOSE_LU = 0.5
_CORRECTED_LU = 0.25
_SPARE_BYTES = 16 << 20
_ANALYSIS_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of the music, and where it plays.

    Attributes:
        start_s: Its begin in the track.
        end_s: Its end in the track.
        at_s: Where it begins in the video.
        overlap_s: How long it is crossfaded with the passage before.
    """

    start_s: float
    end_s: float
    at_s: float
    overlap_s: float


@dataclass(frozen=True, slots=True)
class RenderReport:
    """What was rendered.

    Attributes:
        output: The file.
        video: Its source of frames.
        music: Its source of music.
        duration_s: Length of its sound, from the first instant of the video on.
        frame_rate_hz: Average rate of its frames; 0 if unknown.
        video_codec: Of the frames, which are copied.
        audio_codec: Of the sound: `aac` or `opus`.
        passages: Parts of the music that are played, in order.
        fade_in_s: Fade-in of the music.
        fade_out_s: Fade-out of the music.
        own_sound: What became of the video's own sound: `duck`, `keep`, `mute`, or `none` where it has none.
        speech: Where speech was found in it, as (begin, end) in seconds.
        duck_depth_db: How much lower the music is there.
        music_gain_db: Gain of the music in all, without ducking.
        own_gain_db: Gain of the own sound in all.
        loudness_lufs: Integrated loudness of the sound as written.
        true_peak_dbtp: True peak of the sound as written.
        warnings: What the user should know.
    """

    output: str
    video: str
    music: str
    duration_s: float
    frame_rate_hz: float
    video_codec: str
    audio_codec: str
    passages: list[Passage]
    fade_in_s: float
    fade_out_s: float
    own_sound: str
    speech: list[tuple[float, float]]
    duck_depth_db: float
    music_gain_db: float
    own_gain_db: float
    loudness_lufs: float
    true_peak_dbtp: float
    warnings: list[str] = field(default_factory=list)


def render(
    video: str | os.PathLike[str],
    music: str | os.PathLike[str],
    *,
    start_s: float = 0.0,
    output: str | os.PathLike[str],
    settings: MixParams | None = None,
    bars_s: Sequence[float] = (),
    overwrite: bool = False,
    limits: LimitParams | None = None,
    progress: Callable[[float], None] | None = None,
) -> RenderReport:
    """Put music under a video: its frames are copied untouched, next to a new sound.

    Time zero is the first instant of the video, of frames or of audio, as for `media.audio` and `media.video`. The
    file appears under its name when it is complete, or not at all.

    Args:
        video: A file with moving frames.
        music: A file with sound.
        start_s: Where in the music to begin.
        output: A .mp4, .m4v, .mov, .mkv or .webm file.
        settings: How to mix.
        bars_s: Times at which bars of the music begin, for music that is shorter than the video.
        overwrite: Whether `output` may exist.
        limits: Of the process that reads the files; of them `memory_mb` counts, and `settings.stall_s`.
        progress: Gets the share that is done, from 0 to 1.

    Raises:
        MediaError: A file cannot be used; reasons of `mix.analyse` and `muxing.write_film`, `unfit_format`.
        ParameterError: `start_s`, `bars_s` or the name of the output cannot be used.
        StorageError: The output exists, or its disk is full or cannot be written.
        SandboxError: The process that reads the files cannot be started.
    """
    settings, target = settings or MixParams.model_validate({}), as_path(str(output))
    memory_mb = (limits or LimitParams.model_validate({})).memory_mb
    tell = _Growth(progress or (lambda share: None))
    file_format = _check_target(target, (video, music), start_s, overwrite=overwrite)
    if not all(math.isfinite(bar_s) for bar_s in bars_s):
        raise ParameterError("bars_s: a time that is not finite; give times in seconds")
    with ConfinedProcess([str(video), str(music)], memory_mb, settings.stall_s) as process:
        plan = process.call(
            analyse,
            start_s=start_s,
            bars_s=[float(bar_s) for bar_s in bars_s],
            params=settings,
            progress=lambda share: tell(_ANALYSIS_SHARE * share),
        )
        check_format(str(target), file_format, plan.film.codec)
        codec = _choose_codec(settings, file_format)
        _check_space(target, plan, settings)
        plan, written = _write(process, target, plan, settings, file_format, codec, tell)
        tell(1.0)
    return _report(str(target), str(video), str(music), plan, written, settings, codec)


class _Growth:
    """Tells of a share when it grows: what is written again does not begin again."""

    def __init__(self, progress: Callable[[float], None]) -> None:
        self._progress, self._told = progress, 0.0

    def __call__(self, share: float) -> None:
        if share > self._told:
            self._told = share
            self._progress(share)


def choose_output(video: str | os.PathLike[str], folder: str | os.PathLike[str] = ".") -> Path:
    """A name for the result: that of the video with `-soundtrack`, in its format if that can be written."""
    name = Path(str(video).rpartition("/")[2] if is_remote(str(video)) else video)
    suffix = name.suffix if name.suffix.lower() in FORMATS else ".mkv"
    return Path(folder) / f"{name.stem}-soundtrack{suffix}"


def _check_target(target: Path, sources: Sequence[str | os.PathLike[str]], start_s: float, *, overwrite: bool) -> str:
    if not 0 <= start_s < 1e6:
        raise ParameterError(f"start_s={start_s}: must be a time in the music, in seconds from its begin")
    file_format = FORMATS.get(target.suffix.lower())
    if file_format is None:
        raise ParameterError(f"{target}: give the result one of the suffixes {', '.join(FORMATS)}")
    if target.is_dir():
        raise ParameterError(f"{target}: a folder; give the name of a file")
    if target.exists():
        if any(not is_remote(str(source)) and _is_same(target, source) for source in sources):
            raise ParameterError(f"{target}: is one of the files to read; choose another name for the result")
        if not overwrite:
            raise StorageError(f"{target} exists; choose another name, or allow to replace it (--force)")
    return file_format


def _is_same(target: Path, source: str | os.PathLike[str]) -> bool:
    return Path(source).exists() and target.samefile(source)


def _choose_codec(settings: MixParams, file_format: str) -> str:
    if settings.codec == "auto":
        return "opus" if file_format == "webm" else "aac"
    if (file_format, settings.codec) in (("webm", "aac"), ("mov", "opus")):
        raise ParameterError(f"codec={settings.codec}: {file_format} cannot hold it; leave codec on auto")
    return settings.codec


def _check_space(target: Path, plan: Plan, settings: MixParams) -> None:
    """Check that the disk has room, before anything is written.

    Raises:
        StorageError: It has not.
    """
    if is_remote(target):
        return
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    n_sound = plan.n_samples / RATE_HZ * settings.bitrate_kbps * 125
    needed = round(1.02 * (plan.film.n_bytes + n_sound)) + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"{target}: needs about {needed >> 20:,} MB, its disk has {free >> 20:,} MB left; free some space, or "
            "choose another place"
        )


def _write(
    process: ConfinedProcess,
    target: Path,
    plan: Plan,
    settings: MixParams,
    file_format: str,
    codec: str,
    tell: Callable[[float], None],
) -> tuple[Plan, Written]:
    """Write, and again if the codec has changed the loudness or moved a peak beyond the limit."""
    try:
        with replace_atomically(target, durable=True) as temporary:
            for attempt in range(_ATTEMPTS):
                with temporary.open("wb") as file:
                    written = process.call(
                        write,
                        output=file.fileno(),
                        plan=plan,
                        params=settings,
                        file_format=file_format,
                        codec=codec,
                        progress=lambda share: tell(_ANALYSIS_SHARE + (1 - _ANALYSIS_SHARE) * share),
                    )
                corrected = _correct(plan, written, settings)
                if corrected is None or attempt == _ATTEMPTS - 1:
                    break
                plan = corrected
    except OSError as error:
        raise StorageError(
            f"{target}: cannot be written ({error.strerror or error}); nothing is left under that name. Free some "
            "space or choose another place, and run again"
        ) from error
    return plan, written


def _correct(plan: Plan, written: Written, settings: MixParams) -> Plan | None:
    """The plan with gain and ceiling corrected by what was measured; None if nothing needs it."""
    excess_db = written.true_peak_dbtp - settings.true_peak_dbtp
    missing_lu = settings.loudness_lufs - written.loudness_lufs
    is_off = abs(missing_lu) > _CORRECTED_LU and written.loudness_lufs > SILENCE_LUFS
    if excess_db <= 0 and not is_off:
        return None
    return replace(
        plan,
        gain_db=plan.gain_db + (missing_lu if is_off else 0.0),
        ceiling_dbtp=plan.ceiling_dbtp - (excess_db + 0.05 if excess_db > 0 else 0.0),
    )


def _report(
    output: str, video: str, music: str, plan: Plan, written: Written, settings: MixParams, codec: str
) -> RenderReport:
    duration_s, warnings = plan.n_samples / RATE_HZ, [*plan.warnings, *written.warnings]
    off_lu = written.loudness_lufs - settings.loudness_lufs
    if abs(off_lu) > _CLOSE_LU:
        warnings.append(f"the result has {written.loudness_lufs:.1f} LUFS, not {settings.loudness_lufs:.1f} LUFS")
    if written.true_peak_dbtp > settings.true_peak_dbtp:
        warnings.append(f"the true peak is {written.true_peak_dbtp:.1f} dBTP, not {settings.true_peak_dbtp:.1f} dBTP")
    return RenderReport(
        output=output,
        video=video,
        music=music,
        duration_s=duration_s,
        frame_rate_hz=plan.film.frame_rate_hz,
        video_codec=plan.film.codec,
        audio_codec=codec,
        passages=_list_passages(plan),
        fade_in_s=min(settings.fade_in_s, duration_s / 2),
        fade_out_s=min(settings.fade_out_s, duration_s / 2),
        own_sound=plan.own_sound,
        speech=list(plan.speech or []),
        duck_depth_db=settings.duck_depth_db,
        music_gain_db=plan.music_gain_db + plan.gain_db,
        own_gain_db=plan.own_gain_db + plan.gain_db,
        loudness_lufs=written.loudness_lufs,
        true_peak_dbtp=written.true_peak_dbtp,
        warnings=warnings,
    )


def _list_passages(plan: Plan) -> list[Passage]:
    passages, at = list[Passage](), 0
    for piece in plan.pieces:
        at -= piece.overlap
        places = (piece.start, piece.end, at, piece.overlap)
        passages.append(Passage(*(place / RATE_HZ for place in places)))
        at += piece.end - piece.start
    return passages
