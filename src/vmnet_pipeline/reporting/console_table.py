"""Recall@K as plain text for the console, readable at 100 columns."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.reporting.labels import (
    DIRECTION_LABELS,
    describe_extras,
    describe_method,
    describe_pool,
    format_estimate,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_CELL = 28
_NAME = 12
_WIDTH = 100


def format_recall_table(evaluation: Mapping[str, Any]) -> str:
    """Lay out the metrics of both directions with intervals and chance, at most 100 columns.

    Args:
        evaluation: `Evaluation.to_dict()`.
    """
    directions = evaluation["directions"]
    title = f"Retrieval of {evaluation['n_items']:,} items, {describe_pool(evaluation)}"
    lines = [
        title,
        "=" * len(title),
        _join("", *(_label(name, figures) for name, figures in directions.items()), "chance"),
    ]
    lines.append(_join("", *(f"% [{100 * evaluation['confidence_level']:g} % interval]" for _ in directions), "%"))
    lines.append("-" * len(lines[-2]))
    for k in next(iter(directions.values()))["recall"]:
        mark = "*" if int(k) >= evaluation["pool_size"] else ""
        lines.append(_format_row(f"R@{k}{mark}", [figures["recall"][k] for figures in directions.values()], 100, 1))
    lines.append(_format_row("median rank", [figures["median_rank"] for figures in directions.values()], 1, 1))
    lines.append(_format_row("MRR", [figures["mrr"] for figures in directions.values()], 1, 3))
    if evaluation["max_positives"] > 1:
        lines.append(_format_row("mAP", [figures["mean_average_precision"] for figures in directions.values()], 1, 3))
    return "\n".join([*lines, *_list_notes(evaluation)])


def _label(name: str, figures: Mapping[str, Any]) -> str:
    return f"{DIRECTION_LABELS[name]} ({figures['reference_name']})".replace("→", "->")


def _join(name: str, *cells: str) -> str:
    *wide, last = cells
    return f"{name:<{_NAME}}" + "".join(f"{cell:>{_CELL}}" for cell in wide) + f"{last:>10}"


def _format_row(name: str, figures: list[Mapping[str, Any]], scale: int, digits: int) -> str:
    cells = [_format_cell(figure, scale, digits) for figure in figures]
    chance = figures[0]["chance"]
    return _join(name, *cells, "-" if chance is None else f"{scale * chance:.{digits}f}")


def _format_cell(estimate: Mapping[str, Any], scale: int, digits: int) -> str:
    value, interval = format_estimate(estimate, scale, digits)
    if interval is None:
        return value + " " * 17
    return f"{value} [{interval[0]:>6}, {interval[1]:>6}]"


def _list_notes(evaluation: Mapping[str, Any]) -> list[str]:
    notes = textwrap.wrap(describe_method(evaluation), _WIDTH) + textwrap.wrap(describe_extras(evaluation), _WIDTH)
    if any(int(k) >= evaluation["pool_size"] for k in next(iter(evaluation["directions"].values()))["recall"]):
        notes.append(f"* K reaches the pool size of {evaluation['pool_size']:,}: 100 % by definition.")
    if evaluation["n_dropped"]:
        notes.append(f"{evaluation['n_dropped']:,} items did not fill a pool and were left out.")
    for warning in evaluation["warnings"]:
        notes += textwrap.wrap(f"Warning: {warning}", _WIDTH)
    return notes
