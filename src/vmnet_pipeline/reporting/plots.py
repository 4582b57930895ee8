"""Plots of results and of training. Plain data in, a matplotlib figure out; no global plotting state is touched.

Colours are from the palette of M. Okabe and K. Ito, which colour-blind readers can tell apart; lines also differ in
dash and marker, so that they survive black-and-white print.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.reporting.labels import DIRECTION_LABELS, describe_pool, name_metric

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#595959"
_DIRECTION_STYLE = {"music_to_video": (BLUE, "o", "-"), "video_to_music": (VERMILION, "s", "--")}
_TERM_STYLE = {
    "loss": ("total", "black", "-"),
    "ranking_xy": ("ranking, music → video", BLUE, "-"),
    "ranking_yx": ("ranking, video → music", VERMILION, "--"),
    "structure_music": ("structure, music", GREEN, "-."),
    "structure_video": ("structure, video", PURPLE, ":"),
    "val_loss": ("total, on validation", GREY, "--"),
}
_DASHES = ("-", "--", "-.", ":")
_DASHED_KS = {1: 3, 5: 1, 10: 0}
_FEW_POINTS = 30
_MAX_BINS = 25


def plot_recall(evaluation: Mapping[str, Any]) -> Figure:
    """Draw Recall@K over K for both directions, with bootstrap intervals and the chance level.

    Cut-offs that reach the pool size (100 % by definition) are left out unless there are no others.
    """
    figure, (axes,) = make_figure(1, 6.8, 4.4)
    ks: list[int] = []
    for direction, metrics in evaluation["directions"].items():
        ks = _choose_ks(metrics["recall"], int(evaluation["pool_size"]))
        points = [metrics["recall"][str(k)] for k in ks]
        (colour, marker, dash), label = _DIRECTION_STYLE[direction], DIRECTION_LABELS[direction]
        axes.plot(ks, _percent(points, "value"), color=colour, marker=marker, ls=dash, label=label)
        if points[0]["low"] is not None:
            axes.fill_between(ks, _percent(points, "low"), _percent(points, "high"), color=colour, alpha=0.18, lw=0)
    axes.plot(ks, _percent(points, "chance"), color=GREY, ls=":", marker="x", ms=5, label="chance")
    axes.set_xscale("log")
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.set_xticks([], minor=True)
    axes.set_ylim(0, 101)
    axes.set_xlabel("K, number of results considered (log scale)")
    axes.set_ylabel("Recall@K (% of queries)")
    axes.set_title(f"Recall@K, {describe_pool(evaluation)}", loc="left")
    axes.legend(title=f"bands: {100 * evaluation['confidence_level']:g} % intervals", loc="best")
    return figure


def plot_ranks(evaluation: Mapping[str, Any], query_rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw how often each rank of the relevant item occurs in `Evaluation.query_rows`, one panel per direction."""
    pool_size = int(evaluation["pool_size"])
    width = max(1, -(-pool_size // _MAX_BINS))
    edges = np.arange(0.5, pool_size + width + 0.5, width)
    figure, panels = make_figure(2, 8.6, 3.8, sharey=True)
    for axes, (direction, metrics) in zip(panels, evaluation["directions"].items(), strict=True):
        ranks = np.array([row["rank"] for row in query_rows if row["direction"] == direction])
        colour = _DIRECTION_STYLE[direction][0]
        axes.hist(ranks, bins=edges.tolist(), color=colour, alpha=0.75, edgecolor="white", lw=0.5)
        median = metrics["median_rank"]["value"]
        axes.axvline(median, color="black", lw=1.4, label=f"median rank {median:g}")
        if evaluation["max_positives"] == 1:
            axes.axhline(len(ranks) * width / pool_size, color=GREY, ls=":", lw=1.6, label="chance")
        axes.set_title(DIRECTION_LABELS[direction], loc="left")
        axes.set_xlabel(f"rank of the relevant item (1 to {pool_size})")
        axes.set_xlim(0.5, pool_size + 0.5)
        axes.legend(loc="upper right")
    _count_in_whole(panels[0].yaxis)
    panels[0].set_ylabel(f"queries per {width} rank{'s' if width > 1 else ''}")
    figure.suptitle(f"Ranks of the relevant items, {describe_pool(evaluation)}", fontsize=11)
    return figure


def plot_reliability(reliability: Mapping[str, Any]) -> Figure:
    """Draw the observed share of right answers over their probability; on the diagonal both are the same.

    Args:
        reliability: See `evaluation.calibration.measure_reliability`.
    """
    bins = reliability["bins"]
    predicted, observed, low, high = (
        np.array([100 * part[name] for part in bins]) for name in ("predicted", "observed", "low", "high")
    )
    figure, (axes,) = make_figure(1, 5.6, 4.6)
    end = 1.08 * max(predicted.max(), high.max(), 1e-3)
    axes.plot([0, end], [0, end], color=GREY, ls=":", lw=1.6, label="perfect")
    lengths = np.clip([observed - low, high - observed], 0, None)
    axes.errorbar(
        predicted, observed, lengths, color=BLUE, marker="o", ms=5, lw=1.2, capsize=3, label="answers, 95 % intervals"
    )
    axes.set_xlim(0, end)
    axes.set_ylim(0, end)
    axes.set_xlabel(f"probability (%), the best {reliability['top_k']} of {reliability['pool_size']:,} candidates")
    axes.set_ylabel("share of right answers (%)")
    error = 100 * reliability["expected_calibration_error"]
    axes.set_title(f"Reliability, expected calibration error {error:.2f} points", loc="left")
    axes.legend(loc="upper left", fontsize=8)
    return figure


def plot_durations(durations: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the lengths (s) of the items of a collection, one panel for `audio` and one for `video`; NaN is unknown."""
    figure, panels = make_figure(len(durations), 8.6, 2.8, sharey=True)
    for axes, (name, lengths), colour in zip(panels, durations.items(), (BLUE, VERMILION), strict=False):
        known = np.asarray(lengths, np.float64)
        known = known[np.isfinite(known)]
        axes.hist(known, bins=min(_MAX_BINS, max(len(known), 1)), color=colour, alpha=0.75, edgecolor="white", lw=0.5)
        axes.set_title(f"{name}, {len(known):,} items", loc="left")
        axes.set_xlabel(f"length of the {name} (s)")
        _count_in_whole(axes.yaxis)
    panels[0].set_ylabel("items")
    return figure


def plot_training(history: Sequence[Mapping[str, Any]], best_epoch: int | None = None) -> Figure:
    """Draw the loss terms and any validation metrics (`val_...`) over epochs; a line marks the epoch that was kept.

    Values that are missing in an epoch, or not finite, are skipped.
    """
    panels = _group_curves(history)
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure, axes_list = make_figure(columns, max(4.6 * columns, 6.4), 3.7 * rows, rows=rows)
    for axes in axes_list[len(panels) :]:
        axes.set_visible(False)
    for axes, ((title, unit), names) in zip(axes_list, panels.items(), strict=False):
        for place, name in enumerate(names):
            _draw_curve(axes, history, name, place)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=GREY, lw=1.2, ls=(0, (1, 1)), label=f"kept: epoch {best_epoch}")
        axes.set(xlabel="epoch", ylabel=unit)
        _count_in_whole(axes.xaxis)
        axes.set_title(title, loc="left")
        if names or best_epoch is not None:
            axes.legend(loc="best", fontsize=8)
    return figure


def make_figure(
    columns: int, width_in: float, height_in: float, *, rows: int = 1, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Make a figure without pyplot, so that no window, backend or global list is involved."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat)
    for axes in panels:
        axes.grid(True, color="#DDDDDD", lw=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set_fontsize(11)
    return figure, panels


def _count_in_whole(axis: Axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def _choose_ks(recall: Mapping[str, Any], pool_size: int) -> list[int]:
    ks = sorted(int(k) for k in recall)
    return [k for k in ks if k < pool_size] or ks


def _percent(points: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [100 * point[name] for point in points]


def _group_curves(history: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """Map panels, (title, unit of the axis), to the names of curves that hold a finite number."""
    names = dict.fromkeys(name for row in history for name in row)
    panels: dict[tuple[str, str], list[str]] = {}
    for name in [name for name in _TERM_STYLE if name in names] + [name for name in names if name.startswith("val_")]:
        panel = _choose_panel(name)
        if len(_read_curve(history, name)[0]) and name not in panels.get(panel, []):
            panels.setdefault(panel, []).append(name)
    return panels or {("Loss terms", "loss"): []}


def _choose_panel(name: str) -> tuple[str, str]:
    if name in _TERM_STYLE:
        return "Loss terms", "loss"
    if "recall" in name:
        return "Recall@K on validation", "share of queries"
    if "median_rank" in name:
        return "Median rank on validation", "rank"
    if "mrr" in name:
        return "Mean reciprocal rank on validation", "mean of 1 / rank"
    return "Other metrics on validation", "value"


def _draw_curve(axes: Axes, history: Sequence[Mapping[str, Any]], name: str, place: int) -> None:
    label, colour, dash = _TERM_STYLE.get(name) or _style_metric(name, place)
    epochs, values = _read_curve(history, name)
    marker = "." if len(values) <= _FEW_POINTS else None
    axes.plot(epochs, values, color=colour, ls=dash, lw=1.5, marker=marker, label=label)


def _style_metric(name: str, place: int) -> tuple[str, str, str]:
    """Direction gives the colour, the cut-off K the dash; without a direction the mean of both is meant."""
    k = re.search(r"_at_(\d+)", name)
    dash = _DASHES[_DASHED_KS.get(int(k[1]), place % len(_DASHES)) if k else 0]
    for ending, (colour, _, direction_dash) in zip(("_xy", "_yx"), _DIRECTION_STYLE.values(), strict=True):
        if name.endswith(ending):
            return name_metric(name), colour, dash if k else direction_dash
    return name_metric(name), "black", dash


def _read_curve(history: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Read epochs and values of one metric, without epochs that lack it; NaN separates members of an ensemble.

    Networks in closed form do no steps, and their rows no loss.
    """
    rows = [row for row in history if name not in _TERM_STYLE or row.get("steps") != 0]
    points = [(row.get("epoch", number), row.get(name)) for number, row in enumerate(rows, start=1)]
    kept = [(float(x), float(y)) for x, y in points if isinstance(y, int | float) and np.isfinite(y)]
    for place in range(len(kept) - 1, 0, -1):
        if kept[place][0] <= kept[place - 1][0]:
            kept.insert(place, (np.nan, np.nan))
    return [x for x, _ in kept], [y for _, y in kept]
