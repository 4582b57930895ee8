"""Ill-treat the project in seeded ways and report what became of it: `make torture`.

Each part is a module beside this one with `run(folder, *, long, seeds) -> list[Row]`: `folder` is empty and its own,
`seeds` is None for the part's own number. The parts of the short form, which every change has to pass, have these
seconds on two cores: media 90, faults 60, parsers 30, service 60. `--long` is what docs/reliability.md publishes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from row import Row

PARTS = ("media", "faults", "parsers", "service")
HEAD = ("part", "what", "tried", "ended as", "failures")


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found, and where and when."""

    date: str
    machine: str
    form: str
    seconds: dict[str, float]
    rows: dict[str, list[Row]]

    @property
    def failures(self) -> list[str]:
        """Everything that must not happen and did."""
        found = [(part, row) for part, rows in self.rows.items() for row in rows]
        return [f"{part}: {row.what}: {text}" for part, row in found for text in row.failures]


def main() -> int:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="torture-") as own:
        report = run_parts(arguments, arguments.folder or Path(own))
    for text in report.failures:
        print(f"FAILED {text}")
    if arguments.report is not None:
        write_report(report, arguments.report)
    print(summarise(report))
    return 1 if report.failures else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ill-treat the project and report what became of it.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="some parts instead of all")
    parser.add_argument("--long", action="store_true", help="the long form, some tens of minutes")
    parser.add_argument("--seeds", type=int, help="how many seeds each part takes; its own number by default")
    parser.add_argument("--folder", type=Path, help="where to work, kept afterwards; a temporary folder by default")
    parser.add_argument("--report", type=Path, help="JSON file to write; a Markdown table of the same name beside it")
    return parser.parse_args()


def run_parts(arguments: argparse.Namespace, folder: Path) -> Report:
    """Run the parts one after the other; one that raises is a failure, and the next ones run all the same."""
    rows: dict[str, list[Row]] = {}
    seconds: dict[str, float] = {}
    for part in arguments.only:
        own, started = folder / part, time.monotonic()
        own.mkdir(parents=True, exist_ok=True)
        print(f"== {part}", flush=True)
        try:
            rows[part] = import_module(part).run(own, long=arguments.long, seeds=arguments.seeds)
        except Exception as error:
            traceback.print_exc()
            rows[part] = [Row(f"the part {part} itself", 1, {}, [f"{type(error).__name__}: {error}"])]
        seconds[part] = round(time.monotonic() - started, 1)
        for row in rows[part]:
            print(f"{row.what:40} {row.tried:6}  {describe_ends(row)}  failures {len(row.failures)}", flush=True)
        print(f"   {seconds[part]} s", flush=True)
    form = "long" if arguments.long else "short"
    return Report(datetime.now(UTC).strftime("%Y-%m-%d"), describe_machine(), form, seconds, rows)


def describe_ends(row: Row) -> str:
    """`features 12, unknown_format 30`, the most frequent first."""
    return ", ".join(f"{name} {count}" for name, count in sorted(row.ended.items(), key=lambda end: (-end[1], end[0])))


def describe_machine() -> str:
    """Cores, memory, system and Python; no name of the machine."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {memory_gb:.0f} GB, {platform.system()}, Python {platform.python_version()}"


def write_report(report: Report, path: Path) -> None:
    """The report as JSON, and as a Markdown table beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(report), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(make_table(report), encoding="utf-8")


def make_table(report: Report) -> str:
    """The report as a Markdown table."""
    lines = [f"{report.date}, {report.form} form, {report.machine}.", ""]
    lines += ["| " + " | ".join(HEAD) + " |", "|---|---|---:|---|---:|"]
    for part, rows in report.rows.items():
        lines += [f"| {part} | {r.what} | {r.tried:,} | {describe_ends(r)} | {len(r.failures)} |" for r in rows]
    return "\n".join([*lines, ""])


def summarise(report: Report) -> str:
    """One line for the end of the output."""
    tried = sum(row.tried for rows in report.rows.values() for row in rows)
    return f"tried {tried}, failures {len(report.failures)}, {sum(report.seconds.values()):.0f} s"


if __name__ == "__main__":
    sys.exit(main())
