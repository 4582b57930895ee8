"""Tables of the report about data and run: the split, lengths, failures, time and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmnet_pipeline.reporting.labels import humanise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MIB = 2**20


def lay_out_sides(sides: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Lay out the table of the split, from `ingestion.manifest.measure_subsets`; lengths may be missing."""
    if not sides:
        return None
    heads = ["subset", "pairs", "groups", "hours of audio", "shortest (s)", "median (s)", "longest (s)"]
    digits = {"audio_hours": 2, "shortest_s": 1, "median_s": 1, "longest_s": 1}
    rows = []
    for name, side in sides.items():
        lengths = [f"{side[key]:,.{n}f}" if key in side else "" for key, n in digits.items()]
        rows.append([name, f"{side['n_items']:,}", f"{side['n_groups']:,}", *lengths])
    if not any("audio_hours" in side for side in sides.values()):
        heads, rows = heads[:3], [row[:3] for row in rows]
    return {"heads": heads, "rows": rows}


def lay_out_failures(parts: Sequence[tuple[str, Mapping[str, Any] | None]]) -> dict[str, Any] | None:
    """Lay out how many items each part of the work lost, by reason, or warned of; None where nothing is known."""
    known = [(name, summary) for name, summary in parts if summary and "failures_by_reason" in summary]
    rows = [
        [name, humanise(reason), f"{count:,}", _find_example(summary, reason)]
        for name, summary in known
        for reason, count in summary["failures_by_reason"].items()
    ]
    for name, summary in known:
        if summary.get("n_warned"):
            item = summary["warned_items"][0]
            example = f"{item['id']}: " + "; ".join(text for key, text in item.items() if key != "id" and text)
            rows.append([name, "used, with a warning", f"{summary['n_warned']:,}", example])
    return {"heads": ["part", "reason", "items", "example"], "rows": rows} if known else None


def _find_example(summary: Mapping[str, Any], reason: str) -> str:
    for item in summary.get("failed_items") or []:
        if item.get("reason") == reason:
            return f"{item['id']}: {item.get('error', '')}"
    return ""


def lay_out_stages(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Lay out the table of time and memory, from `tracking.stages.read_stages`."""
    if not stages:
        return None
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
    if not any(stage["workers_bytes"] for stage in stages):
        heads, rows = [*heads[:3], *heads[4:]], [[*row[:3], *row[4:]] for row in rows]
    return {"heads": heads, "rows": rows}


def list_commands(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the commands that last ran the stages, without repeats; that of `write_report` is of an earlier report."""
    commands = (stage["command"] for stage in stages if not stage["name"].endswith("write_report"))
    return [command for command in dict.fromkeys(commands) if command]
