"""The extraction pipelines as people run them: on bare folders, with flat and nested parameters, with a new backend."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.features.store import FeatureStore

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-a-backend.md"


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


def test_a_new_backend_is_one_file_and_one_registry_line(project, sounds, tmp_path):
    """The very file of the page in the docs, and its line, in a copy of the project."""
    blocks = [block.split("```")[0].split("\n", 1) for block in PAGE.read_text(encoding="utf-8").split("```")[1::2]]
    (code,) = [text for language, text in blocks if language == "python" and "class LoudnessBackend" in text]
    (line,) = [text.strip() for language, text in blocks if language == "python" and text.startswith('    "loudness"')]
    package = project.folder / "src" / "vmnet_pipeline" / "backends"
    (package / "loudness.py").write_text(code)
    registry = (package / "registry.py").read_text()
    (package / "registry.py").write_text(registry.replace("BACKENDS = {", f"BACKENDS = {{\n    {line}"))
    params = f"audio_dir={sounds},save_dir={tmp_path / 'out'}"
    project.kedro("run", "--pipeline", "extract_loudness", "--params", params)
    feature = np.load(tmp_path / "out" / "000.npy")
    assert feature.shape == (4, 1)
    assert np.isfinite(feature).all()
    fingerprint = json.loads((tmp_path / "out/_index/fingerprint.json").read_text())
    assert fingerprint["backend"] == "loudness"
