"""Reads a Dockerfile as far as the tests need it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Step(NamedTuple):
    """One instruction: its name, its options (`--from=build`, ...), and the rest."""

    name: str
    options: dict[str, str]
    rest: str

    @property
    def words(self) -> list[str]:
        """The rest as a list of words, whichever of the two forms it has."""
        return json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)


def read_stages(text: str) -> list[list[Step]]:
    """The steps of every stage, `FROM` first; what stands before it is left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    stages: list[list[Step]] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        step = _read_step(line)
        if step.name == "FROM":
            stages.append([])
        if stages:
            stages[-1].append(step)
    return stages


def _read_step(line: str) -> Step:
    name, _, rest = line.strip().partition(" ")
    options, rest = {}, rest.strip()
    while rest.startswith("--"):
        option, _, rest = rest.partition(" ")
        key, _, value = option.removeprefix("--").partition("=")
        options[key], rest = value, rest.strip()
    return Step(name.upper(), options, rest)


def list_copied(stage: list[Step]) -> list[tuple[str, str]]:
    """Source and target of everything that a stage copies out of the project."""
    copies = [step.words for step in stage if step.name == "COPY" and "from" not in step.options]
    return [(source, words[-1]) for words in copies for source in words[:-1]]


def find_words(stage: list[Step], name: str) -> list[str]:
    """The words of the one instruction of this name."""
    (step,) = [step for step in stage if step.name == name]
    return step.words


def find_healthcheck(stage: list[Step]) -> list[str]:
    """The command that tells whether the container is well."""
    (step,) = [step for step in stage if step.name == "HEALTHCHECK"]
    return json.loads(step.rest.removeprefix("CMD").strip())
