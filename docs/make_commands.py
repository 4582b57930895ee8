"""Write docs/commands.md from the commands themselves: `python docs/make_commands.py`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vmnet_pipeline.cli import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = Path(__file__).with_name("commands.md")

HEAD = """# Commands

Written by `python docs/make_commands.py` from the commands themselves. They extend Kedro's own, of which `run`, `viz`, `registry` and `catalog` are
useful here. Outside a project folder, use `vmnet-pipeline`, which has the same commands.

Exit codes: 0 success, 1 [an error](errors.md), 2 wrong usage, 3 a run that could not be [logged](tracking.md). [Installing](installing.md#exit-codes) describes
them, terminal output and shell completion.

## kedro run

| option | meaning |
|---|---|
| `--pipeline NAME`, `--pipelines=A,B` | only these [pipelines](pipelines.md) |
| `--params NAME=VALUE,...` | [parameters](parameters.md) |
| `--tags map`, `--tags reduce` | the steps of an [array job](scaling.md) |
| `--env cuda` | the settings of `conf/cuda` |
| `--only-missing-outputs` | skip steps whose outputs exist |
"""


def list_commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """A command, or those of a group, with the words that call them; in alphabetical order."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name, part in sorted(command.commands.items()):
        yield from list_commands(part, f"{path} {name}")


def describe_command(path: str, command: click.Command) -> str:
    """The section of one command."""
    arguments = [_name_argument(option) for option in command.params if isinstance(option, click.Argument)]
    options = [option for option in command.params if isinstance(option, click.Option)]
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    parts = [f"## {path}", "", f"`{' '.join([path, *arguments])}`", "", text, ""]
    if options:
        parts += ["| option | default | meaning |", "|---|---|---|", *map(_describe_option, options), ""]
    return "\n".join(parts)


def _name_argument(argument: click.Parameter) -> str:
    name = (argument.name or "").upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _describe_option(option: click.Option) -> str:
    kind = "" if option.is_flag else f" {option.type.name.upper().replace('INTEGER RANGE', 'INTEGER')}"
    names = ", ".join(f"`{name}{kind}`" for name in option.opts)
    shown = option.default is not None and not option.is_flag and not callable(option.default)
    default = f"`{option.default}`" if shown and str(option.default) not in ("", "()", "Sentinel.UNSET") else ""
    text = " ".join((option.help or "").split()).split("  [default")[0].replace("|", "\\|")
    many = " May be repeated." if option.multiple and "repeatable" not in (option.help or "") else ""
    return f"| {names} | {default} | {text}{many} |"


def make_page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(describe_command(path, command) for path, command in list_commands(cli, "kedro"))])


if __name__ == "__main__":
    TARGET.write_text(make_page(), encoding="utf-8")
