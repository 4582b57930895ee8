"""What is to be logged outlives a failure of MLflow: it is kept, and logged later, once."""

import json

import mlflow
import pytest

from vmnet_pipeline.errors import StorageError
from vmnet_pipeline.tracking import operations, replay
from vmnet_pipeline.tracking import runs as tracking
from vmnet_pipeline.tracking.pending import TRACKER, PendingRun, list_pending, read_pending, shorten, write_pending
from vmnet_pipeline.types import EpochRecord

pytestmark = pytest.mark.long


@pytest.fixture
def client(tmp_path, monkeypatch):
    before = mlflow.get_tracking_uri()
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow.set_experiment("pending")
    TRACKER.reset()
    yield mlflow.MlflowClient()
    TRACKER.reset()
    mlflow.set_tracking_uri(before)


def make_record(epoch):
    return EpochRecord(epoch, epoch, {"total": 1.0 / epoch}, 1.0, 0.1, {}, 0.5)


def break_kind(monkeypatch, kind):
    def fail(**content):
        raise RuntimeError("postgresql://me:secret@host/db cannot be reached\nand so on")

    monkeypatch.setitem(operations.KINDS, kind, fail)


def log_a_training(folder, fail_after=None, monkeypatch=None):
    """A run with curves, a child and a file; from an epoch on MLflow cannot be used."""
    log = tracking.RunLog()
    tracking.log_parameters({"train": {"epochs": 3}})
    for epoch in (1, 2, 3):
        if epoch == fail_after:
            break_kind(monkeypatch, "metrics")
        log.add(make_record(epoch))
    with tracking.child_run("seed 1", {"train": {"seed": 1}}) as child:
        child.metrics({"both/mrr": 0.5})
        with tracking.child_run("member 2", {}) as member:
            member.add(make_record(1))
    (folder / "report.html").write_text("report")
    tracking.log_file(folder / "report.html")
    tracking.set_tags({"split_checksum": "x"})


def take(run_id):
    return PendingRun("train", 1000, 2000, {"a": "b"}, run_id, TRACKER.children, TRACKER.waiting)


def children(client, run_id):
    experiment = client.get_run(run_id).info.experiment_id
    runs = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{run_id}'")
    return {run.info.run_name: run for run in runs}


@pytest.mark.parametrize("fail_after", [1, 2, 3])
def test_what_failed_in_the_middle_is_logged_later_in_the_same_run(client, tmp_path, monkeypatch, caplog, fail_after):
    with mlflow.start_run() as run:
        log_a_training(tmp_path, fail_after, monkeypatch)
        assert mlflow.active_run() is None  # nothing is sent any more, at the end of the process neither
    assert "secret" not in caplog.text
    assert caplog.text.count("MLflow cannot be used: postgresql://host/db cannot be reached.") == 1
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    path = write_pending(tmp_path / "untracked_runs", take(run.info.run_id))
    for _ in range(2):  # a second time nothing is doubled
        assert replay.log_pending(read_pending(path), run.info.experiment_id) == run.info.run_id
    found = client.get_run(run.info.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"train.epochs": "3"}
    assert found.data.tags["split_checksum"] == "x"
    curve = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in curve) == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert [artifact.path for artifact in client.list_artifacts(run.info.run_id)] == ["report.html"]


def test_what_failed_from_the_start_is_a_run_of_its_own_later(client, tmp_path):
    TRACKER.fail(RuntimeError("no database"))
    log_a_training(tmp_path)
    path = write_pending(tmp_path / "untracked_runs", take(None))
    assert "secret" not in path.read_text()
    experiment = client.get_experiment_by_name("pending").experiment_id
    with mlflow.start_run():  # kedro-mlflow leaves one open
        replay.log_all_pending(path.parent, experiment)
    assert list_pending(path.parent) == []
    (run,) = client.search_runs([experiment], "tags.a = 'b'")
    assert (run.info.run_name, run.info.start_time, run.info.end_time) == ("train", 1000, 2000)
    found = children(client, run.info.run_id)
    assert set(found) == {"seed 1", "seed 1, member 2"}
    assert found["seed 1"].data.params == {"train.seed": "1"}
    assert found["seed 1"].data.metrics == {"both/mrr": 0.5}
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 3


def test_a_run_that_cannot_be_logged_later_either_is_kept(client, tmp_path, monkeypatch, caplog):
    TRACKER.fail(RuntimeError("no database"))
    log_a_training(tmp_path)
    path = write_pending(tmp_path / "untracked_runs", take(None))
    break_kind(monkeypatch, "tags")
    experiment = client.get_experiment_by_name("pending").experiment_id
    replay.log_all_pending(path.parent, experiment)
    assert "is still not logged" in caplog.text
    assert read_pending(path).run_id is not None
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    replay.log_all_pending(path.parent, experiment)
    assert len(client.search_runs([experiment], "tags.a = 'b'")) == 1
    assert list_pending(path.parent) == []


def test_a_file_that_has_changed_since_is_left_out(client, tmp_path, caplog):
    TRACKER.fail(RuntimeError("no database"))
    log_a_training(tmp_path)
    path = write_pending(tmp_path / "untracked_runs", take(None))
    (tmp_path / "report.html").write_text("of a later run")
    run_id = replay.log_pending(read_pending(path), client.get_experiment_by_name("pending").experiment_id)
    assert client.list_artifacts(run_id) == []
    assert "has changed since that run" in caplog.text


def test_places_follow_a_project_that_is_moved(client, tmp_path, monkeypatch):
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "before")
    TRACKER.fail(RuntimeError("no database"))
    log_a_training(tmp_path / "before")
    path = write_pending(tmp_path / "before/untracked_runs", take(None))
    moved = path.rename(tmp_path / "after" / path.name)
    (tmp_path / "before/report.html").rename(tmp_path / "after/report.html")
    monkeypatch.chdir(tmp_path / "after")
    run_id = replay.log_pending(read_pending(moved), client.get_experiment_by_name("pending").experiment_id)
    assert [artifact.path for artifact in client.list_artifacts(run_id)] == ["report.html"]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff", b"[1]", b'{"name": "x", "started_ms": 1, "ended_ms": 1, "operations": [{}]}']
)
def test_a_damaged_file_is_told_of(tmp_path, content):
    path = tmp_path / "1.json"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"1\.json cannot be read .* Remove it"):
        read_pending(path)


def test_a_failing_block_ends_its_child_run_as_failed_and_raises(client):
    with mlflow.start_run() as run, pytest.raises(ZeroDivisionError), tracking.child_run("seed", {}):
        raise ZeroDivisionError
    assert children(client, run.info.run_id)["seed"].info.status == "FAILED"


def test_results_are_runs_that_can_be_logged(client, tmp_path, demo_evaluation):
    folder = tmp_path / "vmnet_musicnn"
    folder.mkdir()
    (folder / "evaluation.json").write_text(json.dumps(demo_evaluation))
    (folder / "report.html").write_text("report")
    (run,) = replay.find_results(tmp_path)
    run_id = replay.log_pending(run, client.get_experiment_by_name("pending").experiment_id)
    assert client.get_run(run_id).data.metrics["pool_size"] == 4
    assert {part.path for part in client.list_artifacts(run_id)} == {"evaluation.json", "report.html"}
    (folder / "evaluation.json").write_text("{}")
    with pytest.raises(StorageError, match=r"evaluation\.json is not an evaluation"):
        replay.find_results(tmp_path)


@pytest.fixture
def demo_evaluation():
    figure = {"value": 0.5, "low": 0.1, "high": 0.9, "chance": None}
    names = ("median_rank", "mrr", "mean_average_precision", "ndcg")
    side = {"recall": {"1": figure}, "pools": {}, "hubness": {"most": 1.0}, **dict.fromkeys(names, figure)}
    return {"pool_size": 4, "directions": {"music_to_video": side, "video_to_music": side}}


def test_a_reason_is_one_short_line():
    assert shorten(RuntimeError("")) == "RuntimeError"
    assert shorten(RuntimeError("\n  first.\nsecond")) == "first"
    assert len(shorten(RuntimeError("x" * 1000))) == 240


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        ("(Caused by NewConnectionError('<x>: Failed to establish: [Errno 111] Connection refused'))", "refused"),
        (
            "(Caused by NameResolutionError(\"x: Failed to resolve 'a' ([Errno -2] Name or service not known)\"))",
            "known",
        ),
        ("Read timed out. (read timeout=10)", "timed out"),
        ("(Caused by ResponseError('too many 502 error responses'))", "too many 502 error responses"),
    ],
)
def test_a_server_that_does_not_answer_is_told_in_few_words(cause, told):
    text = "API request to http://me:secret@host:5000/api/2.0/mlflow/runs/get failed with exception HTTPConnectionPool("
    line = shorten(RuntimeError(f"{text}host='host', port=5000): Max retries exceeded with url: /api/2.0 {cause}"))
    assert line.startswith("http://host:5000 does not answer (")
    assert line.endswith(f"{told})")
    assert len(line) < 80


def test_more_parameters_than_a_server_takes_at_once(client, monkeypatch):
    sent = []
    monkeypatch.setattr(mlflow, "log_params", lambda params: sent.append(len(params)))
    operations.log_values({str(number): "x" for number in range(230)})
    assert sent == [100, 100, 30]
