"""The program `vmnet-pipeline`: its commands, its exit codes, and `python -m vmnet_pipeline`, which is its `run`."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from vmnet_pipeline import __version__
from vmnet_pipeline.__main__ import KEDRO_COMMANDS, make_program
from vmnet_pipeline.cli import cli
from vmnet_pipeline.storage import configuration

ROOT = Path(__file__).parents[1]


def call(*arguments: str):
    return CliRunner().invoke(make_program(), arguments, prog_name="vmnet-pipeline")


@pytest.mark.process
def test_module_takes_the_options_of_kedro_run():
    command = [sys.executable, "-m", "vmnet_pipeline", "--pipeline", "no_such_pipeline"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no_such_pipeline" in done.stdout + done.stderr


def test_the_program_has_every_command_of_the_project():
    program = make_program()
    assert {*cli.commands, "run", "catalog", "registry"} == {*program.list_commands(click.Context(program))}
    for name, text in KEDRO_COMMANDS.items():  # written down, as Kedro is not read for the help
        assert program.get_command(click.Context(program), name).get_short_help_str(80) == text
    assert call("--version").output == f"vmnet-pipeline, version {__version__}\n"


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_help_says_in_one_line_what_a_command_does(name):
    line = cli.commands[name].get_short_help_str(limit=55)  # what is left of a terminal of 80 columns
    assert len(line) >= 20
    assert not line.endswith("...")
    assert call(name, "--help").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("weights", "list"), 0),
        (("weights", "fetch", "no_such_weights"), 1),  # an error, raised on purpose
        (("features", "status", "--store", "no_such_store"), 1),
        (("weights", "no_such_command"), 2),  # a call that cannot be understood
        (("demo-media", "--pairs", "many"), 2),
    ],
)
def test_exit_codes(arguments, code):
    assert call(*arguments).exit_code == code


@pytest.mark.process
def test_a_project_of_ones_own(tmp_path):
    folder = tmp_path / "mine"
    made = call("new-project", str(folder))
    assert made.exit_code == 0, made.output
    listed = subprocess.run(
        [sys.executable, "-m", "kedro", "registry", "list"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert "- extract_musicnn" in listed.stdout, listed.stderr
    again = call("new-project", str(folder))
    assert again.exit_code == 1
    assert "exists already" in again.output


def test_private_settings_of_a_checkout_are_not_copied(tmp_path, monkeypatch):
    shipped = tmp_path / "conf"
    for name in ("base/globals.yml", "local/credentials.yml"):
        (shipped / name).parent.mkdir(parents=True)
        (shipped / name).write_text("secret: yes")
    monkeypatch.setattr(configuration, "find_shipped_conf", lambda: shipped)
    assert call("new-project", str(tmp_path / "mine")).exit_code == 0
    copied = {path.name for path in (tmp_path / "mine/conf").rglob("*") if path.is_file()}
    assert copied == {"globals.yml", ".gitkeep"}


@pytest.mark.process
def test_kedro_is_not_read_for_the_help_of_a_command(tmp_path):
    code = (
        "import sys; from vmnet_pipeline.__main__ import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as end: print(end.code, 'kedro.framework' in sys.modules)"
    )
    for arguments in (["--help"], ["recommend", "--help"], ["--version"]):
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "0 False", arguments
