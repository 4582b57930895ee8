"""Options that choose a collection, and the locations of its parts."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmnet_pipeline.backends.weights import DEFAULT_WEIGHTS_DIR
from vmnet_pipeline.ingestion.ids import name_collection
from vmnet_pipeline.storage.paths import is_remote
from vmnet_pipeline.types import CollectionPlaces

if TYPE_CHECKING:
    from collections.abc import Callable

DEMO = Path("data/01_raw/demo")
INTERMEDIATE = Path("data/02_intermediate")
FEATURES = Path("data/04_feature")
MODELS = Path("data/06_models")
OUTPUT = Path("data/07_model_output")


choose_weights = click.option(
    "--weights-dir",
    type=click.Path(path_type=Path),
    default=DEFAULT_WEIGHTS_DIR,
    show_default=True,
    help="Weight files of the feature backends.",
)

_OPTIONS = (
    click.option(
        "--media-dir", type=click.Path(), default=str(DEMO), show_default=True, help="Media folder of the collection."
    ),
    click.option("--collection", default="", help="Name of the collection, if set with collection=NAME."),
    click.option("--variant", default="", help="Variant of the network.  [default: that of the project]"),
    click.option("--checkpoint", type=click.Path(path_type=Path), default=None, help="Another checkpoint."),
    click.option(
        "--index-dir", type=click.Path(path_type=Path), default=None, help="Folder with the indexes and embeddings."
    ),
    choose_weights,
)


def choose_place(media_dir: str, collection: str, variant: str) -> tuple[str, str]:
    """Collection and variant: those given; else the variant of the project, a library, or the only other variant."""
    from vmnet_pipeline.hooks.library import LIBRARY_VARIANT

    name, chosen = name_collection(media_dir, collection), variant or read_variant()
    library = name if collection else name_collection(media_dir, library=media_dir)
    if not variant and not (OUTPUT / name / chosen).is_dir() and (OUTPUT / library / LIBRARY_VARIANT).is_dir():
        return library, LIBRARY_VARIANT
    return name, chosen if variant else _find_only(name, chosen)


def _find_only(name: str, chosen: str) -> str:
    """The variant of the project, or the only one that a collection was trained or indexed with."""
    found = {place.parent.name for place in (MODELS / name).glob("*/checkpoint")}
    found |= {place.name for place in (OUTPUT / name).glob("*") if place.is_dir()}
    if chosen in found or len(found) != 1:
        return chosen
    (other,) = found
    click.echo(
        f"nothing is there of variant {chosen}, that of this project: {other} is used, the only one there is; "
        f"--variant {other} names it, and kedro run --params variant={other} goes on with it",
        err=True,
    )
    return other


def read_variant() -> str:
    """`variant` in the parameters of the project in the current folder; the default one outside a project."""
    from vmnet_pipeline.params import DEFAULT_VARIANT

    if not Path("conf/base").is_dir():
        return DEFAULT_VARIANT
    from kedro.framework.project import settings

    loader = settings.CONFIG_LOADER_CLASS("conf", **settings.CONFIG_LOADER_ARGS)
    return str(loader["parameters"].get("variant") or DEFAULT_VARIANT)


def find_network(trained: Path, output: Path, media_dir: str) -> Path:
    """The checkpoint, or the starter model where nothing was trained.

    Raises:
        ClickException: Nothing was trained, and nothing is indexed.
    """
    from vmnet_pipeline.models.checkpoints import CONFIG_FILE

    if (trained / CONFIG_FILE).is_file():
        return trained
    from vmnet_pipeline.inference.starter import STARTER_FOLDER

    if not output.is_dir():
        is_there = is_remote(media_dir) or Path(media_dir).expanduser().exists()
        missing = "" if is_there else f"There is no {media_dir}, and "
        raise click.ClickException(
            f"{missing}nothing is trained in {trained} and nothing indexed in {output}; train and index (kedro run; "
            "kedro run --pipelines=embed,index), or index with the starter model: kedro run "
            f"--pipelines=ingest,extract,embed,index --params library={media_dir}"
        )
    return STARTER_FOLDER


def tell_network(places: CollectionPlaces) -> None:
    """Say so where the starter model is used."""
    from vmnet_pipeline.inference.starter import describe_starter, is_starter, load_starter

    if is_starter(places.checkpoint):
        click.echo(describe_starter(load_starter()), err=True)


def choose_collection(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that choose a collection to a command, which gets them as `places`."""

    @wraps(command)
    def call(
        *,
        media_dir: str,
        collection: str,
        variant: str,
        checkpoint: Path | None,
        index_dir: Path | None,
        weights_dir: Path,
        **others: Any,
    ) -> None:
        name, variant = choose_place(media_dir, collection, variant)
        output = index_dir or OUTPUT / name / variant
        places = CollectionPlaces(
            output=output,
            checkpoint=checkpoint or find_network(MODELS / name / variant / "checkpoint", output, media_dir),
            manifest=INTERMEDIATE / name / "manifest.parquet",
            weights_dir=weights_dir,
            media_roots=(Path(media_dir),),
            features=FEATURES / name,
        )
        command(places=places, **others)

    for option in reversed(_OPTIONS):
        call = option(call)
    return call
