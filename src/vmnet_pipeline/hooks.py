"""Hooks of the project: what a run logs to MLflow at its end, and what it tells the person who started it."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from vmnet_pipeline.errors import VmnetError

if TYPE_CHECKING:
    from types import TracebackType

    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

logger = logging.getLogger(__name__)


class ProjectHooks:
    """Log marked datasets to MLflow and print the results; all in the main process, whatever the runner."""

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Remember the parameters that this run uses, for MLflow."""
        names = sorted(name for name in pipeline.inputs() if name.startswith("params:"))
        self._parameters = {name.removeprefix("params:"): catalog.load(name) for name in names}

    @hook_impl(tryfirst=True)  # kedro-mlflow ends its run in the same hook
    def after_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Log parameters, artifacts and figures; print the table and where everything is."""
        from vmnet_pipeline import tracking

        tracking.log_parameters(self._parameters)
        for name in sorted(pipeline.outputs() | pipeline.all_outputs()):
            dataset = catalog.get(name)
            kind = (getattr(dataset, "metadata", None) or {}).get("mlflow")
            if kind is None:
                continue
            tracking.log_file(_path_of(catalog, name))
            if kind == "evaluation":
                tracking.log_figures(catalog.load(name))
        if "split_summary" in pipeline.all_outputs():
            tracking.set_tags({"split_checksum": catalog.load("split_summary")["checksum"]})
        _print_results(pipeline, catalog)

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """Let an error that was raised on purpose speak for itself, without a page of traceback."""
        if find_own_error(error) is not None and "VMNET_TRACEBACK" not in os.environ:
            sys.excepthook = _print_error


def find_own_error(error: BaseException | None) -> VmnetError | None:
    """The error of this project behind `error`; Kedro wraps what a dataset raises."""
    while error is not None:
        if isinstance(error, VmnetError):
            return error
        error = error.__cause__
    return None


def _print_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    own = find_own_error(error)
    if own is None:
        sys.__excepthook__(kind, error, traceback)
        return
    sys.stderr.write(f"\n{type(own).__name__}: {own}\n(Set VMNET_TRACEBACK=1 to see where it was raised.)\n")


def _path_of(catalog: DataCatalog, name: str) -> Path:
    """Where a dataset keeps its content."""
    return Path(str(getattr(catalog[name], "_filepath", "")))


def _print_results(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """The Recall@K table of every evaluation of this run, and the places to look at next."""
    import click

    evaluations = sorted(name for name in pipeline.all_outputs() if name.endswith(".evaluation"))
    if not evaluations:
        return
    from vmnet_pipeline.reporting.table import format_recall_table

    for name in evaluations:
        variant = name.removesuffix(".evaluation")
        report = _path_of(catalog, f"{variant}.report")
        click.echo(f"\n{variant}\n{format_recall_table(catalog.load(name))}\n")
        click.echo(f"Report      {report}")
    click.echo("MLflow      mlflow ui --backend-store-uri sqlite:///mlflow.db   (experiment vmnet_pipeline)")
    click.echo("Pipelines   kedro viz\n")
