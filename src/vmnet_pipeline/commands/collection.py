"""Options that choose a collection, and the locations of its parts."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmnet_pipeline.backends.weights import DEFAULT_WEIGHTS_DIR
from vmnet_pipeline.ingestion.ids import name_collection
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
    click.option("--variant", default="vmnet_musicnn", show_default=True, help="Variant of the network."),
    click.option("--checkpoint", type=click.Path(path_type=Path), default=None, help="Another checkpoint."),
    click.option(
        "--index-dir", type=click.Path(path_type=Path), default=None, help="Folder with the indexes and embeddings."
    ),
    choose_weights,
)


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
        name = name_collection(media_dir, collection)
        places = CollectionPlaces(
            output=index_dir or OUTPUT / name / variant,
            checkpoint=checkpoint or MODELS / name / variant / "checkpoint",
            manifest=INTERMEDIATE / name / "manifest.parquet",
            weights_dir=weights_dir,
            media_roots=(Path(media_dir),),
            features=FEATURES / name,
        )
        command(places=places, **others)

    for option in reversed(_OPTIONS):
        call = option(call)
    return call
