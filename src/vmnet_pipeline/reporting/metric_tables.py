"""Tables of metrics for the report: one evaluation, the gain of re-ranking, and several variants compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.reporting.comparison import choose_k
from vmnet_pipeline.reporting.labels import (
    DIRECTION_LABELS,
    choose_pool_ks,
    describe_method,
    describe_pool,
    format_estimate,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def lay_out_evaluation(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of `Evaluation.to_dict()`."""
    directions = evaluation["directions"]
    first = next(iter(directions.values()))
    rows = [
        _lay_out_row(f"Recall@{k}", [d["recall"][k] for d in directions.values()], 100, 1, " %")
        for k in first["recall"]
    ]
    for row, k in zip(rows, first["recall"], strict=True):
        row["trivial"] = int(k) >= evaluation["pool_size"]
    rows.append(_lay_out_row("Median rank", [d["median_rank"] for d in directions.values()], 1, 1, ""))
    rows.append(_lay_out_row("Mean reciprocal rank", [d["mrr"] for d in directions.values()], 1, 3, ""))
    if evaluation["max_positives"] > 1:
        means = [d["mean_average_precision"] for d in directions.values()]
        rows.append(_lay_out_row("Mean average precision", means, 1, 3, ""))
        if "ndcg" in first:
            rows.append(_lay_out_row("nDCG at 10", [d["ndcg"] for d in directions.values()], 1, 3, ""))
    return {
        "labels": [(DIRECTION_LABELS[name], figures["reference_name"]) for name, figures in directions.items()],
        "rows": rows,
        "pools": _lay_out_pools(list(directions.values())),
        "hubs": _lay_out_hubs(list(directions.values())),
        "summary": f"{evaluation['n_items']:,} items, {describe_pool(evaluation)}",
        "method": describe_method(evaluation),
        "level": f"{100 * evaluation['confidence_level']:g} %",
        "pool_size": f"{evaluation['pool_size']:,}",
        "any_trivial": any(row["trivial"] for row in rows),
        "n_dropped": evaluation["n_dropped"],
        "warnings": evaluation["warnings"],
    }


def _lay_out_pools(directions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Recall and median rank for every size of random pools; nothing for files of earlier versions."""
    rows = []
    for size in directions[0].get("pools") or {}:
        pools, name = [figures["pools"][size] for figures in directions], f"in {int(size):,}"
        rows += [
            _lay_out_row(f"Recall@{k} {name}", [pool["recall"][k] for pool in pools], 100, 1, " %")
            for k in choose_pool_ks(pools[0]["recall"])
        ]
        rows.append(_lay_out_row(f"Median rank {name}", [pool["median_rank"] for pool in pools], 1, 0, ""))
    return rows


def _lay_out_hubs(directions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    hubs = [figures["hubness"] for figures in directions if "hubness" in figures]
    if not hubs:
        return []
    kinds = {
        f"Most frequent item, times in a top {hubs[0]['k']:.0f}": [f"{hub['max']:,.0f}" for hub in hubs],
        f"Items in no top {hubs[0]['k']:.0f}": [f"{100 * hub['unreached']:.1f} %" for hub in hubs],
        "Skewness of the counts": [f"{hub['skewness']:z.2f}" for hub in hubs],
    }
    return [{"name": name, "cells": [(cell, "") for cell in cells], "trivial": False} for name, cells in kinds.items()]


def _lay_out_row(name: str, figures: Sequence[Mapping[str, Any]], scale: int, digits: int, unit: str) -> dict[str, Any]:
    chance = "" if figures[0]["chance"] is None else f"{scale * figures[0]['chance']:.{digits}f}{unit}"
    cells = [_format_cell(figure, scale, digits, unit) for figure in figures]
    return {"name": name, "cells": cells, "chance": chance, "trivial": False}


def _format_cell(
    estimate: Mapping[str, Any], scale: int, digits: int, unit: str = "", sign: str = ""
) -> tuple[str, str]:
    """Value and interval, empty where there is none."""
    value, interval = format_estimate(estimate, scale, digits, sign)
    return value and f"{value}{unit}", "" if interval is None else f"{interval[0]} to {interval[1]}"


def lay_out_reranking(reranking: Mapping[str, Any] | None, confidence_level: float | None) -> dict[str, Any] | None:
    """A table per direction without and with re-ranking, and what it means; None where re-ranking was left out.

    Args:
        reranking: What `experiments.reranking.measure_reranking` gives.
        confidence_level: Of its intervals, in (0, 1); None if unknown.
    """
    if not reranking or not reranking["n_candidates"]:
        return None
    level = "" if confidence_level is None else f"{100 * confidence_level:g} % "
    heads = [("Without", ""), ("With", ""), ("Difference", f"{level}interval, paired")]
    return {
        "summary": _judge_reranking(reranking),
        "tables": [
            {"title": DIRECTION_LABELS[direction], "heads": heads, "rows": _lay_out_gains(figures)}
            for direction, figures in reranking["directions"].items()
        ],
        "note": (
            f"The {reranking['n_candidates']:,} best results of each query were compared again, in pieces of "
            f"{reranking['piece_s']:g} s. The share of that agreement in the score, {reranking['weight']:g}, was "
            "chosen by the mean reciprocal rank on the validation pairs. "
            f"{reranking['n_items']:,} test pairs, whole gallery, cosine; only the item itself is relevant, "
            "ties take the mid-rank. All other metrics are without re-ranking."
        ),
    }


def _lay_out_gains(figures: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    recalls = {name: figure for name, figure in figures.items() if name != "mrr"}
    rows = [
        _lay_out_gain(f"Recall@{name.removeprefix('recall_at_')}", figure, 100, 1, " %")
        for name, figure in recalls.items()
    ]
    return [*rows, _lay_out_gain("Mean reciprocal rank", figures["mrr"], 1, 3, "")]


def _lay_out_gain(name: str, figure: Mapping[str, Any], scale: int, digits: int, unit: str) -> dict[str, Any]:
    sides = [(f"{scale * figure[side]:.{digits}f}{unit}", "") for side in ("without", "with")]
    difference = _format_cell({**figure, "value": figure["difference"]}, scale, digits, sign="+")
    return {"name": name, "cells": [*sides, difference], "trivial": False}


def _judge_reranking(reranking: Mapping[str, Any]) -> str:
    """What the differences in the mean reciprocal rank mean, in one sentence."""
    if reranking["weight"] == 0:
        return "No share of the agreement over time was better than none on the validation pairs: leave re-ranking out."
    verdicts = [_judge_gain(figures["mrr"]) for figures in reranking["directions"].values()]
    if len(set(verdicts)) == 1:
        return f"By the mean reciprocal rank re-ranking is {verdicts[0]} in both directions."
    labels = (DIRECTION_LABELS[direction] for direction in reranking["directions"])
    parts = [f"{verdict} for {label}" for verdict, label in zip(verdicts, labels, strict=True)]
    return f"By the mean reciprocal rank re-ranking is {' and '.join(parts)}."


def _judge_gain(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None:
        return "a difference of unknown certainty"
    if figure["low"] > 0:
        return "a gain"
    return "a loss" if figure["high"] < 0 else "no difference beyond chance"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Variants side by side.

    Attributes:
        name: Of the plot that belongs to it.
        title: Heading.
        results: What `experiments.comparison` gives.
    """

    name: str
    title: str
    results: Mapping[str, Any]


def lay_out_comparison(found: Comparison) -> dict[str, Any]:
    """A table per direction, and one of the paired differences."""
    comparison = found.results
    heads = [(f"Recall@{k}", "%") for k in comparison["ks"]] + [("MRR", ""), ("Median rank", "")]
    tables = [
        {
            "title": label,
            "heads": heads,
            "rows": [_lay_out_variant(row, direction, comparison["ks"]) for row in comparison["rows"]],
        }
        for direction, label in DIRECTION_LABELS.items()
    ]
    tables.append(_lay_out_differences(comparison))
    return {"title": found.title, "note": _describe_bootstrap(comparison), "tables": tables}


def _describe_bootstrap(comparison: Mapping[str, Any]) -> str:
    seeds = ", ".join(map(str, comparison["seeds"]))
    level, n_resamples = f"{100 * comparison['confidence_level']:g} %", comparison["n_resamples"]
    return (
        f"{f'Means over seeds {seeds}. ' if seeds else ''}Whole gallery. Below each value is its {level} interval: "
        f"bootstrap over groups{' and seeds' if seeds else ''}, the same {n_resamples:,} draws for all rows, so that "
        "differences are paired; one whose interval holds 0 may be chance."
    )


def _lay_out_variant(row: Mapping[str, Any], direction: str, ks: Sequence[int]) -> dict[str, Any]:
    cells = [_format_cell(row["figures"][f"{direction}/recall_at_{k}"], 100, 1) for k in ks]
    cells.append(_format_cell(row["figures"][f"{direction}/mrr"], 1, 3))
    cells.append((f"{row['median_rank'][direction]:.1f}", ""))
    return {"name": row["name"], "cells": cells, "trivial": False}


def _lay_out_differences(comparison: Mapping[str, Any]) -> dict[str, Any]:
    k, against = choose_k(comparison), comparison["against"]
    rows = [
        {
            "name": row["name"],
            "trivial": False,
            "cells": [
                _format_cell(row["difference"][f"both/recall_at_{k}"], 100, 1, sign="+"),
                _format_cell(row["difference"]["both/mrr"], 1, 3, sign="+"),
            ],
        }
        for row in comparison["rows"]
        if row["name"] != against
    ]
    heads = [(f"Recall@{k}", "points, mean of both directions"), ("MRR", "mean of both directions")]
    return {"title": f"Less {against}, query by query", "heads": heads, "rows": rows}
