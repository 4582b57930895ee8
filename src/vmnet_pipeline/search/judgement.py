"""Say what the scores of a search mean, by the calibration that the index keeps of its network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from vmnet_pipeline.errors import SearchIndexError, describe_validation
from vmnet_pipeline.evaluation.calibration import COVERAGE, MIN_PAIRS, Calibration, ScoreCurve
from vmnet_pipeline.evaluation.results import DIRECTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmnet_pipeline.types import Array, Side

UNCALIBRATED = (
    f"What these scores mean is not known: the network has fewer than {MIN_PAIRS} validation pairs, or was trained by "
    "an earlier version or elsewhere."
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What scores mean.

    Attributes:
        fits: Id to the probability that the item belongs to the query, 0-1.
        percentiles: Id to the percentage of wrong candidates with lower scores, 0-100.
        remark: Sentences for the reader; may be empty.
    """

    fits: Mapping[str, float] = field(default_factory=dict)
    percentiles: Mapping[str, float] = field(default_factory=dict)
    remark: str = ""


def judge_query(stored: Any, vector: Array | None, query: str) -> tuple[bool | None, str]:
    """Whether a query is of the kind of media that the network was trained on.

    Args:
        stored: As in `judge_scores`.
        vector: (1, E) or (E,) embedding; None for a query in words.
        query: Its side; for anything but `music` and `video` nothing is known.

    Returns:
        The verdict, None if not known, and a sentence if it is no.

    Raises:
        SearchIndexError: The stored calibration is damaged.
    """
    calibration = read_calibration(stored)
    known = None if calibration is None else calibration.known.get(cast("Side", query))
    if known is None or vector is None:
        return None, ""
    nearest = known.find_nearest(vector)
    if nearest >= known.threshold:
        return True, ""
    return False, (
        f"This {query} is unlike everything that the network was trained on (nearest item: {nearest:.2f}, usual: at "
        f"least {known.threshold:.2f}), so its answers say little. Train on media of its kind."
    )


def judge_scores(stored: Any, cosines: Mapping[str, float], direction: str, pool_size: int) -> Judgement:
    """Judge the candidates of one query.

    Args:
        stored: `calibration` of the index: `Calibration` as plain data, or None.
        cosines: Id to cosine of the best candidates.
        direction: Key of `DIRECTIONS`; for others, as within one side, nothing is known.
        pool_size: Items that were searched.

    Raises:
        SearchIndexError: The stored calibration is damaged.
    """
    if direction not in DIRECTIONS or not cosines:
        return Judgement()
    calibration = read_calibration(stored)
    warning = _to_sentence("" if calibration is None else calibration.warn_of_chance())
    if calibration is None or calibration.curve is None:
        return Judgement(remark=" ".join(filter(None, [UNCALIBRATED, warning])))
    curve, scores = calibration.curve, list(cosines.values())
    fits = dict(zip(cosines, curve.find_probability(scores, pool_size).tolist(), strict=True))
    percentiles = dict(zip(cosines, curve.find_percentile(scores).tolist(), strict=True))
    missing = _find_nothing(curve, max(scores), direction, pool_size)
    return Judgement(fits, percentiles, " ".join(filter(None, [missing, warning])))


def read_calibration(stored: Any) -> Calibration | None:
    """Check what an index keeps as `calibration`.

    Raises:
        SearchIndexError: It is damaged.
    """
    try:
        return None if stored is None else Calibration.model_validate(stored)
    except ValidationError as error:
        raise SearchIndexError(
            f"the index's calibration is damaged ({describe_validation(error)}); rebuild it: kedro run --pipeline index"
        ) from error


def _find_nothing(curve: ScoreCurve, best: float, direction: str, pool_size: int) -> str:
    """Sentence for a query of which no candidate reaches the threshold; empty otherwise."""
    threshold = curve.find_threshold(direction, pool_size)
    if threshold is None or best >= threshold:
        return ""
    return (
        f"Nothing in this library fits: the best score, {best:.3f}, is below {threshold:.3f}, which the best answers "
        f"of {COVERAGE:.0%} of the held-out queries reach whose own pair is in such a library."
    )


def _to_sentence(text: str) -> str:
    return text and f"{text[0].upper()}{text[1:]}."
