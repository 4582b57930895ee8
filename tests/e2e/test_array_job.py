"""The recipe for array jobs in the docs, as it stands there, with a backend that needs no weights."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.features.store import FeatureStore

DOCS = Path(__file__).resolve().parents[2] / "docs"


def find_block(page: str, language: str, text: str) -> str:
    blocks = [block.split("```")[0].split("\n", 1) for block in (DOCS / page).read_text().split("```")[1::2]]
    (code,) = [code for found, code in blocks if found == language and text in code]
    return code


def test_the_recipe_for_plain_processes(project, tmp_path):
    code = find_block("adding-a-backend.md", "python", "class LoudnessBackend")
    (project.folder / "src" / "vmnet_loudness.py").write_text(code)
    (project.folder / "conf/local/parameters.yml").write_text("loudness: {backend: 'vmnet_loudness:LoudnessBackend'}")
    for k in range(6):
        make_clip(tmp_path / "media" / f"{k}.mp4", seed=k, duration_s=1.0, width=64, height=48)
    recipe = find_block("scaling.md", "bash", "for WORKER in")
    settings = {"MEDIA": str(tmp_path / "media"), "N": "2", "BACKEND": "loudness"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", f"WORKERS=; {recipe}"],
        cwd=project.folder,
        env={**project.environment, **settings, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (folder,) = (project.folder / "data/04_feature").glob("*/loudness")
    store = FeatureStore(folder)
    assert store.done_ids() == [str(k) for k in range(6)]
    assert store.is_complete()
    assert np.load(folder / "0.npy").shape == (1, 1)
