"""MLflow's own words about a failure that is told anyway."""

import io
import logging
import sqlite3

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from vmnet_pipeline.tracking.connection import connect


@pytest.mark.long
def test_a_database_that_fails_amid_a_run_prints_no_traceback(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    connect(
        {"server": {"mlflow_tracking_uri": uri}, "tracking": {"experiment": {"name": "some"}}}, tmp_path, lambda: None
    )
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("DROP TABLE tags")
    printed = io.StringIO()
    handler = logging.StreamHandler(printed)
    logging.getLogger("mlflow").addHandler(handler)
    try:
        with pytest.raises(MlflowException, match="no such table"):
            mlflow.MlflowClient(tracking_uri=uri).create_run("0", tags={"a": "b"})
    finally:
        logging.getLogger("mlflow").removeHandler(handler)
    assert "Traceback" not in printed.getvalue()


@pytest.mark.long
def test_artifacts_of_a_new_experiment_are_relative_to_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    settings = {"server": {"mlflow_tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}, "tracking": {}}
    connect(settings, tmp_path, lambda: client.create_experiment("some"))
    run = client.create_run(client.get_experiment_by_name("some").experiment_id)
    assert run.info.artifact_uri == f"mlruns/1/{run.info.run_id}/artifacts"
