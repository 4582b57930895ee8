"""What the report says of the data and of the work: the split, lengths, what failed, time and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmnet_pipeline.reporting.labels import humanise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MIB = 2**20


def lay_out_sides(sides: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The table of the split.

    Args:
        sides: Side to what `ingestion.manifest.measure_subsets` gives; lengths may be missing.
    """
    if not sides:
        return None
    rows = [
        [
            name,
            f"{side['n_items']:,}",
            f"{side['n_groups']:,}",
            *(_format_length(side, key) for key in ("audio_hours", "shortest_s", "median_s", "longest_s")),
        ]
        for name, side in sides.items()
    ]
    heads = ["side", "pairs", "groups", "hours of audio", "shortest (s)", "median (s)", "longest (s)"]
    if not any("audio_hours" in side for side in sides.values()):
        heads, rows = heads[:3], [row[:3] for row in rows]
    return {"heads": heads, "rows": rows}


def _format_length(side: Mapping[str, Any], key: str) -> str:
    return f"{side[key]:,.{2 if key == 'audio_hours' else 1}f}" if key in side else ""


def lay_out_failures(parts: Sequence[tuple[str, Mapping[str, Any] | None]]) -> dict[str, Any] | None:
    """How many items each part of the work lost, by reason, or warned of; None where nothing is known.

    Args:
        parts: Name and summary of each part, with `failures_by_reason` and `failed_items`.
    """
    known = [(name, summary) for name, summary in parts if summary and "failures_by_reason" in summary]
    rows = [
        [name, humanise(reason), f"{count:,}", _find_example(summary, reason)]
        for name, summary in known
        for reason, count in summary["failures_by_reason"].items()
    ]
    rows += [
        [name, "used, with a warning", f"{summary['n_warned']:,}", _quote_warning(summary["warned_items"][0])]
        for name, summary in known
        if summary.get("n_warned")
    ]
    return {"heads": ["part", "reason", "items", "one of them"], "rows": rows} if known else None


def _quote_warning(item: Mapping[str, Any]) -> str:
    return f"{item['id']}: " + "; ".join(text for name, text in item.items() if name != "id" and text)


def _find_example(summary: Mapping[str, Any], reason: str) -> str:
    for item in summary.get("failed_items") or []:
        if item.get("reason") == reason:
            return f"{item['id']}: {item.get('error', '')}"
    return ""


def lay_out_stages(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The table of time and memory.

    Args:
        stages: What `tracking.stages.read_stages` gives.
    """
    if not stages:
        return None
    has_workers = any(stage["workers_bytes"] for stage in stages)
    heads = ["stage", "longest run (s)", "memory (MiB)", "its workers (MiB)", "last run (s)", "runs", "ended (UTC)"]
    rows = [
        [
            stage["name"],
            f"{stage['seconds']:,.1f}",
            f"{stage['memory_bytes'] / _MIB:,.0f}",
            f"{stage['workers_bytes'] / _MIB:,.0f}" if stage["workers_bytes"] else "",
            f"{stage['last_s']:,.1f}",
            str(stage["n_runs"]),
            stage["ended"][:16].replace("T", " "),
        ]
        for stage in stages
    ]
    if not has_workers:
        heads, rows = [*heads[:3], *heads[4:]], [[*row[:3], *row[4:]] for row in rows]
    return {"heads": heads, "rows": rows}


def list_commands(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The commands by which the stages were last run, each once, in the order of the stages.

    That of the report itself is left out: it is of the report before this one.
    """
    told = (stage["command"] for stage in stages if not stage["name"].endswith("write_report"))
    return [command for command in dict.fromkeys(told) if command]
