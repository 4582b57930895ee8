"""`kedro import-checkpoint`: a checkpoint of the original code as one of this project."""

from __future__ import annotations

from pathlib import Path

import click

from vmnet_pipeline.commands.collection import MODELS
from vmnet_pipeline.commands.errors import report_errors
from vmnet_pipeline.commands.project import ProjectCommand
from vmnet_pipeline.hooks.program import say_next

IMPORTED = MODELS / "imported"


@click.command(name="import-checkpoint", cls=ProjectCommand, short_help="Import a checkpoint of the original code.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help=f"Output folder.  [default: {IMPORTED}/NAME]")
@click.option("--music-layers", type=click.IntRange(1, 5), help="num_layer_x of its training, if not recorded.")
@click.option("--video-layers", type=click.IntRange(1, 5), help="num_layer_y of its training, if not recorded.")
@click.option("--linear/--nonlinear", default=None, help="is_linear of its training, if not recorded.")
@report_errors(OSError)
def import_reference_checkpoint(
    path: Path, output: Path | None, music_layers: int | None, video_layers: int | None, linear: bool | None
) -> None:
    """Convert a TensorFlow 1 checkpoint of the original code, of either variant.

    PATH is a prefix `.../model.ckpt-N`, or the summaries_dir of a training, whose latest checkpoint is used.
    """
    from vmnet_pipeline.ingestion.ids import make_safe_name, short_digest
    from vmnet_pipeline.models.checkpoints import save_checkpoint
    from vmnet_pipeline.reference.checkpoint import find_prefix, import_checkpoint

    prefix = find_prefix(path.expanduser())
    checkpoint = import_checkpoint(prefix, music_layers=music_layers, video_layers=video_layers, linear=linear)
    folder = output or IMPORTED / f"{make_safe_name(prefix.name)}-{short_digest(str(prefix.absolute()))}"
    if (folder / "training_history.json").exists():
        raise click.ClickException(f"{folder} holds a checkpoint that was trained here. Give another --output.")
    save_checkpoint(folder, checkpoint)
    config = checkpoint.model_config
    shapes = f"music {tuple(config['music_shape'])}, video {tuple(config['video_shape'])}"
    kind = "linear " if config.get("linear") else ""
    layers = f"{config.get('music_layers', 3)} and {config.get('video_layers', 2)} {kind}layers"
    click.echo(f"Imported {prefix.name}, variant vmnet_{config['music_tower']}, {shapes}, {layers}: {folder}")
    for sentence in checkpoint.params["assumed"]:
        click.echo(f"Assumed: {sentence}")
    say_next(f"kedro run --pipeline evaluate --params pairs_dir=DIR,checkpoint={folder}")
