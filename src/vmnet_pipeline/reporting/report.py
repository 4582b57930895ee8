"""The HTML report of one evaluation: a single file without any outside resource, for screen, phone and print."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.reporting.table import format_recall_table
from vmnet_pipeline.reporting.wording import (
    DIRECTION_LABELS,
    choose_pool_ks,
    describe_method,
    describe_pool,
    humanise,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.figure import Figure

__all__ = ["build_report", "encode_png", "format_recall_table"]

PLOT_DPI = 130
N_EXTREMES = 8
_MAX_DEPTH = 8
_MAX_LISTED = 20
_PLOT_TEXTS = {
    "recall": "Recall@K over K in both directions, with intervals and the chance level",
    "ranks": "Histogram of the ranks of the right answers, one panel for each direction",
    "training": "Loss terms and validation figures over the epochs of training",
}


@dataclass(frozen=True, slots=True)
class Leaf:
    """One line of a nested table: `depth` 0 is the outermost; a heading has no value."""

    depth: int
    label: str
    value: str | None


def build_report(
    evaluation: Mapping[str, Any] | None = None,
    ranks: Sequence[Mapping[str, Any]] | None = None,
    history: Sequence[Mapping[str, Any]] | None = None,
    plots: Mapping[str, Figure | bytes] | None = None,
    run_info: Mapping[str, Any] | None = None,
) -> str:
    """Build the report. Every part is optional: what is not given is left out.

    Args:
        evaluation: `Evaluation.to_dict()`.
        ranks: `Evaluation.query_rows`, for the tables of the best and worst queries.
        history: One mapping for each epoch of training, for a summary line.
        plots: Name (`recall`, `ranks`, `training` have captions) to a figure, or to the bytes of a PNG file.
        run_info: Where the figures come from; all keys optional. Text: `title`, `collection`, `variant`, `date`,
            `git_revision`. `command`: text or list of lines. `best_epoch`: number. Mappings of any depth: `versions`,
            `ingest`, `split`, `extraction` (by backend), `checkpoint`, `params`.

    Returns:
        A complete HTML document. Every text from outside is escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    info = dict(run_info or {})
    environment = Environment(
        loader=PackageLoader("vmnet_pipeline.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        title=info.get("title") or "Music and video retrieval",
        facts=_list_facts(info),
        evaluation=None if evaluation is None else _lay_out_evaluation(evaluation),
        extremes=_list_extremes(ranks or []),
        training=_describe_training(history or [], info.get("best_epoch")),
        plots=_embed_plots(plots or {}),
        data=_list_data(info),
        settings=flatten_tree(info.get("params") or {}),
        versions=flatten_tree(info.get("versions") or {}),
        checkpoint=flatten_tree(info.get("checkpoint") or {}),
        commands=_list_commands(info.get("command")),
    )


def encode_png(figure: Figure | bytes, dpi: int = PLOT_DPI) -> str:
    """A figure, or the bytes of a PNG file, as a base64 data address."""
    if isinstance(figure, bytes):
        content = figure
    else:
        buffer = io.BytesIO()
        # Without the version of the plotting library in the file the same figure gives the same bytes.
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        content = buffer.getvalue()
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def flatten_tree(tree: Mapping[str, Any], depth: int = 0, *, plain: bool = False) -> list[Leaf]:
    """Lay a nested mapping out as lines; empty parts are left out, long lists are cut with a note.

    Args:
        tree: Texts, numbers, lists and mappings.
        depth: Of the outermost lines.
        plain: Keys as ordinary words, for counts; otherwise as they are, for settings that are typed that way.
    """
    lines: list[Leaf] = []
    for key, value in tree.items():
        if _is_empty(value):
            continue
        label = humanise(key) if plain else str(key)
        if isinstance(value, dict) and depth < _MAX_DEPTH:
            lines += [Leaf(depth, label, None), *flatten_tree(value, depth + 1, plain=plain)]
        elif isinstance(value, list | tuple) and any(isinstance(entry, dict) for entry in value):
            lines += [Leaf(depth, label, None), *_flatten_records(value, depth + 1)]
        else:
            lines.append(Leaf(depth, label, _format_value(value)))
    return lines


def _flatten_records(records: Sequence[Any], depth: int) -> list[Leaf]:
    lines = []
    for record in records[:_MAX_LISTED]:
        fields = list(record.values()) if isinstance(record, dict) else [record]
        lines.append(Leaf(depth, _format_value(fields[0]), " · ".join(_format_value(field) for field in fields[1:])))
    if len(records) > _MAX_LISTED:
        lines.append(Leaf(depth, f"… and {len(records) - _MAX_LISTED:,} more", ""))
    return lines


def _is_empty(value: Any) -> bool:
    return isinstance(value, dict | list | tuple | str) and len(value) == 0


def _format_value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        shown = [_format_value(entry) for entry in value[:_MAX_LISTED]]
        return ", ".join(shown) + (f", … ({len(value):,})" if len(value) > _MAX_LISTED else "")
    return str(value)


def _list_facts(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    labels = {"collection": "Collection", "variant": "Variant", "date": "Date", "git_revision": "Git revision"}
    return [(label, str(info[key])) for key, label in labels.items() if info.get(key)]


def _list_data(info: Mapping[str, Any]) -> list[tuple[str, list[Leaf]]]:
    parts = [("Ingested", info.get("ingest")), ("Split", info.get("split"))]
    parts += [(f"Features: {backend}", summary) for backend, summary in (info.get("extraction") or {}).items()]
    return [(title, flatten_tree(content, plain=True)) for title, content in parts if content]


def _list_commands(command: str | Iterable[str] | None) -> str:
    if not command:
        return ""
    return command if isinstance(command, str) else "\n".join(command)


def _lay_out_evaluation(evaluation: Mapping[str, Any]) -> dict[str, Any]:
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
    def show(value: float | None) -> str:
        return "" if value is None else f"{scale * value:.{digits}f}{unit}"

    def show_interval(low: float | None, high: float | None) -> str:
        return "" if low is None or high is None else f"{scale * low:.{digits}f} to {scale * high:.{digits}f}"

    cells = [(show(figure["value"]), show_interval(figure["low"], figure["high"])) for figure in figures]
    return {"name": name, "cells": cells, "chance": show(figures[0]["chance"]), "trivial": False}


def _list_extremes(ranks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Best and worst queries of each direction; a query is never in both lists."""
    tables = []
    for direction, label in DIRECTION_LABELS.items():
        ordered = sorted(
            (row for row in ranks if row["direction"] == direction), key=lambda row: (row["rank"], row["id"])
        )
        n_shown = min(N_EXTREMES, len(ordered) // 2)
        parts = {"Best queries": ordered[:n_shown], "Worst queries": ordered[len(ordered) - n_shown :][::-1]}
        tables += [
            {"title": f"{title}, {label}", "rows": [_lay_out_query(row) for row in shown]}
            for title, shown in parts.items()
            if shown
        ]
    return tables


def _lay_out_query(row: Mapping[str, Any]) -> dict[str, Any]:
    answers = row.get("top_ids")
    top = [] if answers is None else [str(answer) for answer in answers]
    return {"id": str(row["id"]), "rank": f"{row['rank']:g}", "top": top[:3]}


def _describe_training(history: Sequence[Mapping[str, Any]], best_epoch: int | None) -> str:
    if not history:
        return ""
    parts = [f"{len(history):,} epochs"]
    if isinstance(history[-1].get("loss"), int | float):
        parts.append(f"last loss {history[-1]['loss']:.4g}")
    if best_epoch is not None:
        parts.append(f"weights of epoch {best_epoch} kept")
    seconds = sum(row.get("seconds") or 0.0 for row in history)
    if seconds:
        parts.append(f"{seconds:.1f} s")
    return ", ".join(parts) + "."


def _embed_plots(plots: Mapping[str, Figure | bytes]) -> list[dict[str, str]]:
    return [
        {"name": name, "text": _PLOT_TEXTS.get(name, humanise(name)), "source": encode_png(figure)}
        for name, figure in plots.items()
    ]
