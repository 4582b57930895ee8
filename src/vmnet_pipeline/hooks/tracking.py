"""Wrap the hooks of kedro-mlflow so that no failure of MLflow ends a run, delays it for long, or loses its metrics."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from vmnet_pipeline.errors import StorageError, VmnetError
from vmnet_pipeline.hooks.next_steps import find_next
from vmnet_pipeline.hooks.program import name_commands
from vmnet_pipeline.storage.paths import is_remote
from vmnet_pipeline.storage.project import find_caller
from vmnet_pipeline.tracking.connection import connect, describe_place, read_settings
from vmnet_pipeline.tracking.labels import LEARNING, RunLabels, find_kind, find_variant
from vmnet_pipeline.tracking.pending import FOLDER, TRACKER, PendingRun, list_pending, shorten, write_pending
from vmnet_pipeline.tracking.runs import log_parameters, set_tags
from vmnet_pipeline.tracking.stages import describe_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kedro.framework.context import KedroContext
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

logger = logging.getLogger(__name__)

NOT_TRACKED = 3  # exit code of a run that succeeded but could not be logged
_RESULTS = (".evaluation", ".comparison", ".tuning")
_NO_MLFLOW = "MLflow cannot be used: {}. Nothing is lost: run this again when it can."
REPORTING = Path("data/08_reporting")


class TrackingHooks:
    """Track a run in MLflow, or keep its data to be logged later."""

    def __init__(self) -> None:
        self._inner: Any = None
        self._run: PendingRun | None = None
        self._context: Any = None
        self._settings: dict[str, Any] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Connect; failures of kedro-mlflow are caught."""
        from kedro_mlflow.framework.hooks.mlflow_hook import MlflowHook

        TRACKER.reset()
        self._context, self._run, self._inner = context, None, MlflowHook()
        self._settings = read_settings(context.config_loader, Path(context.project_path), find_caller())
        with TRACKER.guard():
            self._connect()

    def _connect(self) -> None:
        project = Path(self._context.project_path)
        connect(self._settings, project, lambda: self._inner.after_context_created(context=self._context))

    @hook_impl
    def after_catalog_created(
        self,
        catalog: DataCatalog,
        conf_catalog: dict[str, Any],
        conf_creds: dict[str, Any],
        parameters: dict[str, Any],
        save_version: str,
        load_versions: dict[str, str],
    ) -> None:
        """Name the metrics of datasets of kedro-mlflow."""
        if TRACKER.failure is None:
            self._inner.after_catalog_created(
                catalog, conf_catalog, conf_creds, parameters, save_version, load_versions
            )

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Begin a run."""
        labels = label_run(pipeline, catalog)
        given = {key: str(value) for key, value in run_params.items() if value}
        tags = {**given, **labels.tags, "kedro_command": describe_command(run_params)}
        self._run = PendingRun(labels.name, _now_ms(), 0, tags, experiment=self._experiment_name())
        if TRACKER.failure is None:
            with TRACKER.guard():
                run = self._inner.mlflow_config.tracking.run
                run.name = run.name or labels.name
                self._inner.before_pipeline_run(run_params=run_params, pipeline=pipeline, catalog=catalog)
                TRACKER.run_id = self._inner.run_id
        set_tags(labels.tags)

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog, inputs: dict[str, Any], is_async: bool) -> None:
        """Log the parameters of a node."""
        if TRACKER.failure is None:
            with TRACKER.guard():
                self._inner.before_node_run(node=node, catalog=catalog, inputs=inputs, is_async=is_async)
                return
        given = {name: value for name, value in inputs.items() if name == "parameters" or name.startswith("params:")}
        log_parameters({name.removeprefix("params:"): value for name, value in given.items()})

    @hook_impl(trylast=True)
    def after_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """End the run; if it could not be logged, try once more, or keep it."""
        if TRACKER.failure is None:
            with TRACKER.guard():
                self._inner.after_pipeline_run(run_params=run_params, pipeline=pipeline, catalog=catalog)
        folder = find_pending(catalog, Path(self._context.project_path))
        trouble = [] if TRACKER.failure is None else self._settle(folder)
        if trouble or any(name.endswith(_RESULTS) for name in pipeline.all_outputs()):
            _print_status(trouble or [describe_place(self._settings, Path(self._context.project_path))])
        _print_next(find_next(pipeline.all_outputs(), run_params))
        if trouble:
            _end_with(NOT_TRACKED)
        elif TRACKER.failure is None:
            from vmnet_pipeline.tracking.replay import log_all_pending

            with TRACKER.guard():
                log_all_pending(folder, self._experiment_id())

    @hook_impl
    def on_pipeline_error(
        self, error: Exception, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """End the run as failed, without hiding its own error; its kind is `failed`, apart from trainings."""
        name = self._run.name if self._run else ""
        set_tags({"kind": "failed", "mlflow.runName": f"{name} · failed"})
        if TRACKER.failure is None:
            with TRACKER.guard():
                self._inner.on_pipeline_error(error=error, run_params=run_params, pipeline=pipeline, catalog=catalog)
        elif any(operation.kind == "metrics" for operation in TRACKER.waiting):  # curves, which took long
            logger.warning(self._keep(find_pending(catalog, Path(self._context.project_path))))

    def _settle(self, folder: Path) -> list[str]:
        """Log the run if MLflow answers again, else keep it and return the reason and what to do."""
        from vmnet_pipeline.tracking.replay import log_pending

        try:
            self._connect()
            log_pending(self._take_run(), self._experiment_id())
        except Exception as error:
            return [f"not logged: {shorten(error)}", self._keep(folder)]
        logger.info("MLflow is available again and has logged the whole run")
        return []

    def _experiment_name(self) -> str:
        return str(self._settings.get("tracking", {}).get("experiment", {}).get("name") or "")

    def _experiment_id(self) -> str:
        return str(self._inner.mlflow_config.tracking.experiment._experiment.experiment_id)

    def _take_run(self) -> PendingRun:
        run = self._run or PendingRun("run", _now_ms(), 0)
        run.ended_ms = _now_ms()
        run.run_id, run.children, run.operations = TRACKER.run_id, TRACKER.children, TRACKER.waiting
        return run

    def _keep(self, folder: Path) -> str:
        try:
            path = write_pending(folder, self._take_run())
        except OSError as error:
            return f"Nor could it be kept ({error}). Later: kedro track FOLDER, with the folder of the results"
        return f"Kept in {_shorten_path(path)}: the next run logs it, or: kedro track {_shorten_path(path)}"


def _print_status(lines: list[str]) -> None:
    import click

    click.echo("MLflow      " + f"\n{'':12}".join(lines))
    click.echo("Pipelines   kedro viz")


def _print_next(command: str) -> None:
    import click

    if command:
        click.echo(f"Next        {name_commands(command)}")


def label_run(pipeline: Pipeline, catalog: DataCatalog) -> RunLabels:
    """Describe a run before it begins: a training by its parameters, an evaluation by its checkpoint."""
    outputs = pipeline.all_outputs()
    evaluate = catalog.load("params:evaluate") if "params:evaluate" in pipeline.inputs() else None
    kind = find_kind(outputs, is_control=bool(_read(evaluate, "shuffle_pairs")))
    variant = find_variant(outputs)
    labels = RunLabels(kind, find_collection(catalog), variant)
    if kind not in LEARNING:
        return labels
    given = f"{variant}.checkpoint"
    train = catalog.load(given).params if given in pipeline.inputs() else catalog.load("params:train")
    return replace(labels, protocol=str(_read(train, "protocol") or "default"), seed=_read(train, "seed"))


def _read(settings: Any, name: str) -> Any:
    """A setting of parameters, which Kedro has checked or not."""
    return settings.get(name) if isinstance(settings, dict) else getattr(settings, name, None)


def find_collection(catalog: Any) -> str:
    """The name of the collection of a run, by the folder of its records."""
    log: Any = catalog.get("stage_log")
    return "" if log is None else str(log.folder.parent.name)


def find_pending(catalog: Any, project: Path) -> Path:
    """The folder of unlogged runs, next to the reports of all collections."""
    log: Any = catalog.get("stage_log")
    folder = None if log is None else log.folder
    return (project / REPORTING if folder is None or is_remote(folder) else folder.parents[1]) / FOLDER


def _shorten_path(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _end_with(code: int) -> None:
    """End the command with an exit code; a run started by a program only warns."""
    import click

    command = click.get_current_context(silent=True)
    if command is not None:
        sys.stdout.flush()
        command.exit(code)


@dataclass(frozen=True, slots=True)
class Connection:
    """MLflow as a run of this project uses it."""

    experiment_id: str
    pending: Path  # folder of unlogged runs
    place: str

    def list(self) -> list[Path]:
        """Unlogged runs, oldest first."""
        return list_pending(self.pending)

    @contextmanager
    def explain(self) -> Iterator[None]:
        """Turn an error of MLflow into one with its remedy."""
        try:
            yield
        except (VmnetError, OSError):
            raise
        except Exception as error:
            raise StorageError(_NO_MLFLOW.format(shorten(error))) from error


def open_connection(project: Path | None = None) -> Connection:
    """Connect to the MLflow of the project of this folder.

    Raises:
        StorageError: It cannot be used.
    """
    from kedro.framework.project import settings
    from kedro.framework.session import KedroSession

    session = KedroSession.create(project_path=project, save_on_close=False)
    context = session.load_context()
    hooks = next(hook for hook in settings.HOOKS if isinstance(hook, TrackingHooks))
    if TRACKER.failure is not None:
        raise StorageError(_NO_MLFLOW.format(shorten(TRACKER.failure)))
    folder = find_pending(context.catalog, Path(context.project_path))
    return Connection(hooks._experiment_id(), folder, describe_place(hooks._settings, Path(context.project_path)))
