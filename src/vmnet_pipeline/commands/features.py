"""`kedro features`: find feature stores, and report on each or clean it up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vmnet_pipeline.commands.collection import FEATURES
from vmnet_pipeline.commands.errors import report_errors
from vmnet_pipeline.commands.project import PlaceOrName, ProjectGroup
from vmnet_pipeline.hooks.program import say_next

if TYPE_CHECKING:
    from vmnet_pipeline.features.store import FeatureStore

N_SHOWN = 20  # names listed of each kind
_store = click.option(
    "--store",
    type=PlaceOrName(),
    metavar="TEXT",
    default=None,
    help=f"Folder or URL of a store, or the name of a backend.  [default: all of {FEATURES}]",
)


@click.group(name="features", cls=ProjectGroup, short_help="Feature stores: count, verify, clean up.")
def manage_features() -> None:
    """Feature stores: count items, verify files, remove garbage."""


def find_stores(store: str | None) -> list[FeatureStore]:
    """Find the stores of a command: that at a folder or URL, those of a backend in all collections, or all of them."""
    from vmnet_pipeline.features.store import INDEX_FOLDER, FeatureStore
    from vmnet_pipeline.hooks.run_checks import configure_project_storage
    from vmnet_pipeline.storage.paths import is_remote

    if store is not None and is_remote(store):
        configure_project_storage()
        return [FeatureStore(store)]
    folders = [Path(store)] if store is not None and Path(store).is_dir() else []
    folders = folders or sorted(path.parent for path in FEATURES.glob(f"*/{store or '*'}/{INDEX_FOLDER}"))
    if not folders:
        raise click.ClickException(
            f"There is no feature store {store or f'in {FEATURES}'}. Give the folder of one, or a backend that "
            f"has one in {FEATURES}/COLLECTION/."
        )
    return [FeatureStore(folder) for folder in folders]


@manage_features.command(name="status")
@_store
@report_errors()
def show_status(store: str | None) -> None:
    """Count finished and failed items, with the reasons."""
    from vmnet_pipeline.features.maintenance import describe_store

    for one in find_stores(store):
        status = describe_store(one)
        state = "complete" if status.is_complete else "not complete"
        fingerprint = f"{status.fingerprint.backend} {status.fingerprint.digest[:12]}"
        click.echo(f"{one.folder}: {state}, {fingerprint}")
        click.echo(f"  {status.n_done} done, {status.size_bytes / 1e6:.1f} MB")
        click.echo(f"  {sum(status.failures_by_reason.values())} failed")
        for reason, count in status.failures_by_reason.items():
            click.echo(f"    {count} x {reason}")
        if not status.is_complete:
            say_next(f"kedro run --pipeline extract_{status.fingerprint.backend}, as before, to extract the rest")


@manage_features.command(name="verify")
@_store
@click.option("--repair", is_flag=True, help="Drop broken items from the index, so that the next run extracts them.")
@click.option("--workers", type=click.IntRange(1), default=None, help="Files read at once; all cores by default.")
@report_errors()
def verify_files(store: str | None, repair: bool, workers: int | None) -> None:
    """Read every feature file and compare it with the index; exit code 1 when something is wrong."""
    from vmnet_pipeline.features.maintenance import drop_broken, verify_store

    is_good = True
    for one in find_stores(store):
        found = verify_store(one, n_workers=workers)
        broken = [*found.missing, *found.damaged]
        click.echo(f"{one.folder}: {found.n_checked} checked, {len(broken)} wrong, {len(found.unknown)} unknown")
        for kind, names in (("missing", found.missing), ("damaged", found.damaged), ("unknown", found.unknown)):
            _list_some(kind, names)
        if repair and broken:
            click.echo(f"  {drop_broken(one, broken)} dropped from the index: run the extraction again")
        is_good = is_good and not (broken or found.unknown)
    if not is_good:
        say_next(
            "kedro features verify --repair, then run the extraction again; kedro features gc removes what is unknown"
        )
        sys.exit(1)


@manage_features.command(name="gc")
@_store
@click.option(
    "--manifest",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=None,
    help="Also remove the features of items that are not in this manifest.parquet.",
)
@click.option("--dry-run", is_flag=True, help="Remove nothing, only report what would be removed.")
@report_errors()
def remove_garbage(store: str | None, manifest: Path | None, dry_run: bool) -> None:
    """Remove leftovers of killed writers, and feature files without an index entry."""
    from vmnet_pipeline.features.maintenance import collect_garbage

    stores = find_stores(store)
    if manifest is not None and len(stores) > 1:
        raise click.UsageError("--manifest belongs to one collection: choose one store with --store FOLDER")
    keep = None if manifest is None else _read_ids(manifest)
    for one in stores:
        garbage = collect_garbage(one, keep=keep, dry_run=dry_run)
        counts = f"{len(garbage.temporaries)} temporary files, {len(garbage.orphans)} orphans"
        counts += f", {len(garbage.unlisted)} items of no manifest" if manifest else ""
        verb = "would remove" if dry_run else "removed"
        click.echo(f"{one.folder}: {verb} {counts}, {garbage.size_bytes / 1e6:.1f} MB")
        _list_some("orphan", [path.name for path in garbage.orphans])
        _list_some("unlisted", garbage.unlisted)
    if dry_run:
        say_next("the same without --dry-run")


def _read_ids(manifest: Path) -> set[str]:
    import pandas as pd

    return set(pd.read_parquet(manifest, columns=["id"])["id"])


def _list_some(kind: str, names: tuple[str, ...] | list[str]) -> None:
    for name in names[:N_SHOWN]:
        click.echo(f"  {kind}: {name}")
    if len(names) > N_SHOWN:
        click.echo(f"  {kind}: {len(names) - N_SHOWN} more")
