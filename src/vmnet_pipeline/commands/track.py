"""`kedro track`: log to MLflow what a run could not log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vmnet_pipeline.commands.errors import report_errors
from vmnet_pipeline.commands.project import ProjectCommand

if TYPE_CHECKING:
    from vmnet_pipeline.hooks.tracking import Connection


@click.command(name="track", cls=ProjectCommand, short_help="Log to MLflow what a run could not log.")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(path_type=Path, exists=True))
@report_errors(OSError)
def track_runs(paths: tuple[Path, ...]) -> None:
    """Log runs that ended with exit code 3 because MLflow could not be used; without a PATH, all of them.

    PATH is the file that such a run named, or a folder of results: its unlogged run, or else each evaluation in it as a
    separate run, is logged.
    """
    from vmnet_pipeline.hooks.tracking import open_connection

    connection = open_connection()
    n_logged = sum(_log(path, connection) for path in paths) if paths else _log_files(connection.list(), connection)
    click.echo(f"{n_logged} runs logged. Look at them with: {connection.place}")


def _log(path: Path, connection: Connection) -> int:
    from vmnet_pipeline.tracking.replay import find_results, find_runs_of, log_pending

    if path.is_file() and path.name != "evaluation.json":
        return _log_files([path], connection)
    is_all = path.resolve() == connection.pending.resolve()
    kept = connection.list() if is_all else find_runs_of(connection.pending, path)
    if kept:
        return _log_files(kept, connection)
    results = find_results(path if path.is_dir() else path.parent)
    if not results:
        raise click.ClickException(f"{path} has neither an unlogged run nor an evaluation.json.")
    for run in results:
        with connection.explain():
            log_pending(run, connection.experiment_id)
    return len(results)


def _log_files(paths: list[Path], connection: Connection) -> int:
    from vmnet_pipeline.tracking.replay import log_file_of_run

    for path in paths:
        with connection.explain():
            log_file_of_run(path, connection.experiment_id)
    return len(paths)
