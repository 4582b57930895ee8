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
    """List all weight sets: presence, licence, source; and the precisions measured here."""
    from vmnet_pipeline.backends.calibration import list_calibrations
    from vmnet_pipeline.backends.converted import FOLDER
    from vmnet_pipeline.backends.encoders.fetch import list_models

    for row in list_weights(weights_dir):
        state = "here" if row["present"] else "-"
        click.echo(f"{row['name']:<20} {state:<5} {row['licence']:<14} {row['homepage']}")
    for row in list_models(weights_dir):
        state, revision = "here" if row["present"] else "-", row["revision"][:12] or "name one"
        click.echo(f"{row['name']:<20} {state:<5} {row['licence']:<14} {row['model']} revision {revision}")
    for calibration in list_calibrations(weights_dir / FOLDER):
        click.echo(f"precision: {calibration.describe()}")
    say_next("kedro weights fetch NAME; a run fetches what it needs")


@manage_weights.command(name="fetch")
@click.argument("names", nargs=-1, required=True)
@choose_weights
@click.option("--allow-noncommercial", is_flag=True, help="Also encoders that are not for commercial use.")
@report_errors()
def fetch_weight_sets(names: tuple[str, ...], weights_dir: Path, allow_noncommercial: bool) -> None:
    """Fetch weights and verify them; those already present are not fetched again.

    NAMES are weight sets, presets of encoders, or other encoders as OWNER/NAME@REVISION.
    """
    from vmnet_pipeline.backends.encoders.fetch import fetch_model, is_encoder

    for name in names:
        if is_encoder(name):
            folder = fetch_model(name, weights_dir, allow_noncommercial=allow_noncommercial)
            click.echo(f"{name}: {folder}")
            continue
        resolved = resolve_weights(name, weights_dir)
        click.echo(f"{name}: {', '.join(str(path) for path in resolved.paths)}")


@manage_weights.command(name="verify")
@click.argument("names", nargs=-1)
@choose_weights
@report_errors()
def verify_weight_sets(names: tuple[str, ...], weights_dir: Path) -> None:
    """Compare weight files with their checksums; by default all that are present."""
    from vmnet_pipeline.backends.encoders.fetch import find_fetched, is_encoder, verify_model

    fetched = [f"{path.parent.name.replace('--', '/')}@{path.name}" for path in find_fetched(weights_dir)]
    for name in names or (*(row["name"] for row in list_weights(weights_dir) if row["present"]), *fetched):
        if is_encoder(name):
            for folder in find_fetched(weights_dir, name):
                verify_model(folder)
        else:
            verify_weights(name, weights_dir)
        click.echo(f"{name}: good")
