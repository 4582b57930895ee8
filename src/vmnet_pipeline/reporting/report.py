"""The HTML report of one evaluation: a single file without any outside resource, for screen, phone and print."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.reporting.labels import humanise
from vmnet_pipeline.reporting.metric_tables import Comparison, lay_out_comparison, lay_out_evaluation, lay_out_reranking
from vmnet_pipeline.reporting.query_examples import choose_queries, lay_out_queries
from vmnet_pipeline.reporting.run_tables import lay_out_failures, lay_out_sides, lay_out_stages, list_commands

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.figure import Figure

    from vmnet_pipeline.types import Modality

PLOT_DPI = 130
_MAX_DEPTH = 8
_MAX_LISTED = 20
_PLOT_TEXTS = {
    "recall": "Recall@K over K in both directions, with intervals and the chance level",
    "ranks": "Histogram of the ranks of the relevant items, one panel for each direction",
    "reliability": "Probability of the best answers against the share that is right, with intervals",
    "training": "Loss terms and validation figures over the epochs of training",
    "comparison": "Recall@K, mean reciprocal rank and its paired differences in the comparison, with intervals",
    "variants": "Recall@K, mean reciprocal rank and its paired differences of the variants, with intervals",
    "durations": "Durations of the audio and the video of the usable items",
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
    *,
    reranking: Mapping[str, Any] | None = None,
    comparisons: Sequence[Comparison] = (),
    previews: Mapping[tuple[Modality, str], bytes] | None = None,
) -> str:
    """Build the report. Every part is optional: what is not given is left out.

    Args:
        evaluation: `Evaluation.to_dict()`.
        ranks: `Evaluation.query_rows`, for the tables of the best and worst queries.
        history: One mapping for each epoch of training, for a summary line.
        plots: Name to a figure, or to the bytes of a PNG file; `_PLOT_TEXTS` has captions.
        run_info: Origin of the metrics; all keys optional. Text: `title`, `collection`, `variant`, `date`,
            `git_revision`, `media_note` (why there are no previews). `command`: text or list of lines, in place of the
            commands in `stages`. `best_epoch`: number. `sides`: see `ingestion.manifest.measure_subsets`. `stages`: see
            `tracking.stages.read_stages`. `notes`: texts about what was left out. Mappings of any depth: `versions`,
            `ingest`, `split`, `extraction` (by backend), `checkpoint`, `params`, `identity` (checksums and seeds).
        reranking: See `experiments.reranking.measure_reranking`.
        comparisons: Variants compared; the plot of the same name is shown with each.
        previews: JPEG frames and MP3 clips by modality and item id.

    Returns:
        A complete HTML document. Every text from outside is escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    info = dict(run_info or {})
    loader = PackageLoader("vmnet_pipeline.reporting")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    embedded = {
        name: {"text": _PLOT_TEXTS.get(name, humanise(name)), "source": encode_png(figure)}
        for name, figure in (plots or {}).items()
    }
    stages = info.get("stages") or []
    return environment.get_template("report.html.j2").render(
        title=info.get("title") or "Music and video retrieval",
        facts=_list_facts(info),
        evaluation=None if evaluation is None else lay_out_evaluation(evaluation),
        reranking=lay_out_reranking(reranking, (evaluation or {}).get("confidence_level")),
        comparisons=[(lay_out_comparison(found), embedded.pop(found.name, None)) for found in comparisons],
        notes=info.get("notes") or [],
        queries=lay_out_queries(choose_queries(ranks or []), previews or {}),
        has_previews=bool(previews),
        media_note=info.get("media_note") or "",
        training=_describe_training(history or [], info.get("best_epoch")),
        durations=embedded.pop("durations", None),
        plots=list(embedded.values()),
        data=_list_data(info),
        sides=lay_out_sides(info.get("sides") or {}),
        failures=lay_out_failures(_list_parts(info)),
        settings=_list_settings(info.get("params") or {}),
        stages=lay_out_stages(stages),
        versions=_list_settings(info.get("versions") or {}),
        checkpoint=flatten_tree(info.get("checkpoint") or {}),
        identity=flatten_tree(info.get("identity") or {}),
        commands=_list_commands(info.get("command") or list_commands(stages)),
    )


def encode_png(figure: Figure | bytes, dpi: int = PLOT_DPI) -> str:
    """Encode a figure, or the bytes of a PNG file, as a base64 data URL."""
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

    `plain` shows keys as words, for counts; otherwise they stay as they are, for settings that are typed that way.
    """
    lines: list[Leaf] = []
    for key, value in tree.items():
        if isinstance(value, dict | list | tuple | str) and not value:
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


def _list_parts(info: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any] | None]]:
    """List the parts of the work that lose items, with their summaries."""
    extraction = info.get("extraction") or {}
    return [("Ingested", info.get("ingest")), *((f"Features: {name}", summary) for name, summary in extraction.items())]


def _list_data(info: Mapping[str, Any]) -> list[tuple[str, list[Leaf]]]:
    tables = []
    for title, summary in [*_list_parts(info), ("Split", info.get("split"))]:
        # The reasons of failures have a table to themselves.
        counts = {name: value for name, value in (summary or {}).items() if name != "failures_by_reason"}
        tables.append((title, flatten_tree(counts, plain=True)))
    return [(title, lines) for title, lines in tables if lines]


def _list_settings(params: Mapping[str, Any]) -> list[tuple[str, list[Leaf]]]:
    """Lay out a table per part of the settings; single settings come first, without a heading."""
    parts = {name: value for name, value in params.items() if isinstance(value, dict)}
    alone = {name: value for name, value in params.items() if name not in parts}
    tables = [("", flatten_tree(alone)), *((name, flatten_tree(part)) for name, part in parts.items())]
    return [(name, lines) for name, lines in tables if lines]


def _list_commands(command: str | Iterable[str] | None) -> str:
    if not command:
        return ""
    return command if isinstance(command, str) else "\n".join(command)


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
