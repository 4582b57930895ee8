"""Commands of the project beside Kedro's own: `kedro demo-media`, `weights`, `features`, `import-checkpoint`."""

from __future__ import annotations

from pathlib import Path

import click

from vmnet_pipeline.commands.export import export_onnx
from vmnet_pipeline.commands.features import manage_features
from vmnet_pipeline.commands.new_project import make_project
from vmnet_pipeline.commands.serve import serve

DEMO_FOLDER = Path("data/01_raw/demo")
WEIGHTS_FOLDER = Path("data/06_models/weights")
IMPORTS_FOLDER = Path("data/06_models/imported")


@click.group(name="vmnet_pipeline")
def cli() -> None:
    """Commands of vmnet_pipeline."""


cli.add_command(export_onnx)
cli.add_command(make_project)
cli.add_command(manage_features)
cli.add_command(serve)


@cli.command(name="demo-media", short_help="Make video clips with music to try everything on.")
@click.option("--folder", type=click.Path(path_type=Path), default=DEMO_FOLDER, show_default=True, help="Where to.")
@click.option("--pairs", type=click.IntRange(4, 10_000), default=200, show_default=True, help="Number of clips.")
@click.option("--seed", type=int, default=None, help="Another seed gives another collection.")
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes; all cores by default.")
def make_demo_media(folder: Path, pairs: int, seed: int | None, workers: int | None) -> None:
    """Make the demo collection: real video and music files, synthesised here, the same on every machine.

    Repeating it costs nothing; an interrupted run goes on where it was.
    """
    from vmnet_pipeline.console import track
    from vmnet_pipeline.errors import VmnetError
    from vmnet_pipeline.media.synthesis import DemoSpec, make_demo_collection

    spec = DemoSpec(n_pairs=pairs) if seed is None else DemoSpec(n_pairs=pairs, seed=seed)
    try:
        with track("demo media", pairs) as bar:
            path = make_demo_collection(folder, spec, n_workers=workers, progress=bar.advance)
    except VmnetError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Demo media: {path}")


@cli.command(name="import-checkpoint", short_help="Take over a checkpoint of the original code.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=None,
    help=f"Folder of the result.  [default: {IMPORTS_FOLDER}/NAME]",
)
def import_reference_checkpoint(path: Path, output: Path | None) -> None:
    """Read a TensorFlow 1 checkpoint of the reference, both variants, into one of this project.

    PATH is a prefix `.../model.ckpt-N`, or the summaries_dir of a training: its latest checkpoint is taken.
    """
    from vmnet_pipeline.errors import VmnetError
    from vmnet_pipeline.ingestion.naming import make_safe_id, short_digest
    from vmnet_pipeline.models.checkpoints import save_checkpoint
    from vmnet_pipeline.reference.checkpoint import find_prefix, import_checkpoint

    try:
        prefix = find_prefix(path.expanduser())
        checkpoint = import_checkpoint(prefix)
        folder = output or IMPORTS_FOLDER / f"{make_safe_id(prefix.name)}-{short_digest(str(prefix.absolute()))}"
        if (folder / "training_history.json").exists():
            raise click.ClickException(f"{folder} holds a checkpoint that was trained here. Give another --output.")
        save_checkpoint(folder, checkpoint)
    except (VmnetError, OSError) as error:
        raise click.ClickException(str(error)) from error
    config = checkpoint.model_config
    shapes = f"music {tuple(config['music_shape'])}, video {tuple(config['video_shape'])}"
    click.echo(f"Imported {prefix.name}, variant vmnet_{config['music_tower']}, {shapes}: {folder}")
    click.echo(f"Test it:  kedro run --pipeline evaluate --params pairs_dir=DIR,checkpoint={folder}")


@cli.command(name="recommend", short_help="Find music for a video, or videos for music.")
@click.argument("video", required=False, type=click.Path(path_type=Path))
@click.option(
    "--music", type=click.Path(path_type=Path), default=None, help="The other direction: videos for this music."
)
@click.option("--same-side", is_flag=True, help="More like this: videos like VIDEO, or music like the music.")
@click.option("--top-k", type=click.IntRange(1), default=10, show_default=True, help="Number of answers.")
@click.option(
    "--rerank",
    type=click.FloatRange(0.0, 1.0),
    default=None,
    help="Compare the 50 best again piece by piece; the share of that agreement in the score.  [default: not]",
)
@click.option("--filter", "filters", multiple=True, help="Only items like this: group=A, tag=rock, 'duration<60'.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.option("--media-dir", default="data/01_raw/demo", show_default=True, help="Media folder of the collection.")
@click.option("--collection", default="", help="Its name, where one was chosen with collection=NAME.")
@click.option("--variant", default="vmnet_musicnn", show_default=True, help="Variant of the network.")
@click.option("--checkpoint", type=click.Path(path_type=Path), default=None, help="Another checkpoint.")
@click.option(
    "--index-dir", type=click.Path(path_type=Path), default=None, help="Folder with music_index, video_index."
)
@click.option("--weights-dir", type=click.Path(path_type=Path), default=WEIGHTS_FOLDER, help="Files of the backends.")
def recommend_items(
    video: Path | None,
    music: Path | None,
    same_side: bool,
    top_k: int,
    rerank: float | None,
    filters: tuple[str, ...],
    as_json: bool,
    media_dir: str,
    collection: str,
    variant: str,
    checkpoint: Path | None,
    index_dir: Path | None,
    weights_dir: Path,
) -> None:
    """Recommend music of a collection for VIDEO, best first; with --music FILE, videos for that music.

    VIDEO and FILE are files on this machine.

    The collection is embedded and indexed before: kedro run --pipelines=embed,index
    """
    from vmnet_pipeline.commands.recommend import format_json, format_table, locate, make_ranking
    from vmnet_pipeline.errors import VmnetError
    from vmnet_pipeline.ingestion.naming import name_collection

    if (video is None) == (music is None):
        raise click.UsageError("give either a VIDEO or --music FILE")
    places = locate(name_collection(media_dir, collection), variant, checkpoint, index_dir)
    try:
        ranking = make_ranking(video, music, places, weights_dir, top_k, filters, same_side=same_side, rerank=rerank)
    except VmnetError as error:
        raise click.ClickException(str(error)) from error
    click.echo(format_json(video, music, ranking, same_side=same_side) if as_json else format_table(ranking))


@cli.group(name="weights", short_help="Weights of the feature networks: list, fetch, verify.")
def manage_weights() -> None:
    """Weight files of the feature backends: what is there, fetch, verify."""


_weights_dir = click.option(
    "--weights-dir",
    type=click.Path(path_type=Path),
    default=WEIGHTS_FOLDER,
    show_default=True,
    help="Folder of the files.",
)
_names = click.argument("names", nargs=-1)


@manage_weights.command(name="list")
@_weights_dir
def list_weight_sets(weights_dir: Path) -> None:
    """List all weight sets: whether they are here, licence, where they come from."""
    from vmnet_pipeline.backends.weights import list_weights

    for row in list_weights(weights_dir):
        state = "here" if row["present"] else "-"
        click.echo(f"{row['name']:<20} {state:<5} {row['licence']:<12} {row['homepage']}")


@manage_weights.command(name="fetch")
@_names
@_weights_dir
def fetch_weight_sets(names: tuple[str, ...], weights_dir: Path) -> None:
    """Fetch weight sets by name and check them; what is there already costs nothing."""
    from vmnet_pipeline.backends.weights import fetch_weights
    from vmnet_pipeline.errors import VmnetError

    for name in names:
        try:
            resolved = fetch_weights(name, weights_dir)
        except VmnetError as error:
            raise click.ClickException(str(error)) from error
        click.echo(f"{name}: {', '.join(str(path) for path in resolved.paths)}")


@manage_weights.command(name="verify")
@_names
@_weights_dir
def verify_weight_sets(names: tuple[str, ...], weights_dir: Path) -> None:
    """Read weight files again and compare them with their checksums; all sets that are there by default."""
    from vmnet_pipeline.backends.weights import list_weights, verify_weights
    from vmnet_pipeline.errors import VmnetError

    for name in names or [row["name"] for row in list_weights(weights_dir) if row["present"]]:
        try:
            verify_weights(name, weights_dir)
        except VmnetError as error:
            raise click.ClickException(str(error)) from error
        click.echo(f"{name}: good")
