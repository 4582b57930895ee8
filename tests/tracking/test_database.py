import contextlib
import errno
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest

from vmnet_pipeline.errors import StorageError
from vmnet_pipeline.storage import weak_disks
from vmnet_pipeline.tracking.database import check_database, make_database, relate_artifacts

pytestmark = pytest.mark.long


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


def copy_when_made(monkeypatch, made):
    """MLflow takes seconds to make a database."""

    def copy(client, tracking_uri):
        shutil.copy(made, tracking_uri.removeprefix("sqlite:///"))

    monkeypatch.setattr(mlflow.MlflowClient, "__init__", copy)
    monkeypatch.setattr(mlflow.MlflowClient, "search_experiments", lambda client, max_results: None)


@pytest.mark.parametrize(
    "code", [errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EACCES]
)
def test_a_disk_without_hard_links(made, tmp_path, monkeypatch, caplog, code):
    def refuse(*names, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(weak_disks, "_warned", set())
    copy_when_made(monkeypatch, made)
    make_database(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert [found.name for found in tmp_path.iterdir()] == ["mlflow.db"]
    check_database(tmp_path / "mlflow.db")
    assert caplog.text.count("No hard links here") == 1


def test_without_hard_links_the_database_of_another_run_stays(made, tmp_path, monkeypatch):
    def be_overtaken(*names, **options):
        shutil.copy(made, tmp_path / "mlflow.db")
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", be_overtaken)
    copy_when_made(monkeypatch, made)
    make_database(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert (tmp_path / "mlflow.db").read_bytes() == made.read_bytes()
    assert [found.name for found in tmp_path.iterdir()] == ["mlflow.db"]


def garble(path):
    path.write_bytes(bytes(range(256)) * 40)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    for place in range(5000, len(content), 4096):
        content[place] ^= 0xFF
    path.write_bytes(content)


def make_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("harm", "message"),
    [(garble, "not a database"), (cut, "malformed|damaged"), (flip, "malformed|damaged"), (make_folder, "is a folder")],
)
def test_a_database_that_cannot_be_used_is_found_at_once(made, tmp_path, harm, message):
    path = tmp_path / "mlflow.db"
    shutil.copy(made, path)
    check_database(path)
    harm(path)
    with pytest.raises(StorageError, match=message):
        check_database(path)


def test_one_that_is_locked_is_waited_for_but_not_for_long(made, tmp_path, monkeypatch):
    path = tmp_path / "mlflow.db"
    shutil.copy(made, path)
    monkeypatch.setattr("vmnet_pipeline.tracking.database.BUSY_S", 0.2)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("begin exclusive")
        with pytest.raises(StorageError, match="locked"):
            check_database(path)
        holder.execute("rollback")
    check_database(path)


def test_looking_at_a_database_changes_nothing(made, tmp_path):
    path = tmp_path / "mlflow.db"
    shutil.copy(made, path)
    check_database(path)
    assert path.read_bytes() == made.read_bytes()


# --- places of artifacts


@pytest.fixture(scope="module")
def tracked_once(tmp_path_factory):
    """A project with a run, its artifact and a logged model."""
    project = tmp_path_factory.mktemp("tracked") / "project"
    project.mkdir()
    before = mlflow.get_tracking_uri()
    with contextlib.chdir(project):
        mlflow.set_tracking_uri(f"sqlite:///{project / 'mlflow.db'}")
        try:
            mlflow.set_experiment("vmnet")
            with mlflow.start_run() as run:
                (project / "report.html").write_text("report")
                mlflow.log_artifact("report.html")
                mlflow.initialize_logged_model("network")
        finally:
            mlflow.set_tracking_uri(before)
    return project, run.info.run_id


@pytest.fixture
def tracked(tracked_once, tmp_path):
    """The same, moved into a folder of the test."""
    project, run_id = tracked_once
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    with closing(sqlite3.connect(copy / "mlflow.db")) as connection, connection:
        for table, column in PLACES:
            statement = f"update {table} set {column} = replace({column}, ?, ?)"  # noqa: S608
            connection.execute(statement, (str(project), str(copy)))
    return copy, run_id


PLACES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"))


def list_places(project):
    with closing(sqlite3.connect(project / "mlflow.db")) as connection:
        return [
            place
            for query in (
                "select artifact_location from experiments order by experiment_id",
                "select artifact_uri from runs",
                "select artifact_location from logged_models",
            )
            for (place,) in connection.execute(query)
        ]


def read_report(project, run_id):
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{project / 'mlflow.db'}")
    with contextlib.chdir(project):
        return Path(client.download_artifacts(run_id, "report.html")).read_text()


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_artifacts_follow_a_project_that_is_moved_or_copied(tracked, tmp_path, monkeypatch, how):
    project, run_id = tracked
    monkeypatch.chdir(tmp_path)
    places = list_places(project)
    assert len(places) == 4
    there = tmp_path / "there"
    how(project, there)
    relate_artifacts(there / "mlflow.db", there)
    relative = [place.removeprefix(f"{project}/") for place in places]
    assert list_places(there) == relative
    assert read_report(there, run_id) == "report"
    if how is shutil.copytree:
        assert list_places(project) == places
    relate_artifacts(there / "mlflow.db", there)  # again: nothing to do
    assert list_places(there) == relative


def test_a_project_that_was_related_once_may_be_moved_and_is_never_written_elsewhere(tracked, tmp_path, monkeypatch):
    project, run_id = tracked
    relate_artifacts(project / "mlflow.db", project)
    assert not [place for place in list_places(project) if Path(place).is_absolute()]
    there = tmp_path / "there"
    shutil.move(project, there)
    assert read_report(there, run_id) == "report"
    monkeypatch.chdir(there)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{there / 'mlflow.db'}")
    run = client.create_run("1")
    client.log_text(run.info.run_id, "more", "more.txt")
    assert [path.read_text() for path in there.glob("mlruns/1/*/artifacts/more.txt")] == ["more"]
    assert not project.exists()


def test_a_copy_without_its_artifacts_writes_into_itself_and_finds_the_old_ones(tracked, tmp_path, monkeypatch):
    project, run_id = tracked
    there = tmp_path / "there"
    there.mkdir()
    shutil.copy(project / "mlflow.db", there)
    relate_artifacts(there / "mlflow.db", there)
    assert list_places(there)[:2] == ["mlruns/0", "mlruns/1"]
    assert read_report(there, run_id) == "report"


def test_places_of_the_users_own_stay(tracked, tmp_path):
    project, run_id = tracked
    elsewhere = tmp_path / "big disk"
    shutil.move(project / "mlruns", elsewhere / "mlruns")
    with closing(sqlite3.connect(project / "mlflow.db")) as connection, connection:
        for table, column in PLACES:
            statement = f"update {table} set {column} = replace({column}, ?, ?)"  # noqa: S608
            connection.execute(statement, (str(project), str(elsewhere)))
    places = list_places(project)
    relate_artifacts(project / "mlflow.db", project)
    assert list_places(project) == places
    assert read_report(project, run_id) == "report"


def test_a_database_that_several_projects_share_is_left_alone(tracked, tmp_path):
    project, _ = tracked
    places = list_places(project)
    relate_artifacts(project / "mlflow.db", tmp_path / "another project")
    assert list_places(project) == places
