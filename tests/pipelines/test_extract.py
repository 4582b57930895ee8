"""The extraction pipelines as people run them: on bare folders, with flat and nested parameters, with a new backend."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.features.store import FeatureStore

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "adding-a-backend.md"
EXAMPLE = ROOT / "examples" / "vmnet-loudness"


@pytest.fixture
def sounds(tmp_path):
    for k in range(2):
        make_clip(tmp_path / "sounds" / f"{k:03d}.wav", seed=k, duration_s=4.0, with_video=False)
    return tmp_path / "sounds"


def test_a_bare_folder_of_sounds_needs_no_ingest_and_no_pairs(project, sounds, tmp_path):
    params = f"audio_dir={sounds},save_dir={tmp_path / 'out'},gpu_idx=0,weights=random,vggish.pooled=true"
    output = project.kedro("run", "--pipeline", "extract_vggish", "--params", params)
    assert "gpu_idx=0 has no effect" in output or "cuda" in (tmp_path / "out/_index/fingerprint.json").read_text()
    assert [np.load(tmp_path / f"out/{name}.npy").shape for name in ("000", "001")] == [(62, 512)] * 2


def test_a_bare_folder_of_films(project, tmp_path):
    make_clip(tmp_path / "films" / "007.mp4", duration_s=3.0, width=64, height=48)
    params = f"video_dir={tmp_path / 'films'},save_dir={tmp_path / 'out'},gpu_idx=0"
    project.kedro("run", "--pipeline", "extract_efficientnet", "--params", params)
    assert np.load(tmp_path / "out" / "007.npy").shape == (3, 1280)


def test_descriptors_of_bare_folders(project, tmp_path):
    """The processes that decode may write no file and start no program: what is imported there must do without."""
    make_clip(tmp_path / "films" / "007.mp4", duration_s=3.0, width=64, height=48)
    for backend, params, n in (
        ("descriptors_video", f"video_dir={tmp_path / 'films'},gpu_idx=0,weights=random", 31),
        ("descriptors_audio", f"audio_dir={tmp_path / 'films'}", 47),
        ("descriptors_audio", f"audio_dir={tmp_path / 'films'},descriptors_audio.preset=vmnet2017", 1140),
    ):
        out = tmp_path / f"out{n}"
        output = project.kedro("run", "--pipeline", f"extract_{backend}", "--params", f"{params},save_dir={out}")
        assert "Warning" not in output
        feature = np.load(out / "007.npy")
        assert (feature.shape, feature.dtype) == ((n,), np.float32)
        assert np.isfinite(feature).all()


def test_model_and_layer_are_chosen_by_parameter_and_never_mixed(project, sounds, tmp_path):
    common = f"audio_dir={sounds},save_dir={tmp_path / 'out'}"
    run = ("run", "--pipeline", "extract_musicnn", "--params")
    project.kedro(*run, f"{common},musicnn.model=MTT_musicnn,musicnn.layer=taggram")
    taggram = np.load(tmp_path / "out" / "000.npy")
    assert taggram.shape == (1, 50)
    assert 0 <= taggram.min() <= taggram.max() <= 1
    settings = FeatureStore(tmp_path / "out").fingerprint().settings
    assert (settings["model"], settings["layer"]) == ("MTT_musicnn", "taggram")
    output = " ".join(project.kedro(*run, common, ok=False).split())
    assert "never mixed" in output
    assert "layer 'taggram', not 'penultimate'" in output


def read_page(language, text):
    """The block of the page about backends with this text in it, as far left as it goes."""
    blocks = re.findall(rf"^ *```{language}\n(.*?)^ *```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (code,) = [textwrap.dedent(block) for block in blocks if text in block]
    return code


def test_a_backend_of_ones_own_is_one_file_and_its_place_in_the_parameters(project, sounds, tmp_path):
    """The very file of the page in the docs, and its lines, in a copy of the project."""
    (project.folder / "src" / "vmnet_loudness.py").write_text(read_page("python", "class LoudnessBackend"))
    (project.folder / "conf/local/parameters.yml").write_text(read_page("yaml", "LoudnessBackend"))
    params = f"audio_dir={sounds},save_dir={tmp_path / 'out'}"
    project.kedro("run", "--pipeline", "extract_loudness", "--params", params)
    check_loudness(tmp_path / "out", floor_db=-80.0)


def check_loudness(out, floor_db):
    feature = np.load(out / "000.npy")
    assert feature.shape == (4, 1)
    assert np.isfinite(feature).all()
    fingerprint = json.loads((out / "_index/fingerprint.json").read_text())
    assert (fingerprint["backend"], fingerprint["settings"]) == ("loudness", {"floor_db": floor_db})


def test_the_example_package_installs_and_extracts(project, sounds, tmp_path, monkeypatch):
    source = shutil.copytree(EXAMPLE, tmp_path / "source")
    build = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--target", str(tmp_path / "packages"), str(source)], check=True, timeout=120)
    assert (EXAMPLE / "vmnet_loudness.py").read_text() == read_page("python", "class LoudnessBackend")
    assert read_page("toml", "entry-points") in (EXAMPLE / "pyproject.toml").read_text()
    path = os.pathsep.join([str(tmp_path / "packages"), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    params = f"music=loudness,audio_dir={sounds},save_dir={tmp_path / 'out'}"
    project.kedro("run", "--pipeline", "extract_loudness", "--params", params)
    check_loudness(tmp_path / "out", floor_db=-60.0)
