"""Names and places in files of parameters are text as they are written."""

from pathlib import Path
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from vmnet_pipeline import params
from vmnet_pipeline.hooks.config_loader import TEXT_PARAMETERS, ProjectConfigLoader, load_as_written
from vmnet_pipeline.ingestion.ids import name_collection
from vmnet_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def load(tmp_path):
    def make(given=None, **files):
        for name in ("base", "local"):
            (tmp_path / name).mkdir(exist_ok=True)
        for source in (ROOT / "conf/base").rglob("*.yml"):
            target = tmp_path / source.relative_to(ROOT / "conf")
            target.parent.mkdir(exist_ok=True, parents=True)
            target.write_text(source.read_text())
        for name, content in files.items():
            (tmp_path / "local" / f"{name}.yml").write_text(content)
        return CONFIG_LOADER_CLASS(conf_source=str(tmp_path), runtime_params=given, **CONFIG_LOADER_ARGS)

    return make


@pytest.mark.parametrize("value", ["007", "2024_01", "1e5", "true", "0x10", "2024-01-05", "1:30", "on"])
def test_names_and_places_of_files(load, value):
    loader = load(
        globals=f"media_dir: {value}\ndata_root: {value}\nseed: 5",
        parameters=f"backend_defaults: &d\n  weights_dir: {value}\nmusicnn:\n  <<: *d\n  backend: musicnn",
    )
    assert loader["parameters"]["ingest"]["media_dir"] == value
    assert loader["parameters"]["split"]["seed"] == 5
    assert loader["parameters"]["musicnn"]["weights_dir"] == value
    place = loader["catalog"]["manifest"]["filepath"]
    assert place == f"{value}/02_intermediate/{name_collection(value)}/manifest.parquet"


def test_the_project_takes_what_retrieves_best_unless_told_otherwise(load):
    parameters = load()["parameters"]
    assert (parameters["variant"], parameters["train"]["protocol"]) == ("vmnet_fused", "best")
    assert parameters["variant"] == params.DEFAULT_VARIANT == next(iter(params.VARIANTS))
    on_a_gpu = load_as_written((ROOT / "conf/cuda/parameters_train.yml").read_text())  # in place of all of `train`
    assert on_a_gpu["train"]["protocol"] == "best"
    given = load({"variant": "vmnet_musicnn", "train": {"protocol": "reference"}})["parameters"]
    assert (given["variant"], given["train"]["protocol"]) == ("vmnet_musicnn", "reference")


def test_null_in_a_file_is_none_and_numbers_stay_numbers(load):
    loader = load(parameters="split:\n  split_dir: null\n  seed: 7\ntrain:\n  learning_rate: 1e-3\n")
    assert loader["parameters"]["split"] == {"split_dir": None, "seed": 7}
    assert loader["parameters"]["train"] == {"learning_rate": 1e-3}
    assert load_as_written("'collection': '007'\nmedia_dir: !!int 7\n2: x") == {
        "collection": "007",
        "media_dir": "7",
        2: "x",
    }


def test_params_change_one_value_and_not_its_group(load):
    """Also where there are files in conf/local."""
    given = {"evaluate": {"seed": 3}, "shuffle_pairs": True, "tune": {"n_trials": 2}, "new": {"x": 1}}
    loader = load(given, parameters="variants:\n  own: {music: musicnn, video: efficientnet}\ntrain:\n  epochs: 7\n")
    found, base = loader["parameters"], load()["parameters"]
    assert found["evaluate"] == {**base["evaluate"], "seed": 3, "shuffle_pairs": True}
    assert found["tune"] == {**base["tune"], "n_trials": 2}
    assert (found["train"], found["new"]) == ({"epochs": 7}, {"x": 1})  # a group in a file is whole
    assert load({**given, "train": {"seed": 1}})["parameters"]["train"] == {"epochs": 7, "seed": 1}
    assert [*found["variants"]] == ["own"]


def test_a_variant_of_digits_is_text(load):
    loader = load({"variant": "007"}, parameters="variants:\n  '007': {music: musicnn, video: efficientnet}\n")
    assert loader["parameters"]["variant"] == "007"
    assert load(parameters="variant: 007")["parameters"]["variant"] == "007"


def test_a_collection_of_digits_names_its_folders(load):
    catalog = load({"collection": "007", "media_dir": "2024"})["catalog"]
    assert catalog["manifest"]["filepath"] == "data/02_intermediate/007/manifest.parquet"
    assert load({"collection": 7, "train": {"epochs": 3}}).runtime_params == {"collection": "7", "train": {"epochs": 3}}


def leaves(model):
    """Names of the fields of a model and of those below it, with what they may be."""
    for name, field in model.model_fields.items():
        for kind in alternatives(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from leaves(kind)
            else:
                yield name, kind


def alternatives(annotation):
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in alternatives(part)]
    return [annotation]


def test_every_parameter_that_is_free_text_is_known_and_no_other_is_called_so():
    models = [value for value in vars(params).values() if isinstance(value, type) and issubclass(value, BaseModel)]
    found = {leaf for model in models for leaf in leaves(model)}
    free = {name for name, kind in found if kind in (str, Path)}
    assert free - {"name"} <= TEXT_PARAMETERS
    others = {name for name, kind in found if kind not in (str, Path, type(None)) and get_origin(kind) is not Literal}
    assert not others & TEXT_PARAMETERS


def test_every_place_that_the_catalog_reads_is_known():
    import re

    read = set()
    for path in (ROOT / "conf/base").rglob("*.yml"):
        read |= set(re.findall(r"\$\{runtime_params:\s*(\w+)", path.read_text()))
    values = {"gpu_idx", "music", "n_workers", "pool_size", "seed", "shuffle_pairs", "video", "worker", "weights"}
    assert read - values <= TEXT_PARAMETERS


def test_the_loader_is_that_of_the_project():
    assert CONFIG_LOADER_CLASS is ProjectConfigLoader
