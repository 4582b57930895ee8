"""The program `vmnet-pipeline`: `kedro run` and the commands of this project, in any folder.

In a project folder it does what `kedro` does there. In any other one it works with the settings that come with the
package, and writes below that folder. `python -m vmnet_pipeline` takes the options of `vmnet-pipeline run`.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vmnet_pipeline.hooks.program import NAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    import click
    from kedro.framework.startup import ProjectMetadata

PACKAGE = "vmnet_pipeline"
KEDRO_COMMANDS = {
    "catalog": "Commands for working with catalog.",
    "registry": "Commands for working with registered pipelines.",
    "run": "Run pipelines: ingest, extract, train, evaluate.",
}
"""Names and short help."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code: 0, 1 for an error, 2 for a wrong call.

    Args:
        arguments: Command, options and arguments; by default those that the process was started with.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    _set_environment()
    asks_for_help = bool({"-h", "--help", "-V", "--version"} & {*itertools.takewhile(lambda text: text != "--", given)})
    project = None if asks_for_help or not given else _enter_project()
    make_program()(given, prog_name=NAME, obj=project)


def make_program() -> click.Group:
    """The commands of this project, and those of Kedro that need no project folder; Kedro's are read on demand."""
    import click

    from vmnet_pipeline import __version__
    from vmnet_pipeline.cli import cli

    class Program(click.Group):
        def list_commands(self, ctx: click.Context) -> list[str]:
            return sorted({*self.commands, *KEDRO_COMMANDS})

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            return _take_from_kedro(cmd_name) if cmd_name in KEDRO_COMMANDS else super().get_command(ctx, cmd_name)

        def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            own = {name: command.get_short_help_str(80) for name, command in self.commands.items()}
            with formatter.section("Commands"):
                formatter.write_dl(sorted({**own, **KEDRO_COMMANDS}.items()))

    program = Program(
        NAME,
        commands=dict(cli.commands),
        help="From raw video and music files to a trained cross-modal retrieval model.",
        epilog="Where other texts say `kedro COMMAND`, write `vmnet-pipeline COMMAND` outside of a project folder.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    return click.version_option(__version__, "--version", "-V", prog_name=NAME)(program)


def _take_from_kedro(name: str) -> click.Command:
    if name == "run":
        from vmnet_pipeline.commands.run import make_run_command

        return make_run_command()
    if name == "catalog":
        from kedro.framework.cli.catalog import catalog

        return catalog
    from kedro.framework.cli.registry import registry

    return registry


def _set_environment() -> None:
    """Set variables that Kedro and MLflow read on import, unless the user has set them."""
    from kedro.utils import find_kedro_project

    from vmnet_pipeline.storage.configuration import find_conf
    from vmnet_pipeline.storage.telemetry import disable_telemetry

    disable_telemetry()
    project = find_kedro_project(Path.cwd()) or Path.cwd()
    os.environ.setdefault("KEDRO_LOGGING_CONFIG", str((find_conf(project) / "logging.yml").absolute()))


def _enter_project() -> ProjectMetadata:
    """Make this package the project that Kedro works on, and the current folder its place."""
    from kedro import __version__ as kedro_version
    from kedro.framework.project import configure_project, settings
    from kedro.framework.startup import ProjectMetadata
    from kedro.utils import find_kedro_project

    from vmnet_pipeline.storage.configuration import find_conf

    folder = (find_kedro_project(Path.cwd()) or Path.cwd()).resolve()
    configure_project(PACKAGE)
    settings.set("CONF_SOURCE", str(find_conf(folder).absolute()))
    return ProjectMetadata(
        config_file=folder / "pyproject.toml",
        package_name=PACKAGE,
        project_name=PACKAGE,
        project_path=folder,
        source_dir=Path(__file__).parents[1],
        kedro_init_version=kedro_version,
        tools=[],
        example_pipeline="False",
    )


if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
