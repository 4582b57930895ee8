"""Which network, variant and collection a command takes."""

from __future__ import annotations

import click
import pytest

from vmnet_pipeline.commands import collection
from vmnet_pipeline.commands.collection import choose_place, find_network, read_variant, tell_network
from vmnet_pipeline.inference.starter import STARTER_FOLDER
from vmnet_pipeline.ingestion.ids import name_collection
from vmnet_pipeline.params import DEFAULT_VARIANT
from vmnet_pipeline.types import CollectionPlaces


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "conf/base").mkdir(parents=True)
    (tmp_path / "conf/local").mkdir()
    (tmp_path / "conf/base/parameters_variants.yml").write_text("variant: ${runtime_params:variant, mine}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_variant_is_that_of_the_project(project, monkeypatch, tmp_path):
    assert read_variant() == "mine"
    assert choose_place("clips", "", "") == (name_collection("clips"), "mine")
    assert choose_place("clips", "", "other")[1] == "other"
    (project / "conf/local/parameters_variants.yml").write_text("variant: local_one\n")
    assert read_variant() == "local_one"
    monkeypatch.chdir(project / "conf")
    assert read_variant() == DEFAULT_VARIANT


def test_files_that_are_indexed_as_a_library_alone_are_found_there(project):
    library = name_collection("clips", library="clips")
    (project / collection.OUTPUT / library / "library").mkdir(parents=True)
    assert choose_place("clips", "", "") == (library, "library")
    assert choose_place("clips", "", "mine")[1] == "mine"  # asked for
    (project / collection.OUTPUT / name_collection("clips") / "mine").mkdir(parents=True)
    assert choose_place("clips", "", "") == (name_collection("clips"), "mine")


def test_what_an_earlier_variant_left_is_found_and_told(project, capsys):
    """As in a project whose default was another one before."""
    name = name_collection("clips")
    (project / collection.MODELS / name / "older/checkpoint").mkdir(parents=True)
    assert choose_place("clips", "", "") == (name, "older")
    told = capsys.readouterr().err
    assert "nothing is there of variant mine" in told
    assert "kedro run --params variant=older" in told
    assert choose_place("clips", "", "mine") == (name, "mine")  # asked for
    (project / collection.OUTPUT / name / "other").mkdir(parents=True)
    assert choose_place("clips", "", "") == (name, "mine")  # which of the two is not known
    (project / collection.OUTPUT / name / "mine").mkdir()
    assert choose_place("clips", "", "") == (name, "mine")
    assert capsys.readouterr().err == ""


def test_the_starter_model_is_used_where_nothing_was_trained_and_it_is_told(project, capsys):
    trained, output = project / "models/checkpoint", project / "output"
    with pytest.raises(click.ClickException, match=r"nothing is trained .* --params library=clips"):
        find_network(trained, output, "clips")
    output.mkdir()
    assert find_network(trained, output, "clips") == STARTER_FOLDER
    tell_network(CollectionPlaces(output, STARTER_FOLDER, project, project, ()))
    assert "no trained model found: using the starter model, fitted to" in capsys.readouterr().err
    trained.mkdir(parents=True)
    (trained / "config.json").write_text("{}")
    assert find_network(trained, output, "clips") == trained
    tell_network(CollectionPlaces(output, trained, project, project, ()))
    assert capsys.readouterr().err == ""
