"""`vmnet-pipeline new-project`: create a Kedro project folder that uses the installed package."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from vmnet_pipeline.hooks.program import say_next

PROJECT_FILE = """# A Kedro project of the installed package vmnet_pipeline: settings are in conf/, results in data/.
[tool.kedro]
package_name = "vmnet_pipeline"
project_name = "vmnet_pipeline"
kedro_init_version = "{kedro_version}"
source_dir = "."
"""
IGNORED = "data/\nmlflow.db\nmlruns/\n.viz/\nconf/local/*\n!conf/local/.gitkeep\n"


@click.command(name="new-project", short_help="Make a project folder with its own settings.")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def make_project(folder: Path) -> None:
    """Make FOLDER a project, in which `kedro run`, `kedro viz` and all other commands work.

    Its settings are a copy of those in the package. An existing project is left as it is.
    """
    import kedro

    from vmnet_pipeline.storage.configuration import find_shipped_conf

    for taken in (folder / "pyproject.toml", folder / "conf"):
        if taken.exists():
            raise click.ClickException(f"{taken} exists already. Give another folder.")
    shipped = find_shipped_conf()
    (folder / "conf").mkdir(parents=True)
    for source in (path for path in shipped.rglob("*") if path.is_file()):
        name = source.relative_to(shipped)
        if name.parts[0] != "local":  # a checkout has private settings there
            (folder / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / "conf" / name)  # without rights and times, which some disks do not keep
    (folder / "conf" / "local").mkdir()
    (folder / "conf" / "local" / ".gitkeep").touch()
    (folder / ".gitignore").write_text(IGNORED, encoding="utf-8")
    (folder / ".telemetry").write_text("consent: false\n", encoding="utf-8")
    (folder / "pyproject.toml").write_text(PROJECT_FILE.format(kedro_version=kedro.__version__), encoding="utf-8")
    click.echo(f"Project: {folder}")
    say_next(f"cd {folder} && kedro run --params media_dir=FOLDER")
