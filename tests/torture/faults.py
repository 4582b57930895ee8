"""Kills, faults at writing, jumps of the clock, two drivers, flipped bytes: what they leave, and what becomes of it.

Every seed begins with a project that stands right before a stage, ill-treats the command of that stage, looks at every
file that is there with its own reader, runs the same command again undisturbed, and compares all outputs with those of
a project that nobody disturbed (what is compared how: fault_outputs.py).
"""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fault_flips import flip_bytes
from fault_lab import STAGES, WHOLE, Ending, Fault, Lab, draw
from fault_outputs import compare_outputs, digest_outputs, find_half_files
from row import Row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KILL = -1
DAY_S = 86_400
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
SHORT_SEEDS, LONG_SEEDS = 2, 104
"""Kills. Of faults at writing there are a quarter as many, of jumps of the clock a twelfth, of two drivers a 26th."""

WORKERS = (1, 1, 1, 2)
"""Of an extraction; with two it has processes of its own, whose start takes longer than all its work."""

FIRST = "first"
"""The first command in an empty project, which also makes the database of MLflow."""

AFTER = "after"
"""The undisturbed project at its end."""


@dataclass
class Reference:
    """Undisturbed runs: the project before each stage, its outputs after it, and what the stage took."""

    before: dict[str, Path] = field(default_factory=dict)
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    operations: dict[str, int] = field(default_factory=dict)


@dataclass
class Tally:
    """Grows to a row."""

    what: str
    tried: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def count(self, name: str, end: str, problems: list[str]) -> None:
        """One more: ended as foreseen, unless there are problems."""
        print(f"{name}: {problems or end}", flush=True)
        self.tried += 1
        self.ended[end] += not problems
        self.failures += [f"{name}: {problem}" for problem in problems]

    def row(self) -> Row:
        return Row(self.what, self.tried, dict(+self.ended), self.failures)


def run(folder: Path, *, long: bool, seeds: int | None) -> list[Row]:
    """All faults."""
    n = seeds or (LONG_SEEDS if long else SHORT_SEEDS)
    with Lab(folder) as lab:
        reference = run_undisturbed(lab, [FIRST, *STAGES, WHOLE] if long else [FIRST, *STAGES])
        rows = kill_at_random_times(lab, reference, n - n // 2)
        if lab.can_strike:
            rows += kill_at_operations(lab, reference, n // 2)
            rows += fail_operations(lab, reference, max(1, n // 4))
            rows += jump_clock(lab, reference, max(1, n // 12))
        rows += start_two_drivers(lab, reference, max(1, n // 26))
        rows += flip_bytes(lab.folder / "before" / AFTER, folder / "flips", long=long)
    return [row for row in rows if row.tried]


def run_undisturbed(lab: Lab, stages: Sequence[str]) -> Reference:
    """Run stages once, one after the other, keeping the project before each."""
    reference, project = Reference(), lab.make_project("p")
    for stage in stages:
        if stage == WHOLE:
            project = lab.make_project("p", reference.before["ingest"])
        reference.before[stage] = keep(lab, project, stage)
        ending = lab.run(project, command_of(stage), fault=Fault(0, below="data"), tracks=tracks(stage, 0))
        note(reference, stage, project, check(ending))
        if stage == FIRST:
            shutil.rmtree(project / "data")  # the database stays
    keep(lab, project, AFTER)
    return reference


def keep(lab: Lab, project: Path, name: str) -> Path:
    copy = lab.folder / "before" / name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(project, copy)
    return copy


def note(reference: Reference, stage: str, project: Path, ending: Ending) -> None:
    reference.outputs[stage] = digest_outputs(project)
    reference.seconds[stage], reference.operations[stage] = ending.seconds, ending.n_operations
    print(f"undisturbed {stage}: {ending.seconds:.1f} s, {ending.n_operations} operations", flush=True)


def check(ending: Ending) -> Ending:
    if ending.code != 0:
        raise RuntimeError(f"an undisturbed run ended with code {ending.code}:\n{ending.output[-3000:]}")
    return ending


# --- kills


def kill_at_random_times(lab: Lab, reference: Reference, n: int) -> list[Row]:
    """Kill the process group at moments drawn over the time that the stage takes undisturbed, up to three times."""
    tallies = {stage: Tally(f"killed at a random time: {stage}") for stage in reference.before}
    for seed in range(n):
        stage, rng = choose_stage(reference, seed), draw(seed, "time")
        project = lab.make_project("p", reference.before[stage])
        problems, ends = [], []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            started = lab.start(project, command_of(stage), n_workers=rng.choice(WORKERS), tracks=tracks(stage, seed))
            ends.append(started.kill_after(rng.uniform(0, reference.seconds[stage])))
            problems += find_half_files(project)
        end = "had ended" if all(ending.code == 0 for ending in ends) else "killed, resumed, equal"
        problems += resume(lab, project, stage, seed, reference)
        tallies[stage].count(f"{stage}, seed {seed}", end, problems)
    return [tally.row() for tally in tallies.values()]


def kill_at_operations(lab: Lab, reference: Reference, n: int) -> list[Row]:
    """Kill it in the middle of one of its operations on files of `data`; a write is done by half."""
    tallies = {stage: Tally(f"killed in an operation: {stage}") for stage in reference.before}
    for seed in range(n):
        stage, rng = choose_stage(reference, seed), draw(seed, "operation")
        project = lab.make_project("p", reference.before[stage])
        fault = Fault(rng.randint(1, reference.operations[stage]), KILL, below="data")
        ending = lab.run(
            project, command_of(stage), n_workers=rng.choice(WORKERS), fault=fault, tracks=tracks(stage, seed)
        )
        problems = find_half_files(project)
        end = "had ended" if ending.code == 0 else "killed, resumed, equal"
        problems += resume(lab, project, stage, seed, reference)
        tallies[stage].count(f"{stage}, seed {seed}, operation {fault.at}", end, problems)
    return [tally.row() for tally in tallies.values()]


CYCLE = (
    "extract",
    "train",
    "ingest",
    "index",
    "embed",
    "extract",
    "train",
    "evaluate",
    WHOLE,
    "index",
    "ingest",
    FIRST,
)


def choose_stage(reference: Reference, seed: int) -> str:
    """The stages in turn, those with more to lose more often."""
    stages = [stage for stage in CYCLE if stage in reference.before]
    return stages[seed % len(stages)]


def tracks(stage: str, seed: int) -> bool:
    """MLflow takes part in whole runs, in the first one and in every fourth other one."""
    return stage in (WHOLE, FIRST) or seed % 4 == 3


def command_of(stage: str) -> str:
    return "ingest" if stage == FIRST else stage


def resume(lab: Lab, project: Path, stage: str, seed: int, reference: Reference) -> list[str]:
    """Run the command again and compare."""
    ending = lab.run(project, command_of(stage), tracks=tracks(stage, seed))
    if ending.code != 0:
        return [f"the next run ended with code {ending.code}: {last_line(ending)}"]
    return compare_outputs(reference.outputs[stage], digest_outputs(project)) + find_half_files(project)


def last_line(ending: Ending) -> str:
    """What a command said last of its end."""
    lines = [line.strip() for line in ending.output.splitlines() if line.strip(" │╭╰╮╯─")]
    lines = [line for line in lines if not line.startswith(("fault_operations", "(Set VMNET", "_"))]
    return lines[-1][:400] if lines else "nothing was printed"


# --- faults at writing


def fail_operations(lab: Lab, reference: Reference, n: int) -> list[Row]:
    """Let one operation fail: a disk that gets full, a defect disk, missing rights."""
    tallies = {error: Tally(f"{errno.errorcode[error]} at a write") for error in ERRORS}
    for seed in range(n):
        error, rng = ERRORS[seed % len(ERRORS)], draw(seed, "fault")
        stage = choose_stage(reference, seed // len(ERRORS))
        project = lab.make_project("p", reference.before[stage])
        n_operations = reference.operations[stage]  # of names, which alone need rights, some third
        at = rng.randint(1, max(1, n_operations // 4) if error == errno.EACCES else n_operations)
        fault = Fault(at, error, below="data")
        ending = lab.run(
            project, command_of(stage), n_workers=rng.choice(WORKERS), fault=fault, tracks=tracks(stage, seed)
        )
        end, problems = judge_failure(ending)
        problems += find_half_files(project)
        problems += resume(lab, project, stage, seed, reference)
        tallies[error].count(f"{errno.errorcode[error]}, {stage}, seed {seed}, operation {at}", end, problems)
    return [tally.row() for tally in tallies.values()]


def judge_failure(ending: Ending) -> tuple[str, list[str]]:
    """A run that meets a fault goes on without harm, or ends with an error of this project that says what to do."""
    if ending.code == 0:
        return "did without", []
    if "(Set VMNET_TRACEBACK=1" in ending.output:
        return "one clear error", []
    return "", [f"ended with code {ending.code} and no clear error: {last_line(ending)}"]


# --- clock


def jump_clock(lab: Lab, reference: Reference, n: int) -> list[Row]:
    """Move the clock by a day amid a run, perhaps kill it later, and resume with the true clock."""
    tally = Tally("clock a day off amid a run")
    for seed in range(n):
        stage, rng = choose_stage(reference, seed), draw(seed, "clock")
        project = lab.make_project("p", reference.before[stage])
        at, jump_s = rng.randint(1, reference.operations[stage]), rng.choice((-DAY_S, DAY_S))
        fault = Fault(at, jump_s=jump_s, below="data")
        started = lab.start(
            project, command_of(stage), n_workers=rng.choice(WORKERS), fault=fault, tracks=tracks(stage, seed)
        )
        ending = started.kill_after(rng.uniform(0.5, 1.5) * reference.seconds[stage])
        shift_times(project / "data", jump_s)
        problems = find_half_files(project)
        if ending.code > 0:
            problems.append(f"ended with code {ending.code}: {last_line(ending)}")
        problems += resume(lab, project, stage, seed, reference)
        end = "ended, equal" if ending.code == 0 else "killed, resumed, equal"
        tally.count(f"clock {jump_s:+d} s, {stage}, seed {seed}", end, problems)
    return [tally.row()]


def shift_times(folder: Path, seconds: int) -> None:
    """Give files the times of change that they would have if the clock of the file system had jumped as well."""
    for path in folder.rglob("*"):
        times = path.stat()
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + seconds * 10**9))


# --- two drivers


def start_two_drivers(lab: Lab, reference: Reference, n: int) -> list[Row]:
    """Start the same command twice at the same time on one project; one may be refused, and says by whom."""
    tally = Tally("two drivers on one store")
    for seed in range(n):
        stage, rng = choose_stage(reference, seed), draw(seed, "drivers")
        project = lab.make_project("p", reference.before[stage])
        first = lab.start(project, command_of(stage), n_workers=rng.choice(WORKERS), tracks=tracks(stage, seed))
        first.wait_for(rng.uniform(0, 0.3) * reference.seconds[stage])
        endings = [lab.run(project, command_of(stage), tracks=tracks(stage, seed)), first.wait()]
        problems = [problem for problem in map(judge_driver, endings) if problem]
        n_good = sum(ending.code == 0 for ending in endings)
        problems += [] if n_good else ["neither came to its end"]
        problems += find_half_files(project) + compare_outputs(reference.outputs[stage], digest_outputs(project))
        tally.count(f"two drivers, {stage}, seed {seed}", f"{n_good} of 2 came to the end, equal", problems)
    return [tally.row()]


def judge_driver(ending: Ending) -> str:
    if ending.code == 0 or "is being worked on by" in ending.output:
        return ""
    return f"ended with code {ending.code}: {last_line(ending)}"
