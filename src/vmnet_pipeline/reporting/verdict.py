"""The verdict on an evaluation in one sentence: above chance or not, by how much, how sure, and enough pairs or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmnet_pipeline.reporting.labels import DIRECTION_LABELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_CHANCE = 0.25
"""Where chance already finds a quarter, Recall@K says little."""
CLOSE_POINTS = 5.0
"""Networks usually differ by a few points: an interval of this half width tells such networks apart."""
MIN_UNITS = 6
"""Fewer independent groups decide nothing: with 6, all above chance has a probability of 1.6 % by chance alone."""


def judge_evaluation(evaluation: Mapping[str, Any]) -> str:
    """State the verdict on `Evaluation.to_dict()` in one sentence.

    Above chance is a direction whose interval of the mean reciprocal rank lies above its value under random order. On
    random ranks this happens in 1 to 5 % of directions, with 3 to 100 queries and 95 % intervals.
    """
    directions: dict[str, Mapping[str, Any]] = evaluation["directions"]
    above = [name for name, metrics in directions.items() if _is_above(metrics["mrr"])]
    n_units = evaluation["n_groups"] if evaluation["resampled_by"] == "group" else evaluation["n_items"]
    k = choose_telling_k(evaluation)
    estimates = [metrics["mrr"] if k is None else metrics["recall"][k] for metrics in directions.values()]
    name, scale, digits, unit = ("MRR", 1, 3, "") if k is None else (f"R@{k}", 100, 1, " %")
    values = " and ".join(f"{scale * estimate['value']:.{digits}f}" for estimate in estimates)
    measured = f"{name} is {values}{unit}, by chance {scale * estimates[0]['chance']:.{digits}f}{unit}"
    if n_units < MIN_UNITS:
        pairs = f"{_count_pairs(evaluation)} are too few for a verdict, which takes {MIN_UNITS} independent ones"
        return f"Chance cannot be excluded: {measured}; {pairs}."
    return f"{_judge_chance(evaluation, above)}: {measured}; {_judge_pairs(evaluation, estimates, bool(above))}."


def choose_telling_k(evaluation: Mapping[str, Any]) -> str | None:
    """Choose the largest cut-off up to 10 that chance reaches for at most a quarter of the queries.

    None where all reach the pool size.
    """
    recall: Mapping[str, Mapping[str, Any]] = next(iter(evaluation["directions"].values()))["recall"]
    ks = sorted(set(recall) - set(list_trivial_ks(evaluation)), key=int)
    telling = [k for k in ks if int(k) <= 10 and recall[k]["chance"] <= MAX_CHANCE]
    return telling[-1] if telling else next(iter(ks), None)


def list_trivial_ks(evaluation: Mapping[str, Any]) -> list[str]:
    """Cut-offs that reach the pool size: their recall is 1 by definition."""
    recall = next(iter(evaluation["directions"].values()))["recall"]
    return [k for k in recall if int(k) >= evaluation["pool_size"]]


def explain_trivial_ks(evaluation: Mapping[str, Any]) -> str:
    """Say which cut-offs are left out; empty without any."""
    ks = list_trivial_ks(evaluation)
    names = ", ".join(f"R@{k}" for k in ks)
    return f"Left out, 100 % by definition in a pool of {evaluation['pool_size']:,}: {names}." if ks else ""


def _is_above(mrr: Mapping[str, Any]) -> bool:
    return bool(mrr["low"] is not None and mrr["low"] > mrr["chance"])


def _judge_chance(evaluation: Mapping[str, Any], above: Sequence[str]) -> str:
    level = f"{100 * evaluation['confidence_level']:g} % level"
    labels = " and ".join(DIRECTION_LABELS[name] for name in above)
    if evaluation["shuffled"]:
        if not above:
            return "Control with mismatched pairs: at chance, as it should be"
        return f"Control with mismatched pairs: above chance for {labels} ({level}), which points to a leak"
    if len(above) == len(evaluation["directions"]):
        return f"Better than chance in both directions ({level})"
    if above:
        return f"Better than chance for {labels} only ({level})"
    return f"Not better than chance ({level})"


def _count_pairs(evaluation: Mapping[str, Any]) -> str:
    pairs, n_groups = f"{evaluation['n_items']:,} test pairs", evaluation["n_groups"]
    if evaluation["resampled_by"] != "group" or n_groups == evaluation["n_items"]:
        return pairs
    return f"{pairs} in {n_groups:,} group{'s' if n_groups > 1 else ''}"


def _judge_pairs(evaluation: Mapping[str, Any], estimates: Sequence[Mapping[str, Any]], is_above: bool) -> str:
    width = max(50 * (estimate["high"] - estimate["low"]) for estimate in estimates)
    known = f"{_count_pairs(evaluation)} tell it to ±{width:.0f} points"
    if is_above:
        return f"{known}, enough" + ("" if width <= CLOSE_POINTS else " for this but not to compare similar networks")
    useful = any(estimate["high"] > max(2 * estimate["chance"], estimate["chance"] + 0.05) for estimate in estimates)
    return f"{known}, " + ("too few to exclude a useful network" if useful else "enough to say so")
