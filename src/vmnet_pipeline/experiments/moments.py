"""Which moment of which track goes with a video: lists of the public benchmark MGSV-EC, its metrics, and its priors.

A list is a csv file with a row per video: `video_id`, `music_id`, `video_start`, `video_end`, `music_start`,
`music_end`, `music_total_duration`; further columns are ignored.

Source: Z. Xin et al., Music Grounding by Short Video (ICCV 2025).
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.errors import IngestError, ParameterError
from vmnet_pipeline.ingestion.tables import iterate_csv_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import TypeAlias

    Span: TypeAlias = tuple[float, float]
    Predict: TypeAlias = Callable[["Moment"], Span]

COLUMNS = (
    "video_id", "music_id", "video_start", "video_end", "music_start", "music_end", "music_total_duration",
)  # fmt: skip
IOU_LEVELS = (0.3, 0.5, 0.7)
MOMENT_IOU = 0.7
"""From which overlap a moment counts as found in MoR@K."""
KS = (1, 10, 100)
MAX_S = 1e6


@dataclass(frozen=True, slots=True)
class Moment:
    """A video, its track, and the part of the track that was put under it.

    Attributes:
        video_id: Of the video.
        music_id: Of the track.
        start_s: Where the part begins in the track.
        end_s: Where it ends, at most `music_s`.
        video_s: Length of the video.
        music_s: Length of the track.
    """

    video_id: str
    music_id: str
    start_s: float
    end_s: float
    video_s: float
    music_s: float


def read_moments(path: Path) -> list[Moment]:
    """Read a list.

    Raises:
        IngestError: It is not a csv file, has no rows, lacks a column, or a row has no times in order.
    """
    moments = [_read_row(row, path, number) for number, row in enumerate(iterate_csv_rows(path, COLUMNS), start=2)]
    if not moments:
        raise IngestError(f"{path} has no rows; a list of moments has the columns {', '.join(COLUMNS)}")
    return moments


def _read_row(row: Mapping[str, str], path: Path, number: int) -> Moment:
    try:
        video_start, video_end, start, end, music = (float(row[name]) for name in COLUMNS[2:])
    except ValueError as error:
        raise IngestError(f"{path}, row {number}: {error}; times are seconds") from error
    values = (video_start, video_end, start, end, music)
    in_order = 0 <= start < end and 0 <= video_start < video_end and start < music
    if not all(math.isfinite(value) and value <= MAX_S for value in values) or not in_order:
        raise IngestError(f"{path}, row {number}: its times {values} are not those of a moment within a track")
    return Moment(row["video_id"], row["music_id"], start, min(end, music), video_end - video_start, music)


def measure_overlap(one: Span, other: Span) -> float:
    """Intersection of two spans by their union, 0 to 1."""
    common = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    union = (one[1] - one[0]) + (other[1] - other[0]) - common
    return common / union if union > 0 else 0.0


def measure_grounding(moments: Sequence[Moment], spans: Sequence[Span]) -> dict[str, float]:
    """How well the moment is found in the track that is known: `miou`, and the shares of overlaps above `IOU_LEVELS`.

    Raises:
        ParameterError: There are no moments, or not one span for each.
    """
    overlaps = list_overlaps(moments, spans)
    shares = {f"iou_above_{level}": float((overlaps > level).mean()) for level in IOU_LEVELS}
    return {"miou": float(overlaps.mean()), **shares}


def list_overlaps(moments: Sequence[Moment], spans: Sequence[Span]) -> np.ndarray:
    """(n,) overlap of each span, cut to its track, with the moment; errors as in `measure_grounding`."""
    if not moments or len(moments) != len(spans):
        raise ParameterError(f"there are {len(moments)} moments and {len(spans)} spans; give one span for each")
    cut = [(max(0.0, s), min(e, moment.music_s)) for moment, (s, e) in zip(moments, spans, strict=True)]
    pairs = zip(moments, cut, strict=True)
    return np.array([measure_overlap((moment.start_s, moment.end_s), span) for moment, span in pairs])


def measure_retrieval(
    moments: Sequence[Moment], ranking: Sequence[Sequence[str]], spans: Sequence[Span], ks: Iterable[int] = KS
) -> dict[str, float]:
    """R@K, the share of queries whose track is among the first K, and MoR@K, of those whose moment is found, too.

    Args:
        moments: Queries.
        ranking: For each, track ids, best first; one that occurs again counts once.
        spans: For each, the moment that is predicted in its own track.
        ks: See above.

    Raises:
        ParameterError: Numbers differ.
    """
    overlaps = list_overlaps(moments, spans)
    if len(ranking) != len(moments):
        raise ParameterError(f"there are {len(moments)} moments and {len(ranking)} rankings; give one for each")
    order = [list(dict.fromkeys(ids)) for ids in ranking]
    pairs = list(zip(moments, order, strict=True))
    ranks = np.array([ids.index(m.music_id) + 1 if m.music_id in ids else np.inf for m, ids in pairs])
    found = {k: ranks <= k for k in ks}
    return {
        **{f"recall_at_{k}": float(hit.mean()) for k, hit in found.items()},
        **{f"moment_recall_at_{k}": float((hit & (overlaps > MOMENT_IOU)).mean()) for k, hit in found.items()},
    }


# --- priors: what can be known without looking or listening


def start_at_zero(moment: Moment) -> Span:
    """The beginning of the track, as long as the video."""
    return 0.0, moment.video_s


def take_known_starts(known: Collection[Moment]) -> Predict:
    """A prior from another list: the median of the starts that the same track has there; 0 for a track it lacks."""
    starts: dict[str, list[float]] = defaultdict(list)
    for moment in known:
        starts[moment.music_id].append(moment.start_s)

    def predict(moment: Moment) -> Span:
        start = float(np.median(starts[moment.music_id])) if moment.music_id in starts else 0.0
        return start, start + moment.video_s

    return predict


def leave_out_tracks(moments: Sequence[Moment], known: Collection[Moment]) -> list[Moment]:
    """The moments whose tracks are not in another list: a split by track."""
    tracks = {moment.music_id for moment in known}
    return [moment for moment in moments if moment.music_id not in tracks]


def compare_priors(
    test: Sequence[Moment], known: Collection[Moment], others: Mapping[str, Sequence[Span]] | None = None
) -> list[dict[str, object]]:
    """The table of a list: priors first, then predictions, on all rows and on those of tracks that `known` lacks.

    Args:
        test: The list that is measured.
        known: The list that a method may have learnt from.
        others: Name of a method to its spans, one for each row of `test`.
    """
    spans: dict[str, Sequence[Span]] = {
        "start at 0": [start_at_zero(moment) for moment in test],
        "start of the same track in the other list": [take_known_starts(known)(moment) for moment in test],
        **(others or {}),
    }
    unknown = {id(moment) for moment in leave_out_tracks(test, known)}
    rows: list[dict[str, object]] = []
    for subset, wanted in (("all", [True] * len(test)), ("other tracks", [id(m) in unknown for m in test])):
        chosen = [k for k, is_in in enumerate(wanted) if is_in]
        for name, own in spans.items() if chosen else ():
            measured = measure_grounding([test[k] for k in chosen], [own[k] for k in chosen])
            rows.append({"method": name, "rows": subset, "n": len(chosen), **measured})
    return rows


def format_priors(rows: Sequence[Mapping[str, object]]) -> str:
    """The table in Markdown."""
    names = list(rows[0])
    cells = [[f"{row[name]:.3f}" if isinstance(row[name], float) else str(row[name]) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [names, ["---"] * len(names), *cells])
