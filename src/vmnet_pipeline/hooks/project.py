"""Hooks of the project: prepare and check a run, log and print its results."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from vmnet_pipeline.hooks.error_messages import install_excepthook
from vmnet_pipeline.hooks.library import LibraryModel, adapt_catalog, choose_library_model
from vmnet_pipeline.hooks.results import path_of, print_results
from vmnet_pipeline.hooks.run_checks import (
    check_access,
    check_checkpoint,
    check_names,
    check_values,
    choose_reference_variant,
    configure_project_storage,
    refuse_parallel_runner,
    skip_training_files,
)
from vmnet_pipeline.storage.project import enter_project

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline


class ProjectHooks:
    """Log marked datasets to MLflow and print the results; all in the main process, whatever the runner."""

    def __init__(self) -> None:
        self._parameters: dict[str, Any] = {}
        self._has_replaced_pipelines = False
        self._library: LibraryModel | None = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Register the pipelines of the variants of the project, or those on the user's own feature files.

        The configuration can redirect a dataset but not change the nodes of a pipeline, and a run on feature files
        needs neither manifest nor feature store.
        """
        from vmnet_pipeline.backends.registry import declare_backends
        from vmnet_pipeline.params import VARIANTS
        from vmnet_pipeline.pipeline_registry import (
            register_library_pipelines,
            register_pipelines,
            register_reference_pipelines,
        )
        from vmnet_pipeline.pipelines.variants import read_variants

        install_excepthook()
        check_names(context.config_loader)
        configure_project_storage(context.config_loader)
        parameters = context.config_loader["parameters"]
        check_values(parameters)
        declare_backends(parameters)
        self._library = choose_library_model(parameters, getattr(context.config_loader, "runtime_params", None) or {})
        if self._library is not None:
            from kedro.framework.project import pipelines

            pipelines.update(register_library_pipelines(self._library.variant, self._library.backends))
            self._has_replaced_pipelines = True
            return
        reference = choose_reference_variant(parameters)
        declared = declare_backends({} if reference else parameters)
        variants = VARIANTS if reference else read_variants(parameters)
        is_usual = reference is None and not declared and list(variants.items()) == list(VARIANTS.items())
        if is_usual and not self._has_replaced_pipelines:
            return
        from kedro.framework.project import pipelines

        pipelines.update(register_reference_pipelines(reference) if reference else register_pipelines(variants))
        self._has_replaced_pipelines = not is_usual

    @hook_impl
    def after_catalog_created(self, catalog: DataCatalog) -> None:
        """Complete the parameters of every backend by the common ones, so that a backend needs no file in conf/.

        Raises:
            ParameterError: ParallelRunner was chosen.
        """
        refuse_parallel_runner(catalog)
        from vmnet_pipeline.backends.registry import list_backends

        if "params:backend_defaults" not in catalog:
            return
        for backend in list_backends():
            name = f"params:{backend}"
            is_there = name in catalog
            given = (catalog.load(name) if is_there else None) or {}
            if given.get("backend") == backend and "weights_dir" in given:
                continue
            completed = {"backend": backend, **catalog.load("params:backend_defaults"), **given}
            if is_there:
                catalog.save(name, completed)  # Kedro warns of every dataset that is replaced
            else:
                catalog[name] = completed
        if self._library is not None:
            adapt_catalog(self._library, catalog)

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Check the run, and keep the parameters that it uses for MLflow."""
        check_access(pipeline, catalog)
        skip_training_files(pipeline, catalog)
        check_checkpoint(run_params, pipeline, catalog)
        names = sorted(name for name in pipeline.inputs() if name.startswith("params:"))
        self._parameters = {name.removeprefix("params:"): catalog.load(name) for name in names}

    @hook_impl(tryfirst=True)  # tracking ends its run in the same hook
    def after_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Print the results; then log parameters, artifacts and metrics."""
        print_results(pipeline, catalog)
        self._log_run(pipeline, catalog)

    def _log_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        from vmnet_pipeline.hooks.tracking import find_collection
        from vmnet_pipeline.tracking import runs as tracking
        from vmnet_pipeline.tracking.labels import RunLabels

        tracking.log_parameters(self._parameters)
        for name in sorted(pipeline.all_outputs()):
            dataset = catalog.get(name)
            kind = (getattr(dataset, "metadata", None) or {}).get("mlflow")
            if kind is None:
                continue
            tracking.log_file(path_of(catalog, name))
            if kind == "model":
                checkpoint, variant = catalog.load(name), name.removesuffix(".checkpoint")
                config = checkpoint.model_config
                tracking.log_parameters({"part_weights": checkpoint.part_weights})
                collection, params = find_collection(catalog), checkpoint.params
                tags = RunLabels("training", collection, variant, str(params.get("protocol")), params.get("seed")).tags
                shapes = config["music_shape"], config["video_shape"]
                tracking.log_model(path_of(catalog, name), *shapes, collection or variant, tags)
            if kind == "comparison":
                tracking.log_comparison(catalog.load(name))
            if kind == "evaluation":
                evaluation, variant = catalog.load(name), name.removesuffix(".evaluation")
                tracking.log_metrics(tracking.flatten_metrics(evaluation))
                logs = path_of(catalog, f"{variant}.training_state").with_name("logs")
                tracking.write_evaluation(logs, evaluation, catalog.load(f"{variant}.checkpoint").best_epoch)
        if "split_summary" in pipeline.all_outputs():
            tracking.set_tags({"split_checksum": catalog.load("split_summary")["checksum"]})
        for name in (name for name in pipeline.all_outputs() if name.endswith(".pairs")):
            tracking.set_tags({"split_checksum": catalog.load(name).split_checksum})


class FolderHooks:
    """Resolve relative paths from the project root, whichever folder a run is started in."""

    @hook_impl(tryfirst=True)  # before anything uses a path
    def after_context_created(self, context: KedroContext) -> None:
        """Make the project root the current folder."""
        given = (context.config_loader.runtime_params, context._runtime_params)  # the same, or copies
        enter(Path(context.project_path), *{id(part): part for part in given if part}.values())


def enter(root: Path, *given: dict[str, Any]) -> None:
    """Make the root of a project the current folder, and apply its logging; see `enter_project`."""
    if Path.cwd() == root.resolve():
        return
    enter_project(root, *given)
    settings = root / "conf" / "logging.yml"
    if settings.is_file() and not os.environ.get("KEDRO_LOGGING_CONFIG"):
        import yaml
        from kedro.framework.project import LOGGING

        LOGGING.configure(yaml.safe_load(settings.read_text(encoding="utf-8")))
