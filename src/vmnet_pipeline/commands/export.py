"""`kedro export-onnx`: the towers of a checkpoint as ONNX files."""

from __future__ import annotations

from pathlib import Path

import click

from vmnet_pipeline.commands.errors import report_errors
from vmnet_pipeline.commands.project import ProjectCommand
from vmnet_pipeline.hooks.program import say_next


@click.command(name="export-onnx", cls=ProjectCommand, short_help="Write the towers of a checkpoint as ONNX files.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@report_errors(OSError)
def export_onnx(checkpoint: Path, folder: Path) -> None:
    """Write FOLDER/music.onnx and FOLDER/video.onnx, to embed features without this project.

    CHECKPOINT is a checkpoint, the folder of a variant, or a checkpoint of the original code, as in `Embedder.load`.
    Each file is compared with the network before it is kept. Needs the extra `onnx`.
    """
    from vmnet_pipeline.inference.embedder import open_checkpoint
    from vmnet_pipeline.inference.onnx_export import OPSET, export_towers

    files = export_towers(open_checkpoint(checkpoint), folder.expanduser())
    for side, path in files.items():
        click.echo(f"{side}: {path} ({path.stat().st_size / 1e6:.1f} MB, opset {OPSET})")
    say_next("load them with onnxruntime, see docs/using.md")
