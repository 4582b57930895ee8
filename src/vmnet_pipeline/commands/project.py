"""Run commands in the root of the project, whichever of its folders they are called in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from vmnet_pipeline.storage.project import relocate

_TYPED = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


class ProjectCommand(click.Command):
    """A command whose typed paths are relative to the folder of the caller, others to the project."""

    def invoke(self, ctx: click.Context) -> Any:
        """Enter the project, then run the command."""
        from vmnet_pipeline.hooks.project import enter

        caller, root = Path.cwd(), find_root(ctx)
        if caller != root:
            for param in self.params:
                name = param.name or ""
                if _is_place(param, ctx.params.get(name)) and ctx.get_parameter_source(name) in _TYPED:
                    ctx.params[name] = _relocate_all(ctx.params[name], caller, root)
            enter(root)
        return super().invoke(ctx)


class ProjectGroup(click.Group):
    """A group of such commands."""

    command_class = ProjectCommand


class PlaceOrName(click.Path):
    """A path if it exists, else a name."""


def find_root(ctx: click.Context) -> Path:
    """Root of the project that Kedro has found, or the current folder."""
    from kedro.framework.startup import ProjectMetadata
    from kedro.utils import find_kedro_project

    project = ctx.find_object(ProjectMetadata)
    folder = Path.cwd() if project is None else Path(project.project_path)
    return (folder if project else find_kedro_project(folder) or folder).resolve()


def _is_place(param: click.Parameter, value: Any) -> bool:
    if isinstance(param.type, PlaceOrName):
        return Path(value or "").exists()
    return isinstance(param.type, click.Path)


def _relocate_all(value: Any, caller: Path, root: Path) -> Any:
    if isinstance(value, tuple):
        return tuple(_relocate_all(part, caller, root) for part in value)
    if isinstance(value, Path):
        return relocate(value, caller, root)
    return relocate(value, caller, root) if isinstance(value, str) else value
