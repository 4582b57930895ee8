"""The program that is running: `kedro` in a project folder, or `vmnet-pipeline` anywhere."""

from __future__ import annotations

NAME = "vmnet-pipeline"


def name_commands(text: str) -> str:
    """A text with commands of the program that is running; texts are written with `kedro`."""
    import click

    context = click.get_current_context(silent=True)
    if context is None or context.find_root().info_name != NAME:
        return text
    return text.replace("kedro ", f"{NAME} ")


def say_next(text: str) -> None:
    """Print what to do next, as the last line of a command."""
    import click

    click.echo(f"Next: {name_commands(text)}")
