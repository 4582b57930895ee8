"""Print the results of a run: tables and locations of files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vmnet_pipeline.storage.paths import as_path, is_remote

if TYPE_CHECKING:
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline


def path_of(catalog: DataCatalog, name: str) -> Path:
    """Location of a dataset."""
    dataset = catalog[name]
    place, protocol = getattr(dataset, "_filepath", ""), getattr(dataset, "_protocol", "file")
    if is_remote(place):
        return as_path(place)
    return Path(str(place)) if protocol == "file" else as_path(f"{protocol}://{str(place).lstrip('/')}")


def print_results(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Print the Recall@K table of every evaluation of this run, and the files to look at next."""
    import click

    outputs = sorted(pipeline.all_outputs())
    evaluations = [name for name in outputs if name.endswith(".evaluation")]
    sweeps = [name for name in outputs if name.endswith((".comparison", ".tuning"))]
    ingested = f"Manifest    {path_of(catalog, 'manifest')}" if "manifest" in outputs else ""
    if not evaluations and not sweeps:
        click.echo(ingested, nl=bool(ingested))
        return
    from vmnet_pipeline.reporting.comparison import format_comparison
    from vmnet_pipeline.reporting.console_table import format_recall_table
    from vmnet_pipeline.reporting.tuning import format_tuning

    for name in sweeps:
        format_sweep = format_comparison if name.endswith(".comparison") else format_tuning
        click.echo(f"\n{name}\n{format_sweep(catalog.load(name))}\n")
        click.echo(f"Figures     {path_of(catalog, name)}")
        if name.endswith(".tuning"):
            click.echo(f"Settings    {path_of(catalog, name.replace('.tuning', '.best_settings'))}")
    for name in evaluations:
        variant = name.removesuffix(".evaluation")
        click.echo(f"\n{variant}\n{format_recall_table(catalog.load(name))}\n")
        click.echo(f"Report      {path_of(catalog, f'{variant}.report')}")
    click.echo(ingested, nl=bool(ingested))
