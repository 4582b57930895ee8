"""Which collection a command works on: the options that say it, and where its parts are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmnet_pipeline.backends.weights import DEFAULT_WEIGHTS_DIR
from vmnet_pipeline.ingestion.ids import name_collection

if TYPE_CHECKING:
    from collections.abc import Callable

DEMO = Path("data/01_raw/demo")
INTERMEDIATE = Path("data/02_intermediate")
FEATURES = Path("data/04_feature")
MODELS = Path("data/06_models")
OUTPUT = Path("data/07_model_output")


@dataclass(frozen=True, slots=True)
class Places:
    """Where the parts of one collection and variant are.

    Attributes:
        media: The media folder, or its media.csv, as it was given.
        manifest: Table of the collection.
        features: Folder with its feature stores.
        checkpoint: Folder of the checkpoint.
        output: Folder with `music_index`, `video_index` and the embeddings that they were made of.
        weights: Weight files of the feature backends.
    """

    media: str
    manifest: Path
    features: Path
    checkpoint: Path
    output: Path
    weights: Path


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
    click.option("--collection", default="", help="Its name, where one was chosen with collection=NAME."),
    click.option("--variant", default="vmnet_musicnn", show_default=True, help="Variant of the network."),
    click.option("--checkpoint", type=click.Path(path_type=Path), default=None, help="Another checkpoint."),
    click.option(
        "--index-dir", type=click.Path(path_type=Path), default=None, help="Folder with the indexes and embeddings."
    ),
    choose_weights,
)


def choose_collection(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say which collection is meant; it gets `places`."""

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
        places = Places(
            media=media_dir,
            manifest=INTERMEDIATE / name / "manifest.parquet",
            features=FEATURES / name,
            checkpoint=checkpoint or MODELS / name / variant / "checkpoint",
            output=index_dir or OUTPUT / name / variant,
            weights=weights_dir,
        )
        command(places=places, **others)

    for option in reversed(_OPTIONS):
        call = option(call)
    return call
