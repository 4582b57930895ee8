"""Hooks of the project: what a run works on, what it checks first, what it logs, and what it tells a person."""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from kedro.framework.hooks import hook_impl

from vmnet_pipeline.errors import ParameterError, StorageError, VmnetError
from vmnet_pipeline.storage.atomic import explain_disk_error
from vmnet_pipeline.storage.configuration import find_conf
from vmnet_pipeline.storage.limits import explain_limit
from vmnet_pipeline.storage.paths import as_path, configure_storage, explain_access, is_remote
from vmnet_pipeline.storage.project import enter_project

if TYPE_CHECKING:
    from types import TracebackType

    from kedro.framework.context import KedroContext
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

    from vmnet_pipeline.datasets import ReferenceFilesDataset
    from vmnet_pipeline.types import Fingerprint, Modality

logger = logging.getLogger(__name__)


class ProjectHooks:
    """Log marked datasets to MLflow and print the results; all in the main process, whatever the runner."""

    def __init__(self) -> None:
        self._parameters: dict[str, Any] = {}
        self._has_replaced_pipelines = False

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Let `train` and `evaluate` start from feature files of the user's own, where such are given.

        A dataset can be pointed elsewhere by the configuration, but what a pipeline is made of cannot, and this run
        needs neither manifest nor feature store.
        """
        from vmnet_pipeline.pipeline_registry import register_pipelines, register_reference_pipelines

        _speak_plainly()
        _check_names(context.config_loader)
        configure_project_storage(context.config_loader)
        variant = _choose_variant(context.config_loader["parameters"])
        if variant is None and not self._has_replaced_pipelines:
            return
        from kedro.framework.project import pipelines

        pipelines.update(register_pipelines() if variant is None else register_reference_pipelines(variant))
        self._has_replaced_pipelines = variant is not None

    @hook_impl
    def after_catalog_created(self, catalog: DataCatalog) -> None:
        """Give every backend the common parameters below its own: its file and its registry line are enough.

        Raises:
            ParameterError: The run is to divide its steps among processes.
        """
        _refuse_processes(catalog)
        from vmnet_pipeline.backends.registry import BACKENDS

        if "params:backend_defaults" not in catalog:
            return
        for backend in BACKENDS:
            name = f"params:{backend}"
            given = catalog.load(name) if name in catalog else {}
            if "backend" not in given:
                catalog[name] = {"backend": backend, **catalog.load("params:backend_defaults"), **given}

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Check what can be checked at once, and remember the parameters that this run uses, for MLflow."""
        _check_access(pipeline, catalog)
        _limit_packing(pipeline, catalog)
        _check_checkpoint(run_params, pipeline, catalog)
        names = sorted(name for name in pipeline.inputs() if name.startswith("params:"))
        self._parameters = {name.removeprefix("params:"): catalog.load(name) for name in names}

    @hook_impl(tryfirst=True)  # tracking ends its run in the same hook
    def after_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Print the table and where everything is; then log parameters, artifacts and figures."""
        _print_results(pipeline, catalog)
        self._log_run(pipeline, catalog)

    def _log_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        from vmnet_pipeline.tracking import runs as tracking

        tracking.log_parameters(self._parameters)
        for name in sorted(pipeline.all_outputs()):
            dataset = catalog.get(name)
            kind = (getattr(dataset, "metadata", None) or {}).get("mlflow")
            if kind is None:
                continue
            tracking.log_file(_path_of(catalog, name))
            if kind == "model":
                config = catalog.load(name).model_config
                variant = name.removesuffix(".checkpoint")
                tracking.log_model(_path_of(catalog, name), config["music_shape"], config["video_shape"], variant)
            if kind == "comparison":
                tracking.log_comparison(catalog.load(name))
            if kind == "evaluation":
                evaluation, variant = catalog.load(name), name.removesuffix(".evaluation")
                tracking.log_figures(evaluation)
                logs = _path_of(catalog, f"{variant}.training_state").with_name("logs")
                tracking.write_figures(logs, evaluation, catalog.load(f"{variant}.checkpoint").best_epoch)
        if "split_summary" in pipeline.all_outputs():
            tracking.set_tags({"split_checksum": catalog.load("split_summary")["checksum"]})
        for name in (name for name in pipeline.all_outputs() if name.endswith(".pairs")):
            tracking.set_tags({"split_checksum": catalog.load(name).split_checksum})


class FolderHooks:
    """Have everything hang on the root of the project, in whichever of its folders a run is started."""

    @hook_impl(tryfirst=True)  # before anything else has to do with paths
    def after_context_created(self, context: KedroContext) -> None:
        """Make the root the current folder."""
        given = (context.config_loader.runtime_params, context._runtime_params)  # the same, or copies
        enter(Path(context.project_path), *{id(part): part for part in given if part}.values())


def enter(root: Path, *given: dict[str, Any]) -> None:
    """Make the root of a project the current folder, and log as it says; see `enter_project`."""
    if Path.cwd() == root.resolve():
        return
    enter_project(root, *given)
    settings = root / "conf" / "logging.yml"
    if settings.is_file() and not os.environ.get("KEDRO_LOGGING_CONFIG"):
        import yaml
        from kedro.framework.project import LOGGING

        LOGGING.configure(yaml.safe_load(settings.read_text(encoding="utf-8")))


def _speak_plainly() -> None:
    """Let an error that was raised on purpose, here or by Kedro for a wrong call, end without a page of traceback."""
    if "VMNET_TRACEBACK" not in os.environ:
        sys.excepthook = _print_error


def _check_names(config_loader: Any) -> None:
    """Refuse a name of `--params` that nothing reads: misspelt, it would leave the run as if it had not been given.

    Raises:
        ParameterError: Neither the configuration nor a backend has the name.
    """
    given = {str(name) for name in getattr(config_loader, "runtime_params", None) or {}}
    if not given:
        return
    from difflib import get_close_matches

    from vmnet_pipeline.backends.registry import BACKENDS

    known = {*BACKENDS, *_find_names(Path(config_loader.conf_source))}
    for name in sorted(given - known):
        near = get_close_matches(name, sorted(known), 1)
        hint = f"did you mean {near[0]}?" if near else "docs/parameters.md lists all."
        raise ParameterError(f"--params {name}: there is no parameter of this name; {hint}")


def _refuse_processes(catalog: DataCatalog) -> None:
    """ParallelRunner shares neither what stays in memory between steps nor the MLflow run.

    Raises:
        ParameterError: It is to be used.
    """
    from kedro.io.data_catalog import SharedMemoryDataCatalog

    if isinstance(catalog, SharedMemoryDataCatalog):
        raise ParameterError(
            "--runner=ParallelRunner cannot be used: each step uses all cores by itself (extract.n_workers), and "
            "machines share a collection as an array job, see docs/scaling.md. Leave --runner out."
        )


def _find_names(conf: Path) -> set[str]:
    """First parts of the names that `--params` takes: keys of the parameters, and what the configuration reads."""
    names: set[str] = set()
    for path in (path for path in conf.rglob("*.y*ml") if "credentials" not in path.name):
        text = path.read_text(encoding="utf-8")
        names.update(re.findall(r"\$\{runtime_params:\s*(\w+)", text))
        if "parameters" in path.relative_to(conf).as_posix():
            names.update(re.findall(r"^[\"']?(\w+)[\"']?\s*:", text, re.MULTILINE))
    return names


def configure_project_storage(config_loader: Any = None) -> None:
    """Set the options of object stores that conf/local/credentials.yml has under `storage`.

    They go to fsspec, which every dataset uses, and nowhere else. Without them the store's own ways count.

    Args:
        config_loader: That of a run; by default the one of the project in this folder.

    Raises:
        StorageError: They do not have the form of options.
    """
    from kedro.config import MissingConfigException, OmegaConfigLoader

    if config_loader is None:
        config_loader = OmegaConfigLoader(str(find_conf()), base_env="base", default_run_env="local")
    try:
        options = config_loader["credentials"].get("storage") or {}
    except (MissingConfigException, KeyError):
        return
    if not isinstance(options, dict):
        raise StorageError("`storage` in credentials.yml must name object stores, with their options below.")
    configure_storage(options)


def _choose_variant(parameters: dict[str, Any]) -> str | None:
    """The variant for feature files of the user's own; None when the run has none of them."""
    from pydantic import ValidationError

    from vmnet_pipeline.params import ReferenceParams

    try:
        params = ReferenceParams.model_validate(parameters.get("reference") or {})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ParameterError(f"reference.{name}: {first['msg']}, not {first['input']!r}") from error
    if not params.places:
        return None
    from vmnet_pipeline.reference.layout import locate_sides, make_layout

    layout = make_layout(locate_sides(**params.places), params.variant)
    logger.info("Feature files of your own, used with %s", layout.variant)
    return layout.variant


def _limit_packing(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Leave the feature files of the training side alone where a run takes nothing of the pairs but their test side."""
    for name in (name for name in pipeline.all_outputs() if name.endswith(".pairs")):
        takers = [node for node in pipeline.nodes if name in node.inputs]
        files = f"{name.removesuffix('.pairs')}.reference_files"
        if takers and files in pipeline.inputs() and all("test_side" in node.tags for node in takers):
            cast("ReferenceFilesDataset", catalog.get(files)).only_test = True


def _check_access(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Find out before anything is computed that an object store cannot be used.

    Raises:
        StorageError: It cannot be reached, or does not let these credentials in.
    """
    places = (_path_of(catalog, name) for name in sorted(pipeline.datasets()) if name in catalog)
    place = next((place for place in places if is_remote(place)), None)
    if place is not None:
        with explain_access(place):
            place.exists()


def _check_checkpoint(run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Find out before features are packed that a checkpoint is missing or made for other features.

    Raises:
        ParameterError: A checkpoint to be evaluated is given to a run that trains, and would be overwritten.
        CheckpointError: It is missing, damaged, or made for other features.
    """
    trained = [name for name in pipeline.all_outputs() if name.endswith(".checkpoint")]
    if trained and "checkpoint" in (run_params.get("runtime_params") or {}):
        raise ParameterError(
            "checkpoint=PATH is evaluated, and this run trains: it would be overwritten. Run `kedro run --pipeline "
            "evaluate`, or leave checkpoint away; summaries_dir=FOLDER says where a new one goes."
        )
    for name in (name for name in pipeline.inputs() if name.endswith(".checkpoint")):
        checkpoint = catalog.load(name)
        _compare_with_features(checkpoint, name.removesuffix(".checkpoint"), pipeline, catalog)


def _compare_with_features(checkpoint: Any, variant: str, pipeline: Pipeline, catalog: DataCatalog) -> None:
    from vmnet_pipeline.models.checkpoints import check_fingerprints, check_form, check_shapes
    from vmnet_pipeline.params import TrainParams
    from vmnet_pipeline.pipeline_registry import VARIANTS

    if "params:train" not in pipeline.inputs():
        return  # nothing is packed
    model = TrainParams.model_validate(catalog.load("params:train")).model
    check_form(checkpoint, model.music_steps, model.video_steps)
    if f"{variant}.reference_files" in pipeline.inputs():
        from vmnet_pipeline.reference.planning import peek_shapes

        shapes = peek_shapes(catalog.load(f"{variant}.reference_files"), model.music_steps, model.video_steps)
        if shapes is not None:
            check_shapes(checkpoint, *shapes)
        return
    modalities: tuple[Modality, Modality] = ("audio", "video")
    found: dict[Modality, Fingerprint] = {}
    for modality, backend in zip(modalities, VARIANTS.get(variant, ()), strict=False):
        if f"{backend}.features" in pipeline.inputs():
            fingerprint = catalog.load(f"{backend}.features").fingerprint()
            found |= {modality: fingerprint} if fingerprint else {}
    check_fingerprints(checkpoint, found)


def find_own_error(error: BaseException | None) -> VmnetError | None:
    """The error of this project behind `error`; Kedro wraps what a dataset raises. So are a full disk and a limit."""
    outer = error
    while error is not None:
        if isinstance(error, VmnetError):
            return error
        error = error.__cause__
    return explain_disk_error(outer) or explain_limit(outer)


def _print_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    own = find_own_error(error) or _explain_wrong_call(error)
    if own is None:
        sys.__excepthook__(kind, error, traceback)
        return
    sys.stderr.write(f"\n{type(own).__name__}: {own}\n(Set VMNET_TRACEBACK=1 to see where it was raised.)\n")


def _explain_wrong_call(error: BaseException) -> ParameterError | None:
    """What Kedro refuses before it runs anything, in words for a person; None for other errors."""
    from kedro.validation.exceptions import ParameterValidationError

    if isinstance(error, ParameterValidationError):
        return ParameterError("\n".join(line for line in str(error).splitlines() if "errors.pydantic.dev" not in line))
    missing = (
        re.match(r"Failed to find the pipeline named '(.*?)'", str(error)) if isinstance(error, ValueError) else None
    )
    if missing is None:
        return None
    near = str(error).partition("Did you mean one of these instead?\n")[2].split()
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return ParameterError(f"There is no pipeline {missing[1]}. {hint}`kedro registry list` names all.")


def _path_of(catalog: DataCatalog, name: str) -> Path:
    """Where a dataset keeps its content."""
    dataset = catalog[name]
    place, protocol = getattr(dataset, "_filepath", ""), getattr(dataset, "_protocol", "file")
    if is_remote(place):
        return as_path(place)
    return Path(str(place)) if protocol == "file" else as_path(f"{protocol}://{str(place).lstrip('/')}")


def _print_results(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """The Recall@K table of every evaluation of this run, and the places to look at next."""
    import click

    outputs = sorted(pipeline.all_outputs())
    evaluations = [name for name in outputs if name.endswith(".evaluation")]
    sweeps = [name for name in outputs if name.endswith((".comparison", ".tuning"))]
    ingested = f"Manifest    {_path_of(catalog, 'manifest')}" if "manifest" in outputs else ""
    if not evaluations and not sweeps:
        click.echo(ingested, nl=bool(ingested))
        return
    from vmnet_pipeline.reporting.comparison import format_comparison
    from vmnet_pipeline.reporting.console_table import format_recall_table
    from vmnet_pipeline.reporting.tuning import format_tuning

    for name in sweeps:
        format_sweep = format_comparison if name.endswith(".comparison") else format_tuning
        click.echo(f"\n{name}\n{format_sweep(catalog.load(name))}\n")
        click.echo(f"Figures     {_path_of(catalog, name)}")
        if name.endswith(".tuning"):
            click.echo(f"Settings    {_path_of(catalog, name.replace('.tuning', '.best_settings'))}")
    for name in evaluations:
        variant = name.removesuffix(".evaluation")
        report = _path_of(catalog, f"{variant}.report")
        click.echo(f"\n{variant}\n{format_recall_table(catalog.load(name))}\n")
        click.echo(f"Report      {report}")
    click.echo(ingested, nl=bool(ingested))
