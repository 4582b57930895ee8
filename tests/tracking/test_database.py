import shutil
import sqlite3
from pathlib import Path

import mlflow
import pytest

from vmnet_pipeline.tracking.database import make_database


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    make_database(f"sqlite:///{folder / 'deep' / 'mlflow.db'}")
    return folder / "deep" / "mlflow.db"


def test_a_database_is_made_that_mlflow_takes(made):
    assert [path.name for path in made.parent.iterdir()] == ["mlflow.db"]
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{made}")
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]


def test_one_that_is_there_stays(made, tmp_path):
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"another's")
    make_database(f"sqlite:///{path}")
    assert path.read_bytes() == b"another's"


def test_what_is_interrupted_leaves_nothing_that_a_later_run_takes_for_one(tmp_path, monkeypatch):
    path, seen = tmp_path / "mlflow.db", []

    def make_half(client, tracking_uri):
        half = Path(tracking_uri.removeprefix("sqlite:///"))
        half.write_bytes(b"half")
        seen.append((half.parent, path.exists()))
        raise KeyboardInterrupt

    monkeypatch.setattr(mlflow.MlflowClient, "__init__", make_half)
    with pytest.raises(KeyboardInterrupt):
        make_database(f"sqlite:///{path}")
    assert seen == [(tmp_path, False)]
    assert list(tmp_path.iterdir()) == []


def test_of_two_first_runs_the_second_takes_the_database_of_the_first(made, tmp_path, monkeypatch):
    path = tmp_path / "mlflow.db"

    def be_overtaken(client, tracking_uri):
        shutil.copy(made, path)
        Path(tracking_uri.removeprefix("sqlite:///")).write_bytes(b"the second")

    monkeypatch.setattr(mlflow.MlflowClient, "__init__", be_overtaken)
    monkeypatch.setattr(mlflow.MlflowClient, "search_experiments", lambda client, max_results: None)
    make_database(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        assert connection.execute("select count(*) from experiments").fetchone() == (1,)
    assert [found.name for found in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("uri", ["", "http://localhost:1", "sqlite://", "sqlite:///:memory:", "mlruns"])
def test_other_places_are_left_alone(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_database(uri)
    assert list(tmp_path.iterdir()) == []
