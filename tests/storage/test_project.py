"""Everything hangs on the root of a project; what a person types is relative to the folder in which it is typed."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from vmnet_pipeline.__main__ import make_program
from vmnet_pipeline.commands import recommend
from vmnet_pipeline.hooks.config_loader import TEXT_PARAMETERS
from vmnet_pipeline.storage.project import PATH_NAMES, enter_project, find_caller, relocate


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project; the current folder is one of its own."""
    root = tmp_path / "project"
    (root / "docs").mkdir(parents=True)
    (root / "pyproject.toml").write_text(
        '[tool.kedro]\npackage_name = "vmnet_pipeline"\nproject_name = "x"\nkedro_init_version = "1.7.0"\n'
    )
    monkeypatch.chdir(root / "docs")
    return root


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("clips", "docs/clips"),
        ("../data/01_raw/demo", "data/01_raw/demo"),
        ("..", "."),
        ("../../elsewhere/x.csv", "{outside}/elsewhere/x.csv"),
        ("/abs/olute", "/abs/olute"),
        ("~/clips", "~/clips"),
        ("s3://bucket/clips", "s3://bucket/clips"),
        ("", ""),
    ],
)
def test_a_path_means_what_it_meant_where_it_was_typed(root, typed, meant):
    assert relocate(typed, Path.cwd(), root) == meant.format(outside=root.parent)
    if typed and "://" not in typed:
        assert relocate(Path(typed), Path.cwd(), root) == Path(meant.format(outside=root.parent))


def test_parameters_that_are_places_are_relocated_wherever_they_are(root):
    given = {
        "media_dir": "clips",
        "collection": "clips",
        "ingest": {"media_dir": "../clips", "n_workers": 2},
        "musicnn.weights_dir": "w",
        "seed": 3,
    }
    caller = Path.cwd()
    enter_project(root, given)
    assert Path.cwd() == root
    assert find_caller() == caller
    assert given == {
        "media_dir": "docs/clips",
        "collection": "clips",
        "ingest": {"media_dir": "clips", "n_workers": 2},
        "musicnn.weights_dir": "docs/w",
        "seed": 3,
    }
    enter_project(root, given)  # there already
    assert given["media_dir"] == "docs/clips"


def test_all_of_them_are_text_as_it_is_written():
    assert PATH_NAMES <= TEXT_PARAMETERS
    assert all(name in PATH_NAMES for name in TEXT_PARAMETERS if name.endswith(("_dir", "_path", "_root")))


def test_a_command_takes_its_defaults_from_the_project_and_paths_from_the_caller(root, monkeypatch):
    seen = {}

    def remember(path, query, places, **options):
        seen.update(video=path, places=places, folder=Path.cwd())
        return []

    monkeypatch.setattr(recommend, "make_ranking", remember)
    (root / "data/06_models/x/vmnet_musicnn/checkpoint").mkdir(parents=True)
    (root / "data/06_models/x/vmnet_musicnn/checkpoint/config.json").touch()  # something is trained
    arguments = ["recommend", "film.mp4", "--media-dir", "../clips", "--collection", "x", "--index-dir", "index"]
    done = CliRunner().invoke(make_program(), arguments)
    assert done.exit_code == 0, done.output
    assert seen["folder"] == root
    assert seen["video"] == Path("docs/film.mp4")
    assert seen["places"].media_roots == (Path("clips"),)
    assert seen["places"].output == Path("docs/index")
    assert seen["places"].checkpoint == Path("data/06_models/x/vmnet_musicnn/checkpoint")
    assert seen["places"].weights_dir == Path("data/06_models/weights")


def test_a_store_is_a_folder_of_the_caller_or_the_name_of_a_backend(root, monkeypatch):
    output = CliRunner().invoke(make_program(), ["features", "status", "--store", "musicnn"]).output
    assert "There is no feature store musicnn" in output
    monkeypatch.chdir(root / "docs")
    (root / "docs" / "mine").mkdir()
    output = CliRunner().invoke(make_program(), ["features", "status", "--store", "mine"]).output
    assert "docs/mine is not a feature store" in output


@pytest.mark.long
def test_demo_media_goes_into_the_project(root):
    done = CliRunner().invoke(make_program(), ["demo-media", "--pairs", "4", "--workers", "1"])
    assert done.exit_code == 0, done.output
    assert (root / "data/01_raw/demo/media.csv").exists()
    assert not list((root / "docs").iterdir())


def test_a_checkpoint_to_start_from_is_a_place_too(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    given = {"train": {"start_from": "../old/checkpoint"}, "train.start_from": "here"}
    enter_project(tmp_path, given)
    assert given == {"train": {"start_from": "old/checkpoint"}, "train.start_from": "docs/here"}
