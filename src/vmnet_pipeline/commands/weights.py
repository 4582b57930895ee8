"""`kedro weights`: the weight files of the feature backends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vmnet_pipeline.backends.weights import list_weights, resolve_weights, verify_weights
from vmnet_pipeline.commands.collection import choose_weights
from vmnet_pipeline.commands.errors import report_errors
from vmnet_pipeline.commands.project import ProjectGroup
from vmnet_pipeline.hooks.program import say_next

if TYPE_CHECKING:
    from pathlib import Path


@click.group(name="weights", cls=ProjectGroup, short_help="Weights of the feature networks: list, fetch, verify.")
def manage_weights() -> None:
    """Weight files of the feature backends: list, fetch, verify."""


@manage_weights.command(name="list")
@choose_weights
@report_errors()
def list_weight_sets(weights_dir: Path) -> None:
    """List all weight sets: presence, licence, source."""
    for row in list_weights(weights_dir):
        state = "here" if row["present"] else "-"
        click.echo(f"{row['name']:<20} {state:<5} {row['licence']:<12} {row['homepage']}")
    say_next("kedro weights fetch NAME; a run fetches what it needs")


@manage_weights.command(name="fetch")
@click.argument("names", nargs=-1, required=True)
@choose_weights
@report_errors()
def fetch_weight_sets(names: tuple[str, ...], weights_dir: Path) -> None:
    """Fetch weight sets by name and verify them; those already present are not fetched again."""
    for name in names:
        resolved = resolve_weights(name, weights_dir)
        click.echo(f"{name}: {', '.join(str(path) for path in resolved.paths)}")


@manage_weights.command(name="verify")
@click.argument("names", nargs=-1)
@choose_weights
@report_errors()
def verify_weight_sets(names: tuple[str, ...], weights_dir: Path) -> None:
    """Compare weight files with their checksums; by default all that are present."""
    for name in names or [row["name"] for row in list_weights(weights_dir) if row["present"]]:
        verify_weights(name, weights_dir)
        click.echo(f"{name}: good")
