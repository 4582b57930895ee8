"""The last line of a run."""

import click
import pytest
from click.testing import CliRunner

from vmnet_pipeline.hooks.next_steps import find_next
from vmnet_pipeline.hooks.program import NAME, say_next
from vmnet_pipeline.pipeline_registry import register_pipelines, register_reference_pipelines

GIVEN = {"runtime_params": {"media_dir": "my clips", "collection": "mine", "seed": 3, "train": {"epochs": 2}}}
PLACES = "--params='media_dir=my clips,collection=mine'"


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ("__default__", f"kedro run --pipelines=embed,index {PLACES}   (then kedro serve, to see and hear answers)"),
        ("ingest", f"kedro run {PLACES}"),
        ("split", f"kedro run {PLACES}"),
        ("extract_musicnn", f"kedro run {PLACES}"),
        ("train", f"kedro run --pipelines=evaluate {PLACES}"),
        ("embed", f"kedro run --pipelines=index {PLACES}"),
        (
            "index",
            "kedro serve --media-dir 'my clips' --collection mine   "
            "(or kedro recommend --media-dir 'my clips' --collection mine VIDEO)",
        ),
        ("compare", f"kedro run --pipelines=evaluate {PLACES}   (the report shows the comparison)"),
        ("tune", "train with the best settings: the second line of that file is the command"),
    ],
)
def test_every_pipeline_has_a_next_one(pipeline, expected):
    assert find_next(register_pipelines()[pipeline].all_outputs(), GIVEN) == expected


def test_feature_files_of_ones_own_have_nothing_to_hear():
    outputs = register_reference_pipelines("vmnet_musicnn")["__default__"].all_outputs()
    found = find_next(outputs, {"runtime_params": {"pairs_dir": "pairs"}, "env": "cuda"})
    assert found.startswith("kedro run --pipelines=compare --env=cuda --params=pairs_dir=pairs ")


def test_an_index_elsewhere_and_no_output_at_all():
    assert (
        find_next(["v.music_index"], {"runtime_params": {"data_root": "s3://b/x"}}) == "kedro serve --index-dir FOLDER"
    )
    assert find_next(["something"], {}) == ""


@pytest.mark.parametrize(("name", "expected"), [("kedro", "kedro run"), (NAME, "vmnet-pipeline run")])
def test_commands_are_those_of_the_program_that_runs(name, expected):
    command = click.command()(lambda: say_next("kedro run"))
    assert CliRunner().invoke(command, prog_name=name).output == f"Next: {expected}\n"


def test_after_the_index_of_a_library_comes_that_library():
    given = {"library": "my music", "checkpoint": "nets/a", "library_side": "music"}
    options = "--media-dir 'my music' --checkpoint nets/a"
    expected = f"kedro serve {options}   (or kedro recommend {options} VIDEO)"
    assert find_next(["library.music_index"], {"runtime_params": given}) == expected
