"""The commands of the project beside Kedro's own, in the place where Kedro looks for them."""

from __future__ import annotations

import click

from vmnet_pipeline.commands.demo_media import make_demo_media
from vmnet_pipeline.commands.export import export_onnx
from vmnet_pipeline.commands.features import manage_features
from vmnet_pipeline.commands.import_checkpoint import import_reference_checkpoint
from vmnet_pipeline.commands.new_project import make_project
from vmnet_pipeline.commands.recommend import recommend_items
from vmnet_pipeline.commands.run import make_run_command
from vmnet_pipeline.commands.serve import serve
from vmnet_pipeline.commands.weights import manage_weights


@click.group(name="vmnet_pipeline")
def cli() -> None:
    """Commands of vmnet_pipeline."""


for _command in (
    make_demo_media,
    export_onnx,
    manage_features,
    import_reference_checkpoint,
    make_project,
    recommend_items,
    make_run_command(),
    serve,
    manage_weights,
):
    cli.add_command(_command)
