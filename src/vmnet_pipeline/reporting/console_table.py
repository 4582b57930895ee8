"""Recall@K as plain text for the console, readable at 100 columns."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.reporting import labels
from vmnet_pipeline.reporting.labels import DIRECTION_LABELS, format_estimate
from vmnet_pipeline.reporting.verdict import explain_trivial_ks, judge_evaluation, list_trivial_ks

if TYPE_CHECKING:
    from collections.abc import Mapping

_CELL = 28
_NAME = 12
_WIDTH = 100


def format_recall_table(evaluation: Mapping[str, Any]) -> str:
    """Lay out the verdict, and the metrics of both directions with intervals and chance, at most 100 columns."""
    names, directions = list(evaluation["directions"]), list(evaluation["directions"].values())
    title = f"Retrieval of {evaluation['n_items']:,} items, {labels.describe_pool(evaluation)}"
    heads = [f"{DIRECTION_LABELS[name]} ({d['reference_name']})" for name, d in zip(names, directions, strict=True)]
    verdict = textwrap.wrap(judge_evaluation(evaluation).replace("→", "->"), _WIDTH)
    lines = [*verdict, "", title, "=" * len(title), _join("", *heads, "chance").replace("→", "->")]
    lines.append(_join("", *(f"% [{100 * evaluation['confidence_level']:g} % interval]" for _ in directions), "%"))
    lines.append("-" * len(lines[-2]))
    trivial = list_trivial_ks(evaluation)
    for k in (k for k in directions[0]["recall"] if k not in trivial):
        lines.append(_format_row(f"R@{k}", [d["recall"][k] for d in directions], 100, 1))
    lines.append(_format_row("median rank", [d["median_rank"] for d in directions], 1, 1))
    lines.append(_format_row("MRR", [d["mrr"] for d in directions], 1, 3))
    if evaluation["max_positives"] > 1:
        lines.append(_format_row("mAP", [d["mean_average_precision"] for d in directions], 1, 3))
    return "\n".join([*lines, *_list_notes(evaluation)])


def _join(name: str, *cells: str) -> str:
    *wide, last = cells
    return f"{name:<{_NAME}}" + "".join(f"{cell:>{_CELL}}" for cell in wide) + f"{last:>10}"


def _format_row(name: str, estimates: list[Mapping[str, Any]], scale: int, digits: int) -> str:
    cells = [_format_cell(estimate, scale, digits) for estimate in estimates]
    chance = estimates[0]["chance"]
    return _join(name, *cells, "-" if chance is None else f"{scale * chance:.{digits}f}")


def _format_cell(estimate: Mapping[str, Any], scale: int, digits: int) -> str:
    value, interval = format_estimate(estimate, scale, digits)
    return value + (" " * 17 if interval is None else f" [{interval[0]:>6}, {interval[1]:>6}]")


def _list_notes(evaluation: Mapping[str, Any]) -> list[str]:
    texts = (
        labels.describe_method(evaluation),
        labels.describe_extras(evaluation),
        labels.describe_reliability(evaluation),
        explain_trivial_ks(evaluation),
    )
    notes = [line for text in texts for line in textwrap.wrap(text, _WIDTH)]
    if evaluation["n_dropped"]:
        notes.append(f"{evaluation['n_dropped']:,} items did not fill a pool and were left out.")
    for warning in evaluation["warnings"]:
        notes += textwrap.wrap(f"Warning: {warning}", _WIDTH)
    return notes
