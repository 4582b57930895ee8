"""Commands of the project in addition to those of Kedro, in the module where Kedro looks for them."""

from __future__ import annotations

import click

from vmnet_pipeline.storage.limits import watch_limits
from vmnet_pipeline.storage.telemetry import disable_telemetry

disable_telemetry()
watch_limits()  # before anything heavy is imported

# ruff: noqa: E402
from vmnet_pipeline.commands.demo_media import make_demo_media
from vmnet_pipeline.commands.encoders import manage_encoders
from vmnet_pipeline.commands.export import export_onnx
from vmnet_pipeline.commands.features import manage_features
from vmnet_pipeline.commands.import_checkpoint import import_reference_checkpoint
from vmnet_pipeline.commands.import_features import import_pickled_features
from vmnet_pipeline.commands.new_project import make_project
from vmnet_pipeline.commands.recommend import recommend_items
from vmnet_pipeline.commands.render import render_video
from vmnet_pipeline.commands.run import make_run_command
from vmnet_pipeline.commands.serve import serve
from vmnet_pipeline.commands.soundtrack import make_soundtrack
from vmnet_pipeline.commands.track import track_runs
from vmnet_pipeline.commands.weights import manage_weights


class _Commands(click.Group):
    """Makes `run` on demand: importing Kedro's own, on which it is based, sets up logging."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return make_run_command() if cmd_name == "run" else super().get_command(ctx, cmd_name)


@click.group(name="vmnet_pipeline", cls=_Commands)
def cli() -> None:
    """Commands of vmnet_pipeline."""


for _command in (
    make_demo_media,
    manage_encoders,
    export_onnx,
    manage_features,
    import_reference_checkpoint,
    import_pickled_features,
    make_project,
    recommend_items,
    render_video,
    serve,
    make_soundtrack,
    track_runs,
    manage_weights,
):
    cli.add_command(_command)
