"""`kedro import-features`: pickled features of the 2017 code to .npy files."""

from __future__ import annotations

from pathlib import Path

import click

from vmnet_pipeline.commands.errors import report_errors
from vmnet_pipeline.hooks.program import say_next


@click.command(name="import-features", short_help="Import pickled features of the 2017 code.")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@report_errors(OSError)
def import_pickled_features(folder: Path, output: Path) -> None:
    """Convert FOLDER/ID.pkl, one vector each, to OUTPUT/ID.npy without running any code of the pickles.

    Other files are reported and left out; the exit code is then 1.
    """
    import numpy as np

    from vmnet_pipeline.errors import PairsError
    from vmnet_pipeline.reference.pickles import read_pickled_vector
    from vmnet_pipeline.storage.atomic import replace_atomically

    paths = sorted(folder.glob("*.pkl"))
    if not paths:
        raise click.ClickException(f"{folder} has no .pkl files. Give the output folder of the extractor.")
    output.mkdir(parents=True, exist_ok=True)
    n_failed = 0
    for path in paths:
        try:
            vector = read_pickled_vector(path)
        except PairsError as error:
            click.echo(f"Left out: {error}", err=True)
            n_failed += 1
            continue
        with replace_atomically(output / f"{path.name.removesuffix('.pkl')}.npy") as temporary:
            np.save(temporary, vector)
    click.echo(f"{len(paths) - n_failed} of {len(paths)} features are in {output}")
    say_next("kedro run --params pairs_dir=FOLDER, with these files in it as docs/reference-layout.md shows")
    if n_failed:
        raise click.exceptions.Exit(1)
