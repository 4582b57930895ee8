"""Show a comparison of variants as text for the console and as a plot."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.reporting.labels import DIRECTION_LABELS, format_estimate
from vmnet_pipeline.reporting.plots import BLUE, GREEN, GREY, VERMILION, make_figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAME, _CELL, _WIDTH = 20, 20, 100
_STYLES = {"variant": (BLUE, "o"), "ensemble": (VERMILION, "s"), "baseline": (GREY, "D")}


def format_comparison(comparison: Mapping[str, Any]) -> str:
    """Lay out a table per direction and one of paired differences, at most 100 columns."""
    title = f"Comparison on {comparison['sizes']['test']:,} test pairs in {comparison['n_groups']:,} groups"
    parts = [[title, "=" * len(title)]]
    for direction, label in DIRECTION_LABELS.items():
        parts.append(_lay_out_direction(comparison, direction, label.replace("→", "->")))
    parts.append(_lay_out_differences(comparison))
    parts.append(_list_notes(comparison))
    return "\n\n".join("\n".join(lines) for lines in parts)


def _lay_out_direction(comparison: Mapping[str, Any], direction: str, label: str) -> list[str]:
    ks = list_ks(comparison)
    names = [f"{direction}/recall_at_{k}" for k in ks]
    head = [f"R@{k} %" for k in ks]
    lines = [_join(label, *head, "MRR", last="MedR")]
    lines.append("-" * len(lines[0]))
    for row in comparison["rows"]:
        cells = [_format_cell(row["figures"][name], 100, 1) for name in names]
        mrr = _format_cell(row["figures"][f"{direction}/mrr"], 1, 3)
        lines.append(_join(row["name"], *cells, mrr, last=f"{row['median_rank'][direction]:.1f}"))
    return lines


def _lay_out_differences(comparison: Mapping[str, Any]) -> list[str]:
    k = choose_k(comparison)
    lines = [_join(f"minus {comparison['against']}", f"R@{k}, points", "MRR", "MRR on validation", last="s")]
    lines.append("-" * len(lines[0]))
    for row in comparison["rows"]:
        recall = _format_cell(row["difference"][f"both/recall_at_{k}"], 100, 1, sign="+")
        mrr = _format_cell(row["difference"]["both/mrr"], 1, 3, sign="+")
        cells = ["", ""] if row["name"] == comparison["against"] else [recall, mrr]
        seconds = f"{np.mean(row['seconds']):.0f}" if row["seconds"] else "-"
        lines.append(_join(row["name"], *cells, _format_val(row["val_mrr"]), last=seconds))
    return lines


def list_ks(comparison: Mapping[str, Any]) -> list[int]:
    """Cut-offs below the gallery size, above which recall is 1 by definition; all of them where none is below."""
    ks: list[int] = comparison["ks"]
    return [k for k in ks if k < comparison["sizes"]["test"]] or ks


def choose_k(comparison: Mapping[str, Any]) -> int:
    """Choose the largest cut-off of `list_ks`."""
    return max(list_ks(comparison))


def _list_notes(comparison: Mapping[str, Any]) -> list[str]:
    seeds = ", ".join(str(seed) for seed in comparison["seeds"])
    level = f"{100 * comparison['confidence_level']:g}"
    text = (
        f"Means over seeds {seeds}; `x{len(comparison['seeds'])}` are the networks of all seeds as one. Whole gallery, "
        f"ties by mid-rank. [{level} % intervals]: bootstrap over groups and seeds, the same "
        f"{comparison['n_resamples']:,} draws for all rows, so that differences (mean of both directions) are paired. "
        "Nothing was chosen on test pairs."
    )
    lines = textwrap.wrap(text, _WIDTH)
    if len(comparison["seeds"]) < 3:
        lines += textwrap.wrap("Warning: fewer than three seeds say little about the spread between trainings.", _WIDTH)
    return lines


def _format_val(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" if values else "-"


def _join(name: str, *cells: str, last: str) -> str:
    width = min(_CELL, (_WIDTH - _NAME - 6) // max(len(cells), 1))
    return f"{name:<{_NAME}}" + "".join(f"{cell:>{width}}" for cell in cells) + f"{last:>6}"


def _format_cell(estimate: Mapping[str, Any], scale: int, digits: int, sign: str = "") -> str:
    """Value and interval in at most 20 characters: no zero before the point, and 100 without digits after it."""
    value, interval = format_estimate(estimate, scale, digits, sign)
    if interval is None:
        return value
    texts = [text.replace("100.0", "100") for text in (value, *interval)]
    if digits == 3:
        texts = [text.replace("1.000", "1").replace("0.", ".", 1) for text in texts]
    return f"{texts[0]} [{texts[1]},{texts[2]}]"


def plot_comparison(comparison: Mapping[str, Any]) -> Figure:
    """Draw Recall@K of both directions, MRR, and the paired difference in MRR, with intervals."""
    k, rows = choose_k(comparison), comparison["rows"]
    figure, panels = make_figure(3, 10.0, 1.2 + 0.32 * len(rows), sharey=True)
    _draw_points(panels[0], rows, "figures", f"both/recall_at_{k}", 100)
    panels[0].set_xlabel(f"Recall@{k} (%), mean of both directions")
    _draw_points(panels[1], rows, "figures", "both/mrr", 1)
    panels[1].set_xlabel("MRR, mean of both directions")
    _draw_points(panels[2], rows, "difference", "both/mrr", 1)
    panels[2].axvline(0.0, color=GREEN, lw=1.2, ls="--")
    panels[2].set_xlabel(f"MRR less that of {comparison['against']}, paired")
    panels[0].set_yticks(range(len(rows)), [row["name"] for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    seeds = f", {len(comparison['seeds'])} seeds" if comparison["seeds"] else ""
    figure.suptitle(f"{comparison['sizes']['test']:,} test pairs{seeds}", fontsize=11)
    return figure


def _draw_points(axes: Axes, rows: Sequence[Mapping[str, Any]], part: str, metric: str, scale: int) -> None:
    for place, row in enumerate(rows):
        estimate, (colour, marker) = row[part][metric], _STYLES[row["kind"]]
        axes.plot(scale * estimate["value"], place, marker=marker, ms=5, color=colour, ls="")
        if estimate["low"] is not None:
            axes.hlines(place, scale * estimate["low"], scale * estimate["high"], color=colour, lw=1.6)
