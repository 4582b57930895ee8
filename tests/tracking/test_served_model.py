"""The model that a run logs to MLflow gives the checkpoint's embeddings, also as `mlflow models serve` answers."""

from __future__ import annotations

import json
import subprocess
import sys

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from vmnet_pipeline.models.checkpoints import Checkpoint, save_checkpoint
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.tracking import runs as tracking

pytestmark = pytest.mark.long
SHAPES = {"musicnn": [7], "vggish": [9, 5]}

# The scoring server's own reading and writing of JSON, in a process where nothing of the project is on the path yet.
SCORER = """
import json, sys
sys.path[:] = [entry for entry in sys.path if not entry.rstrip("/").endswith("src")]
import mlflow
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import invocations
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
answers = []
for body in json.load(sys.stdin):
    try:
        answer = invocations(json.dumps(body), "application/json", model, model.metadata.get_input_schema())
        answers.append([answer.status, json.loads(answer.response)])
    except MlflowException as error:
        answers.append([error.get_http_status_code(), str(error)])
print(json.dumps(answers))
"""


@pytest.fixture(scope="module", params=SHAPES)
def logged(request, tmp_path_factory):
    """Where a logged model is, its address there, and its network."""
    tmp_path = tmp_path_factory.mktemp("mlflow")
    shape = SHAPES[request.param]
    config = {
        "music_tower": request.param, "video_tower": request.param, "music_shape": shape, "video_shape": [4],
        "embedding_dim": 6, "dropout": 0.1, "standardise": True,
    }  # fmt: skip
    torch.manual_seed(3)
    model = build_model(**config).eval()
    save_checkpoint(tmp_path / "checkpoint", Checkpoint(config, dict(model.state_dict())))
    before, uri = mlflow.get_tracking_uri(), f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    try:
        experiment = mlflow.create_experiment("test", artifact_location=str(tmp_path / "artifacts"))
        with mlflow.start_run(experiment_id=experiment) as run:
            tracking.log_model(tmp_path / "checkpoint", shape, [4], "toy", {})
        (entry,) = mlflow.search_logged_models([experiment], output_format="list")
        assert entry.source_run_id == run.info.run_id
        yield uri, f"models:/{entry.model_id}", model
    finally:
        mlflow.set_tracking_uri(before)


@pytest.mark.process
def test_served_embeddings_are_those_of_the_network(logged):
    uri, address, model = logged
    shape = model_shape(model)
    rng = np.random.default_rng(0)
    music, video = rng.random((3, *shape), dtype=np.float32), rng.random((3, 4), dtype=np.float32)
    loaded = mlflow.pyfunc.load_model(address)
    both = loaded.predict(pd.DataFrame({"music": music.astype(float).tolist(), "video": video.astype(float).tolist()}))
    np.testing.assert_allclose(np.stack(both["music_embedding"]), embed_arrays(model, music=music), atol=1e-6)
    np.testing.assert_allclose(np.stack(both["video_embedding"]), embed_arrays(model, video=video), atol=1e-6)
    bodies = [
        {"dataframe_records": [{"video": row.tolist()} for row in video]},
        {"dataframe_records": [{"music": row.tolist()} for row in music]},
        {"dataframe_records": [{"video": [0.5, 0.5]}]},
    ]
    command = [sys.executable, "-c", SCORER, uri, address]
    done = subprocess.run(command, input=json.dumps(bodies), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    for (status, answer), side, features in zip(answers, ("video", "music"), (video, music), strict=False):
        assert status == 200, answer
        found = [row[f"{side}_embedding"] for row in answer["predictions"]]
        np.testing.assert_allclose(found, embed_arrays(model, **{side: features}), atol=1e-6)
    assert answers[2][0] == 400
    assert "this checkpoint takes (4,)" in str(answers[2][1])


def model_shape(model) -> list[int]:
    return SHAPES["vggish"] if hasattr(model.music, "time_fusion") else SHAPES["musicnn"]


def test_neither_side_is_an_error(logged):
    _, address, _ = logged
    with pytest.raises(Exception, match="music"):
        mlflow.pyfunc.load_model(address).predict(pd.DataFrame({"other": [1.0]}))


def test_a_gap_in_a_column_is_an_error_and_no_column_left_out(logged):
    from mlflow.exceptions import MlflowException

    _, address, model = logged
    feature = np.zeros(model_shape(model)).tolist()
    table = pd.DataFrame({"music": [feature, None], "video": [[0.5] * 4, [0.5] * 4]})
    with pytest.raises(MlflowException, match="a feature in every row"):
        mlflow.pyfunc.load_model(address).unwrap_python_model().predict(None, table)


def test_sequences_of_any_length_are_served(tmp_path):
    from types import SimpleNamespace

    from mlflow.exceptions import MlflowException

    from vmnet_pipeline.pairs.sequences import stack_sequences
    from vmnet_pipeline.tracking.served_model import CheckpointModel

    config = {
        "music_tower": "sequence", "video_tower": "musicnn", "music_shape": [5, 3], "video_shape": [4],
        "embedding_dim": 6, "dropout": 0.1, "standardise": True,
    }  # fmt: skip
    model = build_model(**config).eval()
    save_checkpoint(tmp_path, Checkpoint(config, dict(model.state_dict())))
    served = CheckpointModel()
    served.load_context(SimpleNamespace(artifacts={"checkpoint": str(tmp_path)}))
    items = [np.random.default_rng(k).random((length, 3)).astype(np.float32) for k, length in enumerate((2, 1, 8))]
    found = served.predict(None, pd.DataFrame({"music": [item.tolist() for item in items]}))
    expected = embed_arrays(model, music=stack_sequences(items, 5))
    np.testing.assert_allclose(np.stack(found["music_embedding"]), expected, atol=1e-6)
    for wrong in ([[1.0, 2.0]], [1.0, 2.0, 3.0], []):
        with pytest.raises(MlflowException, match=r"takes sequences \(T, 3\)"):
            served.predict(None, pd.DataFrame({"music": [wrong]}))
