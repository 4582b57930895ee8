"""`kedro demo-media`: a collection to try everything on."""

from __future__ import annotations

from pathlib import Path

import click

from vmnet_pipeline.commands.collection import DEMO
from vmnet_pipeline.commands.errors import tell_errors
from vmnet_pipeline.commands.project import ProjectCommand


@click.command(name="demo-media", cls=ProjectCommand, short_help="Make video clips with music to try everything on.")
@click.option("--folder", type=click.Path(path_type=Path), default=DEMO, show_default=True, help="Where to.")
@click.option("--pairs", type=click.IntRange(4, 10_000), default=200, show_default=True, help="Number of clips.")
@click.option("--seed", type=int, default=None, help="Another seed gives another collection.")
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes; all cores by default.")
@tell_errors()
def make_demo_media(folder: Path, pairs: int, seed: int | None, workers: int | None) -> None:
    """Make the demo collection: real video and music files, synthesised here, the same on every machine.

    Repeating it costs nothing; an interrupted run goes on where it was.
    """
    from vmnet_pipeline.demo import DemoSpec, make_demo_collection
    from vmnet_pipeline.progress import track

    spec = DemoSpec(n_pairs=pairs) if seed is None else DemoSpec(n_pairs=pairs, seed=seed)
    with track("demo media", pairs) as bar:
        path = make_demo_collection(folder, spec, n_workers=workers, progress=bar.advance)
    click.echo(f"Demo media: {path}")
