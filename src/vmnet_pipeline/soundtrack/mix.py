"""Mix the music with a video's own sound: measure first, then give out the samples. Runs where files are decoded."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.soundtrack.ducking import Duck, Span, SpeechFinder, load_detector
from vmnet_pipeline.soundtrack.extend import Piece, Track, plan_pieces
from vmnet_pipeline.soundtrack.fades import fade
from vmnet_pipeline.soundtrack.limiter import limit
from vmnet_pipeline.soundtrack.loudness import SILENCE_LUFS, LoudnessMeter, to_gain
from vmnet_pipeline.soundtrack.muxing import Film, survey_film
from vmnet_pipeline.soundtrack.signals import RATE_HZ, Sound, rechunk, shift, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np

    from vmnet_pipeline.params import MixParams

CODEC_MARGIN_DB = 0.5
"""Kept free under the true peak, since a codec that loses detail moves peaks."""

_ROUNDS = 6
_CLOSE_LU = 0.15
# The more the limiter does, the less a gain helps.
_LEAST_SLOPE = 0.15


@dataclass(frozen=True, slots=True)
class Plan:
    """What is mixed, and how: all that was measured.

    Attributes:
        film: What the video holds.
        n_samples: Length of the result at `RATE_HZ`.
        pieces: Passages of the music.
        own_sound: What becomes of the video's own sound: `duck`, `keep`, `mute`, or `none` where it has none.
        own_delay: Samples by which it begins after the first instant of the video.
        speech: Where there is speech in it; None if nobody listened.
        own_gain_db: Its gain.
        music_gain_db: That of the music, before ducking.
        gain_db: That of the mix.
        ceiling_dbtp: Of the limiter behind it.
        warnings: What the user should know.
    """

    film: Film
    n_samples: int
    pieces: list[Piece]
    own_sound: str
    own_delay: int = 0
    speech: list[Span] | None = None
    own_gain_db: float = 0.0
    music_gain_db: float = 0.0
    gain_db: float = 0.0
    ceiling_dbtp: float = -1.0
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Own:
    """The video's own sound, as heard once."""

    n_samples: int
    loudness_lufs: float
    delay: int
    speech: list[Span] | None
    warnings: list[str]


def analyse(
    video: str,
    music: str,
    *,
    start_s: float,
    bars_s: list[float],
    params: MixParams,
    progress: Callable[[float], None],
) -> Plan:
    """Read both files once, and the mix until its loudness is right.

    Raises:
        MediaError: One of them cannot be used.
        ParameterError: The music ends before `start_s`.
    """
    film = survey_film(video, params.max_hours * 3600, lambda share: progress(0.2 * share))
    own = None if params.own_sound == "mute" or not film.has_sound else _hear_own(video, film, params, progress)
    n_samples = max(1, round(film.duration_s * RATE_HZ), (own.n_samples + own.delay) if own else 0)
    sound = Sound(music)
    start, track = round(start_s * RATE_HZ), Track(sound)
    bars = [round(bar_s * RATE_HZ) for bar_s in bars_s]
    n_track = track.count(max(start + n_samples, RATE_HZ), lambda share: progress(0.35 + 0.05 * share))
    pieces, remark = plan_pieces(start, n_samples, n_track, bars, round(params.crossfade_s * RATE_HZ), music)
    warnings = [*film.warnings, *(own.warnings if own else []), *(f"music: {loss}" for loss in sound.warnings)]
    name = params.own_sound if own is not None or params.own_sound == "mute" else "none"
    plan = Plan(film, n_samples, pieces, name, warnings=[*warnings, *filter(None, [remark])])
    if own is not None:
        gain_db = _limit_gain(params.loudness_lufs - own.loudness_lufs, own.loudness_lufs, params.own_max_gain_db)
        plan = replace(plan, own_delay=own.delay, speech=own.speech, own_gain_db=gain_db)
    return _settle(plan, video, track, params, lambda share: progress(0.4 + 0.6 * share))


def _limit_gain(wanted_db: float, loudness_lufs: float, most_db: float) -> float:
    """Silence is not amplified."""
    return 0.0 if loudness_lufs <= SILENCE_LUFS else min(most_db, max(-most_db, wanted_db))


def _hear_own(video: str, film: Film, params: MixParams, progress: Callable[[float], None]) -> _Own | None:
    """Measure the own sound and find speech in it; None, with a warning in the film, if it cannot be decoded."""
    meter, finder, warnings = LoudnessMeter(), None, list[str]()
    if params.own_sound == "duck":
        try:
            finder = SpeechFinder(params.speech_threshold, load_detector())
        except (ImportError, OSError, RuntimeError) as error:
            warnings.append(f"speech cannot be found ({error}); the music is lowered under the whole of the own sound")
    sound, n = Sound(video, joined=False), 0
    most = round(params.max_hours * 3600 * RATE_HZ)
    total = max(1, round(film.duration_s * RATE_HZ))
    try:
        for block in watch(sound.blocks(), lambda n: progress(0.2 + 0.15 * min(1.0, n / total))):
            n = min(most, n + len(block))
            meter.add(block)
            if finder is not None:
                finder.add(block)
    except MediaError as error:
        if error.reason not in ("undecodable_audio", "no_audio_stream"):
            raise
        film.warnings.append(f"its own sound cannot be used: {error}")
        return None
    delay = 0 if sound.origin_s is None else round((sound.origin_s - film.origin_s) * RATE_HZ)
    whole = [(0.0, (n + delay) / RATE_HZ)] if params.own_sound == "duck" else None
    speech = whole if finder is None else _move(finder.finish(), delay / RATE_HZ)
    return _Own(n, meter.measure(), delay, speech, [*warnings, *(f"own sound: {loss}" for loss in sound.warnings)])


def _move(spans: list[Span], by_s: float) -> list[Span]:
    return [(begin + by_s, end + by_s) for begin, end in spans]


def _settle(plan: Plan, video: str, track: Track, params: MixParams, progress: Callable[[float], None]) -> Plan:
    """Set the gains: that of the music by its own loudness, that of the mix until it is as loud as wanted."""
    n = plan.n_samples * (_ROUNDS + 1)
    heard = _listen(watch(_play(plan, track, params), _Share(progress, 0, n)))
    if heard <= SILENCE_LUFS:
        plan.warnings.append("the chosen part of the music is silent")
    else:
        plan = replace(plan, music_gain_db=params.loudness_lufs + params.music_gain_db - heard)
    plan = replace(plan, ceiling_dbtp=params.true_peak_dbtp - CODEC_MARGIN_DB)
    if plan.own_sound in ("none", "mute"):
        plan = replace(plan, gain_db=-params.music_gain_db)
    before: tuple[float, float] | None = None
    for k in range(_ROUNDS):
        done = (k + 1) * plan.n_samples
        heard = _listen(watch(mix(plan, video, track, params), _Share(progress, done, n)))
        missing_lu = params.loudness_lufs - heard
        if heard <= SILENCE_LUFS or abs(missing_lu) <= _CLOSE_LU:
            break
        slope = 1.0 if before is None else (heard - before[1]) / (plan.gain_db - before[0])
        before = plan.gain_db, heard
        plan = replace(plan, gain_db=plan.gain_db + missing_lu / min(1.0, max(_LEAST_SLOPE, slope)))
    progress(1.0)
    return plan


@dataclass(frozen=True, slots=True)
class _Share:
    """Tells of the progress of one of several steps."""

    progress: Callable[[float], None]
    done: int
    total: int

    def __call__(self, n: int) -> None:
        self.progress((self.done + n) / self.total)


def _listen(blocks: Iterable[np.ndarray]) -> float:
    meter = LoudnessMeter()
    for block in blocks:
        meter.add(block)
    return meter.measure()


def _play(plan: Plan, track: Track, params: MixParams) -> Iterator[np.ndarray]:
    """The music as it is cut and faded, at its own level."""
    fades = (round(params.fade_in_s * RATE_HZ), round(params.fade_out_s * RATE_HZ))
    return fade(rechunk(track.play(plan.pieces), plan.n_samples), plan.n_samples, *fades)


def mix(plan: Plan, video: str, track: Track, params: MixParams) -> Iterator[np.ndarray]:
    """The samples of the result: (n, 2) float32 blocks at `RATE_HZ`."""
    duck = Duck(plan.speech or [], params.duck_depth_db, params.duck_attack_s, params.duck_release_s)
    music = duck.apply(block * _factor(plan.music_gain_db) for block in _play(plan, track, params))
    return limit(_add_own(music, plan, video), plan.gain_db, plan.ceiling_dbtp)


def _factor(decibels: float) -> np.float32:
    import numpy as np

    return np.float32(to_gain(decibels))


def _add_own(music: Iterator[np.ndarray], plan: Plan, video: str) -> Iterator[np.ndarray]:
    if plan.own_sound in ("none", "mute"):
        yield from music
        return
    gain = _factor(plan.own_gain_db)
    own = rechunk(shift(Sound(video, joined=False).blocks(), plan.own_delay), plan.n_samples)
    for ours, theirs in zip(music, own, strict=True):
        yield ours + theirs * gain
