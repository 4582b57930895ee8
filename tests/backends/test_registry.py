"""Naming backends: lazy, strict."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vmnet_pipeline.backends import registry
from vmnet_pipeline.backends.registry import (
    BACKENDS,
    RESERVED,
    declare_backends,
    get_backend,
    list_backends,
    make_backend,
)
from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.params import VARIANTS
from vmnet_pipeline.pipeline_registry import register_pipelines

HEAVY = (
    "torch",
    "tensorflow",
    "librosa",
    "numba",
    "cv2",
    "scenedetect",
    "scipy",
    "pandas",
    "openvino",
    "keras",
    "h5py",
    "mlflow",
    "kedro",
    "requests",
    "transformers",
    "torchvision",
    "timm",
    "huggingface_hub",
)
ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"


@pytest.mark.parametrize("name", list(BACKENDS))
def test_every_name_gives_a_backend_of_that_name(name, tmp_path):
    backend = get_backend(name, {"max_duration_s": 7.0}, weights_dir=tmp_path)
    assert backend.name == name
    assert backend.modality in ("audio", "video")
    assert backend.params.max_duration_s == 7.0


@pytest.mark.process
def test_making_backends_imports_nothing_heavy():
    program = (
        f"import sys; sys.path.insert(0, {str(SRC)!r})\n"
        "from vmnet_pipeline.backends.registry import BACKENDS, RESERVED, get_backend\n"
        "for name in [name for name in BACKENDS if '_encoder' not in name and 'pe-av' not in name]:\n"
        "    get_backend(name, {'weights': 'random'}).fingerprint()\n"
        "for name in BACKENDS: get_backend(name)\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    allowed = {"torch"} if "+cpu" not in __import__("torch").__version__ else set()
    assert set(eval(output)) <= allowed  # noqa: S307


@pytest.mark.parametrize(
    "params",
    [
        {"nonsense": 1},
        {"engine": "magic"},
        {"precision": "f8"},
        {"batch_size": 0},
        {"n_threads": 0},
        {"max_duration_s": 0},
        {"max_duration_s": float("nan")},
        {"weights": "whatever"},
    ],
)
@pytest.mark.parametrize("name", list(BACKENDS))
def test_bad_parameters_are_named(name, params):
    with pytest.raises(ParameterError, match=rf"(?s){name}.*{next(iter(params))}"):
        get_backend(name, params)


def test_unknown_backend_names_the_known_ones():
    with pytest.raises(ParameterError, match="vggish"):
        get_backend("openl3")


TOY = """
class Toy:
    name = "toy"
    modality = "audio"
    def __init__(self, params, *, weights_dir=""):
        self.params = params
        assert params.get("fails") is None
    fingerprint = prepare = infer = pool = None
"""


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """A function that installs packages: name of the distribution to the lines of its entry points."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "toys.py").write_text(TOY)
    (tmp_path / "broken_toys.py").write_text("import module_that_is_nowhere")

    def install(**packages):
        for name, lines in packages.items():
            (tmp_path / f"{name}-1.0.dist-info").mkdir()
            (tmp_path / f"{name}-1.0.dist-info/METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
            )
            text = "\n".join(["[vmnet_pipeline.backends]", *lines])
            (tmp_path / f"{name}-1.0.dist-info/entry_points.txt").write_text(text)
        registry._find_plugins.cache_clear()

    yield install
    registry._DECLARED.clear()
    registry._find_plugins.cache_clear()
    for name in ("toys", "broken_toys"):
        sys.modules.pop(name, None)


def test_installed_packages_bring_backends_and_none_is_imported_to_list_them(plugins):
    plugins(one=["toy = toys:Toy"], two=["bad = broken_toys:Toy"])
    assert list_backends().items() >= {"toy": "toys:Toy", "bad": "broken_toys:Toy", **BACKENDS}.items()
    assert not {"toys", "broken_toys"} & {*sys.modules}
    assert get_backend("toy", {"x": 1}).params == {"x": 1}
    with pytest.raises(
        ParameterError, match=r"'bad' \(broken_toys:Toy\) cannot be imported \(ModuleNotFoundError.*uninst"
    ):
        get_backend("bad")
    assert get_backend("musicnn").name == "musicnn"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("musicnn = toys:Toy", "another backend has this name"),
        ("train = toys:Toy", "no name for a backend"),
        ("video = toys:Toy", "no name for a backend"),
        ("a+b = toys:Toy", "no name for a backend"),
        ("a.b = toys:Toy", "no name for a backend"),
        ("9lives = toys:Toy", "no name for a backend"),
        ("third = toys", "no place of a class"),
        ("fourth = toys:Toy [extra]", "no place of a class"),
    ],
)
def test_an_entry_point_that_cannot_be_used_is_left_out_with_a_warning(plugins, caplog, line, fault):
    plugins(one=[line], two=["toy = toys:Toy"])
    with caplog.at_level(logging.WARNING):
        assert list_backends() == {"toy": "toys:Toy", **BACKENDS}
    (record,) = caplog.records
    assert "of the package one is left out" in record.message
    assert fault in record.message


def test_no_backend_can_have_the_name_of_a_parameter_or_pipeline():
    keys = {key for path in (ROOT / "conf/base/parameters").glob("*.yml") for key in yaml.safe_load(path.read_text())}
    steps = {name for name in register_pipelines() if not name.startswith(("extract_", "embed_", "index_", "__"))}
    assert keys | steps - VARIANTS.keys() <= RESERVED | BACKENDS.keys()


def test_two_packages_with_one_name_leave_one_of_them(plugins, caplog):
    plugins(one=["toy = toys:Toy"], two=["toy = toys:Toy"])
    assert "toy" in list_backends()
    assert "uninstall one of the two" in caplog.text


def test_a_place_in_the_parameters_is_a_backend(plugins, tmp_path):
    plugins(one=["toy = toys:Toy"])
    given = {"own": {"backend": "toys:Toy", "x": 2}, "big": {"backend": "musicnn", "model": "MSD_musicnn_big"}}
    assert declare_backends({**given, "musicnn": {"backend": "musicnn"}, "train": {"epochs": 3}, "seed": 1}) == {
        "own": "toys:Toy",
        "big": BACKENDS["musicnn"],
    }
    assert {"own", "big"} <= list_backends().keys()
    assert make_backend({**given["own"], "weights_dir": tmp_path}).params == {"x": 2}
    assert make_backend({**given["big"], "weights_dir": tmp_path}).params.model == "MSD_musicnn_big"
    declare_backends({})
    assert list_backends() == {"toy": "toys:Toy", **BACKENDS}


def test_commands_find_the_backend_of_a_checkpoint_by_the_name_of_its_class(plugins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match="unknown backend 'toy'"):
        get_backend("toy")
    (tmp_path / "conf/local").mkdir(parents=True)
    (tmp_path / "conf/local/parameters.yml").write_text("own: {backend: 'toys:Toy'}")
    assert get_backend("toy").name == "toy"
    (tmp_path / "conf/local/parameters.yml").write_text("own: [")
    with pytest.raises(ParameterError, match=r"parameters\.yml: not a file of parameters"):
        get_backend("toy")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"own": {"backend": "wav2vec"}}, r"own\.backend: unknown backend 'wav2vec'; known are.*or give the place"),
        ({"own": {"backend": "os.system('x'):y"}}, r"own\.backend: unknown backend"),
        ({"own": {"backend": 7}}, r"own\.backend: unknown backend '7'"),
        ({"train": {"backend": "toys:Toy"}}, "'train' is no name for another backend"),
        ({"vggish": {"backend": "musicnn"}}, "'vggish' is no name for another backend"),
        ({"a b": {"backend": "toys:Toy"}}, "'a b' is no name for another backend"),
    ],
)
def test_a_backend_in_the_parameters_that_cannot_be_is_refused(parameters, message):
    with pytest.raises(ParameterError, match=message):
        declare_backends(parameters)


@pytest.mark.parametrize(
    ("place", "params", "message"),
    [
        ("toys:Nobody", {}, r"'toys:Nobody'.* cannot be imported \(AttributeError"),
        ("json:dumps", {}, r"json:dumps is no class of a backend, it has no modality"),
        ("toys:Toy", {"fails": 1}, r"cannot be made \(AssertionError"),
    ],
)
def test_a_class_that_is_no_backend_is_said_to_be_none(plugins, tmp_path, place, params, message):
    plugins()
    with pytest.raises(ParameterError, match=message):
        make_backend({"backend": place, **params, "weights_dir": tmp_path})


def test_what_a_checkpoint_says_imports_nothing(plugins):
    from vmnet_pipeline.inference.embedder import recall_backend
    from vmnet_pipeline.types import Fingerprint

    plugins()
    with pytest.raises(ParameterError, match="unknown backend 'toys:Toy'"):
        recall_backend(Fingerprint("toys:Toy", {}))
    assert "toys" not in sys.modules
