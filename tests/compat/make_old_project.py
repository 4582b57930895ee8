"""Make a project as an earlier commit writes it: feature store, packed pairs, checkpoint, search index, MLflow.

Nothing of it is kept in the repository, since it can be made again: `python tests/compat/make_old_project.py FOLDER`
checks the commit's files out of the history, and lets that code run in processes of its own.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMIT = "d400e672d158ddfb893c12df6e48866a12b10482"
PARAMS = "train.epochs=3,train.batch_size=8"

# Runs with the old code. Inputs are drawn, so that the new code can be asked for the same.
PROGRAM = """
import sys
from pathlib import Path
import numpy as np, pandas as pd
from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow, FeatureStore
from vmnet_pipeline.params import IndexParams
from vmnet_pipeline.records import Fingerprint
from vmnet_pipeline.retrieval.index import VectorIndex
from vmnet_pipeline.retrieval.index_files import save_index
from vmnet_pipeline.search.embedder import Embedder

folder = Path(sys.argv[1])
rng = np.random.default_rng(3)
arrays = {f"{i:03d}": rng.random((4, 6), dtype=np.float32) for i in range(5)}
rows = [FeatureResult(FeatureRow(i, "done", "sha256:a", n_valid=4), array) for i, array in arrays.items()]
failed = FeatureResult(FeatureRow("bad", "failed", "sha256:b", reason="undecodable_audio", error="bad"), None)
store = FeatureStore(folder / "store")
store.write(FeatureChunk(Fingerprint("toy", {"width": 6}), (*rows, failed)))
store.compact()
np.savez(folder / "features.npz", **arrays)

(checkpoint,) = (folder / "data/06_models").glob("*/vmnet_musicnn/checkpoint")
music, video = rng.random((7, 24), dtype=np.float32), rng.random((7, 30), dtype=np.float32)
embeddings = Embedder.load(checkpoint)((music, video), pooled=True)
np.savez(folder / "embeddings.npz", music=music, video=video, x=embeddings[0], y=embeddings[1])

for kind in ("flat", "hnsw"):
    params = IndexParams.model_validate({"kind": kind})
    items = pd.DataFrame({"id": [f"{i:03d}" for i in range(7)], "title": [f"title {i}" for i in range(7)]})
    index = VectorIndex.build(np.asarray(embeddings[0]), items, params, {"checkpoint": "abc"})
    index.remove(["004"])
    save_index(folder / kind, index)
    np.save(folder / f"{kind}.npy", [hit.id for hit in index.search(np.asarray(embeddings[1])[:1], 6)[0]])
"""


def has_commit() -> bool:
    """Whether the history is here; a shallow clone has none."""
    return subprocess.run(["git", "cat-file", "-e", COMMIT], cwd=ROOT, capture_output=True, check=False).returncode == 0


def make_old_project(folder: Path) -> Path:
    """Fill `folder` with what the old code writes; `folder` is its Kedro project."""
    sys.path.insert(0, str(ROOT / "tests"))
    from reference_data import make_reference_data

    folder.mkdir(parents=True)
    names = ["src", "conf", "pyproject.toml", ".telemetry", "README.md"]
    packed = subprocess.run(["git", "archive", COMMIT, *names], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    make_reference_data(folder / "pairs")
    run_project(folder, "-m", "kedro", "run", "--pipelines=train,evaluate", "--params", f"pairs_dir=pairs,{PARAMS}")
    run_project(folder, "-c", PROGRAM, str(folder))
    return folder


def run_project(folder: Path, *arguments: str) -> str:
    """Run Python on the code that the project holds; what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "DO_NOT_TRACK": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout[-3000:] + done.stderr[-3000:])
    return done.stdout


if __name__ == "__main__":
    make_old_project(Path(sys.argv[1]))
