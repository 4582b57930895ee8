"""Tables of metrics for the report: one evaluation, the gain of re-ranking, and several variants compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.reporting.comparison import choose_k, list_ks
from vmnet_pipeline.reporting.labels import (
    DIRECTION_LABELS,
    choose_pool_ks,
    describe_method,
    describe_pool,
    describe_reliability,
    format_estimate,
)
from vmnet_pipeline.reporting.verdict import explain_trivial_ks, judge_evaluation, list_trivial_ks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def lay_out_evaluation(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out `Evaluation.to_dict()` for the template."""
    directions = list(evaluation["directions"].values())
    trivial = list_trivial_ks(evaluation)
    rows = [
        _lay_out_row(f"Recall@{k}", [d["recall"][k] for d in directions], 100, 1, " %")
        for k in directions[0]["recall"]
        if k not in trivial
    ]
    rows.append(_lay_out_row("Median rank", [d["median_rank"] for d in directions], 1, 1, ""))
    rows.append(_lay_out_row("Mean reciprocal rank", [d["mrr"] for d in directions], 1, 3, ""))
    if evaluation["max_positives"] > 1:
        rows.append(_lay_out_row("Mean average precision", [d["mean_average_precision"] for d in directions], 1, 3, ""))
        if "ndcg" in directions[0]:
            rows.append(_lay_out_row("nDCG at 10", [d["ndcg"] for d in directions], 1, 3, ""))
    return {
        "labels": [(DIRECTION_LABELS[name], d["reference_name"]) for name, d in evaluation["directions"].items()],
        "rows": rows,
        "pools": _lay_out_pools(directions),
        "hubs": _lay_out_hubs(directions),
        "summary": f"{evaluation['n_items']:,} items, {describe_pool(evaluation)}",
        "method": describe_method(evaluation),
        "reliability": describe_reliability(evaluation),
        "level": f"{100 * evaluation['confidence_level']:g} %",
        "verdict": judge_evaluation(evaluation),
        "left_out": explain_trivial_ks(evaluation),
        "n_dropped": evaluation["n_dropped"],
        "warnings": evaluation["warnings"],
    }


def _lay_out_pools(directions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Lay out recall and median rank for each size of random pools; files of earlier versions have none."""
    rows = []
    for size in directions[0].get("pools") or {}:
        pools, name = [metrics["pools"][size] for metrics in directions], f"in {int(size):,}"
        rows += [
            _lay_out_row(f"Recall@{k} {name}", [pool["recall"][k] for pool in pools], 100, 1, " %")
            for k in choose_pool_ks(pools[0]["recall"])
        ]
        rows.append(_lay_out_row(f"Median rank {name}", [pool["median_rank"] for pool in pools], 1, 0, ""))
    return rows


def _lay_out_hubs(directions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    hubs = [metrics["hubness"] for metrics in directions if "hubness" in metrics]
    if not hubs:
        return []
    kinds = {
        f"Most frequent item, number of top-{hubs[0]['k']:.0f} lists": [f"{hub['max']:,.0f}" for hub in hubs],
        f"Items in no top-{hubs[0]['k']:.0f} list": [f"{100 * hub['unreached']:.1f} %" for hub in hubs],
        "Skewness of the counts": [f"{hub['skewness']:z.2f}" for hub in hubs],
    }
    return [{"name": name, "cells": [(cell, "") for cell in cells]} for name, cells in kinds.items()]


def _lay_out_row(name: str, metrics: Sequence[Mapping[str, Any]], scale: int, digits: int, unit: str) -> dict[str, Any]:
    chance = "" if metrics[0]["chance"] is None else f"{scale * metrics[0]['chance']:.{digits}f}{unit}"
    cells = [_format_cell(estimate, scale, digits, unit) for estimate in metrics]
    return {"name": name, "cells": cells, "chance": chance}


def _format_cell(
    estimate: Mapping[str, Any], scale: int, digits: int, unit: str = "", sign: str = ""
) -> tuple[str, str]:
    """Format value and interval; an empty text for a missing one."""
    value, interval = format_estimate(estimate, scale, digits, sign)
    return value and f"{value}{unit}", "" if interval is None else f"{interval[0]} to {interval[1]}"


def lay_out_reranking(reranking: Mapping[str, Any] | None, confidence_level: float | None) -> dict[str, Any] | None:
    """Lay out a table per direction without and with re-ranking, and a verdict; None where re-ranking was left out."""
    if not reranking or not reranking["n_candidates"]:
        return None
    level = "" if confidence_level is None else f"{100 * confidence_level:g} % "
    heads = [("Without", ""), ("With", ""), ("Difference", f"{level}interval, paired")]
    return {
        "summary": _judge_reranking(reranking),
        "tables": [
            {"title": DIRECTION_LABELS[direction], "heads": heads, "rows": _lay_out_gains(metrics)}
            for direction, metrics in reranking["directions"].items()
        ],
        "note": (
            f"The {reranking['n_candidates']:,} best results of each query were compared again, in pieces of "
            f"{reranking['piece_s']:g} s. The share of that agreement in the score, {reranking['weight']:g}, was "
            "chosen by the mean reciprocal rank on the validation pairs. "
            f"{reranking['n_items']:,} test pairs, whole gallery, cosine; only the item itself is relevant, "
            "ties take the mid-rank. All other metrics are without re-ranking."
        ),
    }


def _lay_out_gains(metrics: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = [
        _lay_out_gain(f"Recall@{name.removeprefix('recall_at_')}", estimate, 100, 1, " %")
        for name, estimate in metrics.items()
        if name != "mrr"
    ]
    return [*rows, _lay_out_gain("Mean reciprocal rank", metrics["mrr"], 1, 3, "")]


def _lay_out_gain(name: str, estimate: Mapping[str, Any], scale: int, digits: int, unit: str) -> dict[str, Any]:
    sides = [(f"{scale * estimate[side]:.{digits}f}{unit}", "") for side in ("without", "with")]
    difference = _format_cell({**estimate, "value": estimate["difference"]}, scale, digits, sign="+")
    return {"name": name, "cells": [*sides, difference]}


def _judge_reranking(reranking: Mapping[str, Any]) -> str:
    """State the verdict on the differences in mean reciprocal rank in one sentence."""
    if reranking["weight"] == 0:
        return "No share of the agreement over time was better than none on the validation pairs: leave re-ranking out."
    verdicts = [_judge_gain(metrics["mrr"]) for metrics in reranking["directions"].values()]
    if len(set(verdicts)) == 1:
        return f"By the mean reciprocal rank re-ranking is {verdicts[0]} in both directions."
    labels = (DIRECTION_LABELS[direction] for direction in reranking["directions"])
    parts = [f"{verdict} for {label}" for verdict, label in zip(verdicts, labels, strict=True)]
    return f"By the mean reciprocal rank re-ranking is {' and '.join(parts)}."


def _judge_gain(estimate: Mapping[str, Any]) -> str:
    if estimate["low"] is None:
        return "a difference of unknown certainty"
    if estimate["low"] > 0:
        return "a gain"
    return "a loss" if estimate["high"] < 0 else "no difference beyond chance"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Variants side by side: results of `experiments.comparison`, and `name` of the plot that belongs to them."""

    name: str
    title: str
    results: Mapping[str, Any]


def lay_out_comparison(found: Comparison) -> dict[str, Any]:
    """Lay out a table per direction, and one of the paired differences."""
    comparison, ks = found.results, list_ks(found.results)
    heads = [(f"Recall@{k}", "%") for k in ks] + [("MRR", ""), ("Median rank", "")]
    tables = []
    for direction, label in DIRECTION_LABELS.items():
        rows = [_lay_out_variant(row, direction, ks) for row in comparison["rows"]]
        tables.append({"title": label, "heads": heads, "rows": rows})
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
    return {"name": row["name"], "cells": cells}


def _lay_out_differences(comparison: Mapping[str, Any]) -> dict[str, Any]:
    k, against = choose_k(comparison), comparison["against"]
    rows = []
    for row in comparison["rows"]:
        recall = _format_cell(row["difference"][f"both/recall_at_{k}"], 100, 1, sign="+")
        mrr = _format_cell(row["difference"]["both/mrr"], 1, 3, sign="+")
        if row["name"] != against:
            rows.append({"name": row["name"], "cells": [recall, mrr]})
    heads = [(f"Recall@{k}", "points, mean of both directions"), ("MRR", "mean of both directions")]
    return {"title": f"Less {against}, query by query", "heads": heads, "rows": rows}
