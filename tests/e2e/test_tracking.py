"""A run whose MLflow cannot be used: it does what was asked, says so, and its figures are logged later."""

import contextlib
import http.server
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import mlflow
import pytest

from kedro_project import Project, make_project
from reference_data import make_reference_data

NOT_TRACKED = 3


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with a network trained on features of one's own, tracked as usual."""
    project = make_project(tmp_path_factory.mktemp("tracked") / "project")
    make_reference_data(project.folder / "pairs")
    train(project, "run", "--pipelines=train,evaluate", "--params", PAIRS)
    return project


PAIRS = "pairs_dir=pairs,collection=tiny,train.epochs=2,train.batch_size=8"
EVALUATE = ("run", "--pipelines", "evaluate", "--params", PAIRS)


def train(project, *arguments, code=0, cwd=None, environment=None):
    """Run a kedro command; its output, if it ended with the code."""
    done = subprocess.run(
        project.command(*arguments),
        cwd=cwd or project.folder,
        env={**project.environment, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stdout[-6000:]
    assert "Traceback" not in done.stdout
    return done.stdout


@pytest.fixture
def project(trained, tmp_path):
    """A copy of it."""
    shutil.copytree(trained.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


def list_runs(place, experiment="tiny"):
    client = mlflow.MlflowClient(tracking_uri=place if "://" in str(place) else f"sqlite:///{place}")
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], order_by=["start_time asc"]) if found else []


def garble(path):
    path.write_bytes(bytes(range(256)) * 40)


def change_schema(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update alembic_version set version_num = 'ffffffffffff'")


def make_folder(path):
    path.unlink()
    path.mkdir()


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "harm", [garble, pytest.param(change_schema, marks=slow), pytest.param(make_folder, marks=slow)]
)
def test_the_result_is_there_without_the_database_and_logged_with_it(project, harm):
    database = project.folder / "mlflow.db"
    whole = shutil.copy(database, project.folder / "whole.db")
    before = len(list_runs(whole))
    harm(database)
    output = train(project, *EVALUATE, code=NOT_TRACKED)
    assert "R@10" in output
    assert output.count("MLflow cannot be used: ") == 1
    assert "MLflow      not logged: " in output
    (kept,) = (project.folder / "data/08_reporting/untracked_runs").glob("*.json")
    assert f"kedro track data/08_reporting/untracked_runs/{kept.name}" in output
    assert "MLflow cannot be used: " in train(project, "track", code=1)
    assert kept.exists()
    shutil.rmtree(database) if database.is_dir() else database.unlink()
    shutil.move(whole, database)
    assert "1 runs logged." in train(project, "track", str(kept.relative_to(project.folder)))
    assert not kept.exists()
    runs = list_runs(database)
    assert len(runs) == before + 1
    assert runs[-1].data.params["evaluate.pool_size"] == "None"
    (evaluation,) = (project.folder / "data/08_reporting").rglob("evaluation.json")
    recall = json.loads(evaluation.read_text())["directions"]["music_to_video"]["recall"]["10"]["value"]
    assert runs[-1].data.metrics["music_to_video/recall_at_10"] == pytest.approx(recall)
    assert "report.html" in {part.path for part in _list_artifacts(database, runs[-1])}


def _list_artifacts(database, run):
    with contextlib.chdir(database.parent):
        return mlflow.MlflowClient(tracking_uri=f"sqlite:///{database}").list_artifacts(run.info.run_id)


@pytest.mark.slow
def test_the_next_run_logs_what_an_earlier_one_could_not(project):
    database = project.folder / "mlflow.db"
    whole = shutil.copy(database, project.folder / "whole.db")
    garble(database)
    train(project, *EVALUATE, code=NOT_TRACKED)
    shutil.move(whole, database)
    before = len(list_runs(database))
    output = train(project, *EVALUATE)
    assert "the run tiny · vmnet_musicnn · default · seed 17 · evaluation of" in output
    assert len(list_runs(database)) == before + 2
    assert not list((project.folder / "data/08_reporting/untracked_runs").iterdir())


@pytest.mark.slow
def test_a_database_that_is_locked_for_a_while_costs_nothing(project):
    database = project.folder / "mlflow.db"
    before = len(list_runs(database))
    with closing(sqlite3.connect(database, isolation_level=None)) as holder:
        holder.execute("begin exclusive")
        process = subprocess.Popen(
            project.command(*EVALUATE),
            cwd=project.folder,
            env=project.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        output = ""
        while "MLflow cannot be used" not in output and process.poll() is None:
            output += process.stdout.readline()
        holder.execute("rollback")
        output += process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert "locked" in output
    assert "MLflow can be used again" in output
    assert len(list_runs(database)) == before + 1


@pytest.mark.slow
@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_a_project_that_was_moved_or_copied_writes_into_itself(project, tmp_path, how):
    there = tmp_path / "elsewhere" / "project"
    there.parent.mkdir()
    how(project.folder, there, **({"symlinks": True} if how is shutil.copytree else {}))
    before = set(project.folder.rglob("*")) if project.folder.exists() else None
    moved = Project(there)
    train(moved, "run", "--pipelines", "evaluate", "--params", PAIRS)
    runs = list_runs(there / "mlflow.db")
    for run in runs:
        assert run.info.artifact_uri.startswith("mlruns/")
        assert "report.html" in {part.path for part in _list_artifacts(there / "mlflow.db", run)}
    if before is None:
        assert not project.folder.exists()
    else:
        assert set(project.folder.rglob("*")) == before


@pytest.mark.slow
def test_the_environment_says_where_and_in_which_experiment(project, tmp_path):
    environment = {"MLFLOW_TRACKING_URI": "sqlite:///of the caller.db", "MLFLOW_EXPERIMENT_NAME": "mine"}
    before = (project.folder / "mlflow.db").read_bytes()
    (project.folder / "docs").mkdir()
    arguments = (*EVALUATE[:-1], PAIRS.replace("pairs_dir=pairs", "pairs_dir=../pairs"))
    output = train(project, *arguments, cwd=project.folder / "docs", environment=environment)
    assert "of the caller.db   (experiment mine)" in output
    (run,) = list_runs(project.folder / "docs/of the caller.db", "mine")
    assert (project.folder / "mlflow.db").read_bytes() == before
    again = {**environment, "MLFLOW_RUN_ID": run.info.run_id}
    del again["MLFLOW_EXPERIMENT_NAME"]  # the run says which it is
    train(project, *arguments, cwd=project.folder / "docs", environment=again)
    assert [found.info.run_id for found in list_runs(project.folder / "docs/of the caller.db", "mine")] == [
        run.info.run_id
    ]


@pytest.fixture
def silent_server():
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def gone_server():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def failing_server():
    """A server of something else."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(502)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["silent_server", "gone_server", "failing_server"])
@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"])
def test_a_server_that_does_not_answer_costs_seconds(project, request, variable, kind):
    started = time.monotonic()
    output = train(project, *EVALUATE, code=NOT_TRACKED, environment={variable: request.getfixturevalue(kind)})
    assert time.monotonic() - started < 100  # of which 20 are waited; the rest is the run, on any machine
    assert "R@10" in output
    assert "not logged: " in output


SWEEPS = {
    "tune": ("tune.n_trials=2,tune.prune_after_epochs=null", "tuning.json", "trial 1"),
    "compare": ("compare.seeds=[0]", "comparison.json", "vmnet, seed 0"),
}


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", SWEEPS)
def test_a_sweep_keeps_its_work_without_a_server(project, gone_server, pipeline):
    given, result, child = SWEEPS[pipeline]
    arguments = ("run", "--pipeline", pipeline, "--params", f"{PAIRS},{given}")
    output = train(project, *arguments, code=NOT_TRACKED, environment={"MLFLOW_TRACKING_URI": gone_server})
    sentence = f"{gone_server} does not answer (connection refused)"
    assert (
        output.count(f"MLflow cannot be used: {sentence}") == output.count(f"MLflow      not logged: {sentence}") == 1
    )
    assert "Retrying" not in output
    assert len(list((project.folder / "data").rglob(result))) == 1
    assert "1 runs logged." in train(project, "track")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{project.folder / 'mlflow.db'}")
    runs = {run.info.run_name: run for run in list_runs(project.folder / "mlflow.db")}
    assert runs[child].data.tags["mlflow.parentRunId"] == runs[pipeline].info.run_id
    assert client.get_metric_history(runs[child].info.run_id, "train/loss")


@pytest.mark.slow
def test_results_without_a_run_can_be_logged(project):
    database = project.folder / "mlflow.db"
    database.unlink()
    assert "1 runs logged." in train(project, "track", "data/08_reporting")
    (run,) = list_runs(database)
    assert "music_to_video/recall_at_10" in run.data.metrics
    assert "has neither an unlogged run nor an evaluation.json" in train(project, "track", "data/06_models", code=1)


@pytest.mark.slow
def test_the_program_of_the_package_tracks_too(project):
    program = [sys.executable, "-c", "from vmnet_pipeline.__main__ import main; main()"]
    garble(project.folder / "mlflow.db")
    (project.folder / "docs").mkdir()
    done = subprocess.run(
        [*program, "track"], cwd=project.folder / "docs", env=project.environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "file is not a database" in done.stderr
    assert "Traceback" not in done.stderr
    (project.folder / "mlflow.db").unlink()
    done = subprocess.run(
        [*program, "track", "../data/08_reporting"], cwd=project.folder / "docs", env=project.environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list_runs(project.folder / "mlflow.db")) == 1
    assert not list((project.folder / "docs").iterdir())
