"""Names and places on the command line are text as they are written."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from vmnet_pipeline.__main__ import make_program
from vmnet_pipeline.commands import run
from vmnet_pipeline.commands.run import make_run_command
from vmnet_pipeline.demo import make_clip

ROOT = Path(__file__).parents[2]

ODD = [
    "007",
    "2024_01",
    "1e5",
    "true",
    "null",
    "0x10",
    "2024-01-05",
    "1:30",
    "~",
    "on",
    ".5",
    "-1",
    "12e03",
    "a: b",
    "x #y",
    "[a]",
    "é b",
]


def parse(*arguments):
    command, found = make_run_command(), {}
    command.callback = found.update
    result = CliRunner().invoke(command, arguments, prog_name="run")
    assert result.exit_code == 0, result.output
    return found["params"]


@pytest.mark.parametrize("value", ODD)
def test_names_and_places_of_the_command_line(value):
    given = parse("--params", f"collection={value},seed=3,media_dir={value},extract.executor.address={value}")
    assert given == {
        "collection": value, "seed": 3, "media_dir": value, "extract": {"executor": {"address": value}},
    }  # fmt: skip


def test_other_parameters_are_values_and_empty_means_none():
    values = "seed=007,train.epochs=1e1,shuffle_pairs=true,variant=null,split_dir=, pairs_dir = a "
    assert parse("--params", values) == {
        "seed": 7, "train": {"epochs": 10.0}, "shuffle_pairs": True, "variant": None, "split_dir": None,
        "pairs_dir": "a",
    }  # fmt: skip
    assert parse("--params", 'collection="007",media_dir=/a, b/c,seed=1') == {
        "collection": "007", "media_dir": "/a, b/c", "seed": 1,
    }  # fmt: skip
    assert parse() == {}


def test_lists_and_mappings_are_values():
    given = parse("--params", "evaluate.ks=[1,5, 10],seed=3,train.loss={name: vmnet, top_k: null},media_dir=[a],b")
    assert given == {
        "evaluate": {"ks": [1, 5, 10]}, "seed": 3, "train": {"loss": {"name": "vmnet", "top_k": None}},
        "media_dir": "[a],b",
    }  # fmt: skip
    assert parse("--params", "a=[[1, 2], [x, 'y,z', 0.5, true]],b=[],c={}") == {
        "a": [[1, 2], ["x", "y,z", 0.5, True]], "b": [], "c": {},
    }  # fmt: skip


@pytest.mark.parametrize("value", ["[1,2", "[a, b}", "{a: [1, 2}", "[1,2,seed=3"])
def test_a_list_that_does_not_end_is_a_wrong_call(value):
    result = CliRunner().invoke(make_run_command(), ["--params", f"evaluate.ks={value}"], prog_name="run")
    assert result.exit_code == 2
    assert "write lists as [a, b]" in result.output


def test_a_file_of_options(tmp_path):
    path = tmp_path / "options.yml"
    path.write_text("run:\n  params:\n    collection: 007\n    media_dir: 2024_01\n    seed: 3\n")
    assert parse("--config", str(path)) == {"collection": "007", "media_dir": "2024_01", "seed": 3}


@pytest.mark.process
@pytest.mark.slow
def test_a_run_on_a_folder_called_by_a_number(tmp_path):
    (tmp_path / "2024").mkdir()
    make_clip(tmp_path / "2024/-aBc_1.mp4", seed=1, duration_s=1.0, width=64, height=48)
    command = [
        sys.executable,
        "-m",
        "vmnet_pipeline",
        "--pipeline",
        "ingest",
        "--params",
        "media_dir=2024,collection=007",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data/02_intermediate/007/manifest.parquet").is_file()


def test_kedro_runs_the_command_of_the_project():
    from kedro.framework.cli.cli import KedroCLI

    program = KedroCLI(project_path=ROOT)
    command = program.get_command(click.Context(program), "run")
    (option,) = [option for option in command.params if option.name == "params"]
    assert option.callback.func is run._read_params
    assert make_program().get_command(click.Context(make_program()), "run").short_help == command.short_help
