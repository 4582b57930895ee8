"""The part `parsers`: damaged and hostile files and bodies, a value or one of the project's errors; see `fuzzing`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from row import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

CASES_PER_SEED = 120
LONG_SEEDS = 25


def run(folder: Path, *, long: bool, seeds: int | None) -> list[Row]:
    """One row per kind of file; `seeds` times `CASES_PER_SEED` cases each."""
    n = seeds or (LONG_SEEDS if long else 1)
    return fuzz_parsers(folder, n_cases=CASES_PER_SEED * n, seed=0)


def fuzz_parsers(folder: Path, *, n_cases: int, seed: int, only: Sequence[str] = ()) -> list[Row]:
    """Fuzz in a process of its own, which forks: this one may have threads."""
    command = [sys.executable, str(Path(__file__).with_name("fuzzing.py")), str(folder)]
    command += ["--cases", str(n_cases), "--seed", str(seed), *(["--only", *only] if only else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis")}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return [Row(**json.loads(line)) for line in done.stdout.splitlines()]
