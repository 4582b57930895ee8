"""Log runs that were kept, see `pending`, and results that never had a run."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import StorageError
from vmnet_pipeline.storage.checksummed import parse_json
from vmnet_pipeline.tracking.labels import RunLabels
from vmnet_pipeline.tracking.operations import carry_out
from vmnet_pipeline.tracking.pending import (
    Operation,
    PendingRun,
    digest_place,
    list_pending,
    read_pending,
    shorten,
    write_pending,
)
from vmnet_pipeline.tracking.runs import flatten_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

REPORTING = "08_reporting"
"""Folder that has a folder for each collection, which names the experiment."""
_RESULTS = ("*.html", "*.png", "*.json", "*.parquet", "*.yml", "*.csv")


def log_pending(run: PendingRun, experiment_id: str) -> str:
    """Log a run that was kept, and return its id; what is logged already is not repeated.

    `run` receives the ids that MLflow gives it, for another attempt.

    Raises:
        Exception: Whatever MLflow raises.
    """
    import mlflow

    client = mlflow.MlflowClient()
    own_id = _find_experiment(client, run.experiment) or experiment_id
    mlflow.set_experiment(experiment_id=own_id)  # MLflow opens runs of the chosen experiment only
    try:
        return _log_in(client, run, own_id)
    finally:
        mlflow.set_experiment(experiment_id=experiment_id)


def _log_in(client: Any, run: PendingRun, experiment_id: str) -> str:
    import mlflow

    run.run_id = _find_run(client, run.run_id) or _make_run(client, experiment_id, run.name, run, run.tags)
    with mlflow.start_run(run_id=run.run_id, nested=True):  # kedro-mlflow may have left its own open
        for name in dict.fromkeys(["", *(operation.run for operation in run.operations)]):
            operations = [operation for operation in run.operations if operation.run == name]
            if not name:
                _carry_out_all(operations)
                continue
            tags = {"mlflow.parentRunId": run.run_id}
            number = _find_run(client, run.children.get(name)) or _make_run(client, experiment_id, name, run, tags)
            run.children[name] = number
            with mlflow.start_run(run_id=number, nested=True):
                _carry_out_all(operations)
    client.set_terminated(run.run_id, "FINISHED", run.ended_ms)
    return run.run_id


def _carry_out_all(operations: list[Operation]) -> None:
    for operation in operations:
        if operation.checksum is not None and digest_place(operation) != operation.checksum:
            logger.warning("%s has changed since that run, and is not logged with it", operation.content["place"])
            continue
        carry_out(operation.kind, operation.content)


def _find_run(client: Any, run_id: str | None) -> str | None:
    from mlflow.exceptions import MlflowException

    if run_id is not None:
        with suppress(MlflowException):  # another database took the place of the one that had it
            client.get_run(run_id)
            return run_id
    return None


def _find_experiment(client: Any, name: str) -> str | None:
    """The id of the experiment of this name, which is made where it is missing; None without a name."""
    if not name:
        return None
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def _make_run(client: Any, experiment_id: str, name: str, run: PendingRun, tags: Mapping[str, str]) -> str:
    made = client.create_run(experiment_id, start_time=run.started_ms, run_name=name, tags=dict(tags))
    return str(made.info.run_id)


def log_all_pending(folder: Path, experiment_id: str) -> None:
    """Log the runs that were kept; one that cannot be logged stays, with a message."""
    for path in list_pending(folder):
        try:
            log_file_of_run(path, experiment_id)
        except Exception as error:
            logger.warning("%s is still not logged: %s", path, shorten(error))


def log_file_of_run(path: Path, experiment_id: str) -> None:
    """Log the run that a file keeps, and remove the file.

    Raises:
        Exception: Whatever MLflow raises; the file then stays.
    """
    run = read_pending(path)
    try:
        run_id = log_pending(run, experiment_id)
    except Exception:
        with suppress(OSError):
            write_pending(path.parent, run)
        raise
    path.unlink(missing_ok=True)
    started = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started_ms / 1000))
    logger.info("the run %s of %s is now logged in MLflow (%s)", run.name, started, run_id)


def find_results(folder: Path) -> list[PendingRun]:
    """Find the evaluations in a folder and its subfolders, as runs that can be logged.

    Raises:
        StorageError: One is damaged.
    """
    return [_describe_results(path) for path in sorted(folder.rglob("evaluation.json"))]


def _describe_results(evaluation: Path) -> PendingRun:
    ended_ms = int(evaluation.stat().st_mtime * 1000)
    try:
        metrics = flatten_metrics(parse_json(evaluation.read_bytes()))
        points = [[name, float(value), ended_ms, 0] for name, value in metrics.items()]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StorageError(f"{evaluation} is not an evaluation of this project, or is damaged ({error!r})") from error
    folder = evaluation.parent
    places = sorted(path for pattern in _RESULTS for path in folder.glob(pattern))
    operations = [Operation("", "metrics", {"points": points})]
    operations += [Operation("", "file", {"place": str(path)}) for path in places]
    labels = RunLabels("evaluation", folder.parent.name, folder.name)
    tags = {"results": str(folder), **labels.tags}
    experiment = labels.collection if folder.absolute().parents[1].name == REPORTING else ""
    return PendingRun(labels.name, ended_ms, ended_ms, tags, operations=operations, experiment=experiment)


def find_runs_of(pending: Path, place: Path) -> list[Path]:
    """Find the kept runs that logged something in a folder."""
    place = place.absolute()

    def logs_in_place(path: Path) -> bool:
        places = (operation.content.get("place") for operation in read_pending(path).operations)
        return any(Path(one).absolute().is_relative_to(place) for one in places if one is not None)

    return [path for path in list_pending(pending) if logs_in_place(path)]
