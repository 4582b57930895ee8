"""Encoders where they run: in the confined processes that read files, in extractions that are killed, in kedro."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tiny_encoders import save_tiny
from vmnet_pipeline.backends.registry import get_backend
from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.features.store import FeatureStore
from vmnet_pipeline.media.sandbox import Sandbox
from vmnet_pipeline.params import LimitParams

pytestmark = [pytest.mark.process, pytest.mark.long]
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("media") / "7.mp4"
    make_clip(path, seed=7, duration_s=3.0, width=80, height=60)
    return path


@pytest.mark.parametrize(
    ("name", "backend", "params"),
    [("clap", "clap", {"window_s": 2.0}), ("videoprism", "videoprism", {"n_frames": 4})],
)
def test_the_processes_that_read_files_prepare_the_same(name, backend, params, film, tmp_path):
    own = get_backend(backend, {"model": str(save_tiny(name, tmp_path / name)), **params}, weights_dir=tmp_path)
    sandbox = Sandbox(LimitParams())
    try:
        sent = sandbox.call(own.prepare, str(film))
    finally:
        sandbox.close()
    assert (sent.inputs == own.prepare(str(film)).inputs).all()
    assert not sent.warnings


EXTRACT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from vmnet_pipeline.backends.registry import get_backend
from vmnet_pipeline.extraction.driver import extract_missing
from vmnet_pipeline.features.store import FeatureStore
from vmnet_pipeline.params import ExtractParams
from vmnet_pipeline.types import MediaItem
backend = get_backend("clip", {{"model": {model!r}, "engine": "torch"}}, weights_dir={weights!r})
items = [MediaItem(str(k), {film!r}, f"sha256:{{k}}") for k in range(4)]
store = FeatureStore({folder!r})
missing = [item for item in items if item.id not in store.done_ids()]
params = ExtractParams(batch_size=1, n_workers=1, executor={{"kind": "serial"}})
for n, row in enumerate(extract_missing(backend, missing, store, params), 1):
    assert row.status == "done", row
    if n == {n_rows}:
        os.kill(os.getpid(), signal.SIGKILL)
print(len(missing))
"""


@pytest.mark.slow
def test_a_killed_extraction_goes_on_where_it_was(film, tmp_path):
    model = str(save_tiny("clip", tmp_path / "model"))

    def extract(folder: str, n_rows: int):
        places = {"tests": str(TESTS), "weights": str(tmp_path), "film": str(film), "folder": str(tmp_path / folder)}
        code = EXTRACT.format(model=model, n_rows=n_rows, **places)
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)

    assert extract("killed", 2).returncode == -signal.SIGKILL
    assert 1 <= len(FeatureStore(tmp_path / "killed").done_ids()) < 4
    rest = extract("killed", 0)
    assert rest.returncode == 0, rest.stderr[-3000:]
    assert int(rest.stdout) < 4
    assert extract("whole", 0).returncode == 0
    killed, whole = FeatureStore(tmp_path / "killed"), FeatureStore(tmp_path / "whole")
    assert killed.done_ids() == whole.done_ids() == ["0", "1", "2", "3"]
    assert killed.fingerprint() == whole.fingerprint()
    for item in whole.done_ids():
        np.testing.assert_array_equal(killed.load(item), whole.load(item))


@pytest.mark.slow
def test_a_pair_of_encoders_is_extracted_by_kedro(project, tmp_path):
    make_clip(tmp_path / "media" / "007.mp4", duration_s=3.0, width=64, height=48)
    clap, pe_av = save_tiny("clap", tmp_path / "clap"), save_tiny("pe-av", tmp_path / "pe-av")
    params = (
        f"media_dir={tmp_path / 'media'},music=clap,video=pe-av,clap.model={clap},clap.window_s=2,"
        f"pe-av-video.model={pe_av},pe-av-video.n_frames=4"
    )
    project.kedro("run", "--pipelines=ingest,extract_clap,extract_pe-av-video", "--params", params)
    (folder,) = (project.folder / "data/04_feature").iterdir()
    assert np.load(folder / "clap" / "007.npy").shape == (2, 12)
    assert np.load(folder / "pe-av-video" / "007.npy").shape == (3, 16)
