"""`kedro demo-media`: make the demo collection."""

from __future__ import annotations

from pathlib import Path

import click

from vmnet_pipeline.commands.collection import DEMO
from vmnet_pipeline.commands.errors import report_errors
from vmnet_pipeline.commands.project import ProjectCommand
from vmnet_pipeline.hooks.program import say_next


@click.command(name="demo-media", cls=ProjectCommand, short_help="Make a demo collection of music videos.")
@click.option("--folder", type=click.Path(path_type=Path), default=DEMO, show_default=True, help="Output folder.")
@click.option("--pairs", type=click.IntRange(4, 10_000), default=200, show_default=True, help="Number of clips.")
@click.option("--seed", type=int, default=None, help="Another seed gives another collection.")
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes; all cores by default.")
@report_errors()
def make_demo_media(folder: Path, pairs: int, seed: int | None, workers: int | None) -> None:
    """Make the demo collection: synthetic video and music files, the same on every machine.

    An interrupted run resumes where it stopped; a finished collection is left as it is.
    """
    from vmnet_pipeline.demo import DemoSpec, make_demo_collection
    from vmnet_pipeline.progress import track

    spec = DemoSpec(n_pairs=pairs) if seed is None else DemoSpec(n_pairs=pairs, seed=seed)
    with track("demo media", pairs) as bar:
        path = make_demo_collection(folder, spec, n_workers=workers, progress=bar.advance)
    click.echo(f"Demo media: {path}")
    say_next("kedro run" if folder == DEMO else f"kedro run --params media_dir={folder}")
