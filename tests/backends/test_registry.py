"""Naming backends: lazy, strict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vmnet_pipeline.backends.registry import BACKENDS, get_backend
from vmnet_pipeline.errors import ParameterError

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
)
SRC = Path(__file__).resolve().parents[2] / "src"


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
        "from vmnet_pipeline.backends.registry import BACKENDS, get_backend\n"
        "for name in BACKENDS: get_backend(name, {'weights': 'random'}).fingerprint()\n"
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
        {"precision": "f16"},
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
