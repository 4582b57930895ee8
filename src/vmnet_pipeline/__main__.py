"""The program `vmnet-pipeline`: `kedro run` and the commands of this project, in any folder.

In a project folder it does what `kedro` does there. In any other one it works with the settings that come with the
package, and writes below that folder. `python -m vmnet_pipeline` takes the options of `vmnet-pipeline run`.
"""

from __future__ import annotations

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code: 0, 1 for an error, 2 for a wrong call.

    Args:
        arguments: Command, options and arguments; by default those that the process was started with.
    """
    _set_environment()
    project = _enter_project()
    make_program()(None if arguments is None else list(arguments), prog_name=NAME, obj=project)


def make_program() -> click.Group:
    """The commands of this project, and those of Kedro that need no project folder."""
    import click
    from kedro.framework.cli.catalog import catalog
    from kedro.framework.cli.registry import registry

    from vmnet_pipeline import __version__
    from vmnet_pipeline.cli import cli
    from vmnet_pipeline.commands.run import make_run_command

    program = click.Group(
        NAME,
        commands={**cli.commands, "catalog": catalog, "registry": registry, "run": make_run_command()},
        help="From raw video and music files to a trained cross-modal retrieval model.",
        epilog="Where other texts say `kedro COMMAND`, write `vmnet-pipeline COMMAND` outside of a project folder.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    return click.version_option(__version__, "--version", "-V", prog_name=NAME)(program)


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
