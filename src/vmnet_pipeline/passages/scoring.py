"""Score the passages of a track for a segment of a video; every term of a score is kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.passages.tracks import ENERGY_HZ, FADE_DB

if TYPE_CHECKING:
    from vmnet_pipeline.params import PassageParams, PieceParams
    from vmnet_pipeline.passages.tracks import TrackStructure
    from vmnet_pipeline.passages.videos import VideoStructure
    from vmnet_pipeline.types import Array

NEAR_S = 0.12  # of a line that a time counts as being on
CUT_WIDTH_S = 0.06  # a cut this far from a beat counts 61 %
PHRASE_BARS = 4
GRID_S = 1.0  # distance of candidates where there are no bar lines
MAX_CANDIDATES = 4_000


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of the score of a passage; 0 where nothing is known.

    Attributes:
        agreement: Mean cosine of the pieces of the video with those of the passage at the same time, -1 to 1.
        start: 1 at the start of a section, 0.6 on a bar line, 0.3 on a beat, else 0.
        end: 1 at a fade, at the end of a section or after whole phrases of four bars; 0.5 on a bar line, else 0.
        energy: Correlation of loudness with motion, -1 to 1.
        cuts: Share of the cuts that fall on beats, beyond the share that any beats of that tempo would get; up to 1.
    """

    agreement: float = 0.0
    start: float = 0.0
    end: float = 0.0
    energy: float = 0.0
    cuts: float = 0.0


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a track for a segment of a video.

    Attributes:
        start_s: Where it begins in the track.
        end_s: Where it ends in the track; before the end of the segment, if the track is too short and has to repeat.
        video_start_s: Where the segment begins in the video.
        video_end_s: Where that ends.
        score: Weighted sum of the terms.
        terms: See `Terms`.
        repeats: Whether the music is shorter than the segment.
    """

    start_s: float
    end_s: float
    video_start_s: float
    video_end_s: float
    score: float
    terms: Terms
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """A track and a video, and the cosines of their pieces.

    Attributes:
        track: Structure of the track.
        video: Structure of the video.
        cosines: (m, n) of the m pieces of the video with the n pieces of the track.
        pieces: How both were cut.
    """

    track: TrackStructure
    video: VideoStructure
    cosines: Array
    pieces: PieceParams


def choose_passages(
    pair: Pair, params: PassageParams, segment: tuple[float, float] | None = None, top_k: int = 1
) -> list[Passage]:
    """The best passages of a track for a segment of the video, by default all of it; best first.

    Args:
        pair: Track and video.
        params: Weights of the terms.
        segment: Start and end in seconds.
        top_k: Most passages; later ones begin at least half a segment away from better ones.
    """
    span = segment or (0.0, pair.video.duration_s)
    ranked = sorted(
        (score_passage(pair, start, span, params) for start in list_starts(pair, span)), key=lambda p: -p.score
    )
    chosen: list[Passage] = []
    for passage in ranked:
        if all(abs(passage.start_s - other.start_s) >= (span[1] - span[0]) / 2 for other in chosen):
            chosen.append(passage)
        if len(chosen) == top_k:
            break
    return chosen


def list_starts(pair: Pair, span: tuple[float, float]) -> Array:
    """(k,) where passages may begin: bar lines and starts of sections from which the music is long enough, k >= 1."""
    track, length_s = pair.track, span[1] - span[0]
    last = track.end_s - length_s
    if last <= track.start_s:
        return np.array([_snap(track.start_s, track.bars_s)])
    lines = track.bars_s if len(track.bars_s) else np.arange(track.start_s, last, GRID_S)
    starts = np.unique(np.r_[track.sections_s, lines])
    starts = starts[(starts >= track.start_s - NEAR_S) & (starts <= last + NEAR_S)]
    if not len(starts):
        return np.array([track.start_s])
    return starts[:: -(-len(starts) // MAX_CANDIDATES)]


def _snap(time_s: float, lines: Array) -> float:
    """The first bar line at or soon after a time, else the time."""
    near = lines[(lines >= time_s - NEAR_S) & (lines <= time_s + 1.0)]
    return max(0.0, float(near[0])) if len(near) else time_s


def score_passage(pair: Pair, start_s: float, span: tuple[float, float], params: PassageParams) -> Passage:
    """Score the passage that begins at a time of the track."""
    length_s = span[1] - span[0]
    end_s = float(min(start_s + length_s, pair.track.end_s))
    terms = Terms(
        agreement=measure_agreement(pair, start_s, span),
        start=judge_start(pair.track, start_s),
        end=judge_end(pair.track, start_s, end_s),
        energy=correlate_energy(pair, start_s, span),
        cuts=match_cuts(pair, start_s, span),
    )
    score = sum(getattr(params, field.name) * getattr(terms, field.name) for field in fields(terms))
    repeats = bool(pair.track.end_s - start_s < length_s - NEAR_S)
    return Passage(float(start_s), float(end_s), span[0], span[1], float(score), terms, repeats)


def measure_agreement(pair: Pair, start_s: float, span: tuple[float, float]) -> float:
    """Mean cosine of the pieces of the segment with those of the passage, which lie between the track's own pieces."""
    m, n = pair.cosines.shape
    hop_s = pair.pieces.hop_s
    first = min(round(span[0] / hop_s), m - 1)
    # A piece that reaches far beyond the segment tells of something else.
    last = max(first + 1, min(m, round((span[1] - pair.pieces.window_s / 2) / hop_s) + 1))
    rows = np.arange(first, last)
    places = (start_s + rows * hop_s - span[0]) / hop_s
    inside = places <= n - 1 + 0.5
    if not inside.any():
        inside[0] = True
    rows, places = rows[inside], np.clip(places[inside], 0, n - 1)
    low = np.floor(places).astype(int)
    high, share = np.minimum(low + 1, n - 1), places - low
    return float(((1 - share) * pair.cosines[rows, low] + share * pair.cosines[rows, high]).mean())


def judge_start(track: TrackStructure, start_s: float) -> float:
    """See `Terms.start`."""
    if _is_near(start_s, track.sections_s):
        return 1.0
    return 0.6 if _is_near(start_s, track.bars_s) else 0.3 if _is_near(start_s, track.beats_s) else 0.0


def judge_end(track: TrackStructure, start_s: float, end_s: float) -> float:
    """See `Terms.end`."""
    if _is_near(end_s, track.sections_s) or end_s >= track.end_s - NEAR_S or _fades(track, end_s):
        return 1.0
    if not _is_near(end_s, track.bars_s):
        return 0.0
    n_bars = int(((track.bars_s > start_s + NEAR_S) & (track.bars_s <= end_s + NEAR_S)).sum())
    return 1.0 if n_bars and n_bars % PHRASE_BARS == 0 else 0.5


def _fades(track: TrackStructure, time_s: float) -> bool:
    """Whether the music is much softer after a time than before it."""
    k = round(time_s * ENERGY_HZ)
    before, after = track.energy_db[max(0, k - 4) : k], track.energy_db[k : k + 4]
    return bool(len(before) and len(after) and before.mean() - after.mean() > FADE_DB)


def _is_near(time_s: float, lines: Array) -> bool:
    return bool(len(lines)) and float(np.abs(lines - time_s).min()) <= NEAR_S


def correlate_energy(pair: Pair, start_s: float, span: tuple[float, float]) -> float:
    """Pearson correlation of loudness with motion, both smoothed over 2 s; 0 where one does not vary."""
    first, last = (round(time_s * ENERGY_HZ) for time_s in span)
    motion = pair.video.motion[first:last]
    loudness = pair.track.energy_db[round(start_s * ENERGY_HZ) :][: len(motion)]
    motion = motion[: len(loudness)]
    if len(motion) < 8:
        return 0.0
    kernel = np.full(4, 0.25)
    x, y = (np.convolve(curve, kernel, "valid") for curve in (motion, np.maximum(loudness, -60.0)))
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / scale if scale > 1e-6 * len(x) else 0.0


def match_cuts(pair: Pair, start_s: float, span: tuple[float, float]) -> float:
    """See `Terms.cuts`; 0 without cuts or beats."""
    cuts, beats = pair.video.cuts_s, pair.track.beats_s
    cuts = cuts[(cuts > span[0]) & (cuts < span[1])] - span[0] + start_s
    cuts = cuts[cuts <= pair.track.end_s]
    if not len(cuts) or len(beats) < 2:
        return 0.0
    nearest = np.abs(beats[np.clip(np.searchsorted(beats, cuts)[:, None] + [-1, 0], 0, len(beats) - 1)] - cuts[:, None])
    hit = float(np.exp(-0.5 * (nearest.min(axis=1) / CUT_WIDTH_S) ** 2).mean())
    chance = min(0.95, CUT_WIDTH_S * np.sqrt(2 * np.pi) / float(np.median(np.diff(beats))))
    return float((hit - chance) / (1 - chance))


def rank_by_pieces(video: Array, track: Array) -> float:
    """The greatest mean cosine of the pieces of a video with as many successive ones of a track: its whole-file score.

    Args:
        video: (m, E) unit rows.
        track: (n, E) unit rows.
    """
    cosines = video @ track.T
    m, n = cosines.shape
    if m > n:  # the music repeats
        cosines = np.tile(cosines, (1, -(-m // n)))[:, :m]
        n = m
    rows = np.arange(m)
    return float(max(cosines[rows, rows + shift].mean() for shift in range(n - m + 1)))


def describe_passage(passage: Passage) -> dict[str, object]:
    """Plain data of a passage: its times, score and `terms`."""
    content = asdict(passage)
    return {name: _round(value) for name, value in content.items()}


def _round(value: object) -> object:
    if isinstance(value, dict):
        return {name: _round(own) for name, own in value.items()}
    return round(value, 4) if isinstance(value, float) else value
