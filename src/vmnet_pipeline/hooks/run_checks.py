"""Check a run before anything is computed: parameter names, access to stores, checkpoint against features."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vmnet_pipeline.errors import ParameterError, StorageError, describe_validation
from vmnet_pipeline.hooks.results import path_of
from vmnet_pipeline.params import flatten_settings
from vmnet_pipeline.params.names import SECTIONS, list_names, list_unknown, propose_names
from vmnet_pipeline.storage.configuration import find_conf
from vmnet_pipeline.storage.paths import configure_storage, explain_access, is_remote
from vmnet_pipeline.types import MODALITY_OF

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

    from vmnet_pipeline.datasets import ReferenceFilesDataset
    from vmnet_pipeline.types import Fingerprint, Modality

logger = logging.getLogger(__name__)

_OF_EVERY_BACKEND = ("backend", "weights", "weights_dir", "gpu_idx")
"""Settings in `backend_defaults`, which a backend may lack."""


def check_names(config_loader: Any) -> None:
    """Refuse an unknown name in `--params`: misspelt, it would silently have no effect.

    Raises:
        ParameterError: Neither the configuration, nor a backend, nor the model of a section has the name.
    """
    params = getattr(config_loader, "runtime_params", None) or {}
    given = {name: value for name, value in params.items() if not (isinstance(value, dict) and "backend" in value)}
    if not given:
        return
    from vmnet_pipeline.backends.registry import list_backends

    backends = list_backends()
    known = {*backends, *_find_names(Path(config_loader.conf_source))}
    for name in sorted({str(name) for name in given} - known):
        _refuse_name(f"--params {name}", name, known)
    common = {f"{backend}.{name}" for backend in backends for name in _OF_EVERY_BACKEND}
    sections = _find_sections({str(name) for name in given}, backends)
    for name in list_unknown(flatten_settings(given).keys() - common, sections):
        _refuse_name(f"--params {name}", name, known)


def check_values(parameters: Mapping[str, Any]) -> None:
    """Check the parameters by their models, before Kedro does, in one sentence.

    Raises:
        ParameterError: A name in a file is unknown, or a value cannot be used.
    """
    from pydantic import ValidationError

    for section, model in SECTIONS.items():
        if parameters.get(section) is None:
            continue
        try:
            model.model_validate(parameters[section])
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            name = ".".join(map(str, (section, *first["loc"])))
            if first["type"] == "extra_forbidden":
                _refuse_name(name, name, {section})
            raise ParameterError(f"{section}.{describe_validation(error, show_value=True)}") from error


def _refuse_name(what: str, name: str, known: set[str]) -> None:
    from vmnet_pipeline.backends.registry import BACKENDS

    sections = _find_sections({*SECTIONS, *known}, BACKENDS)
    names = {full for section, model in sections.items() for full in list_names(section, model)}
    raise ParameterError(f"{what}: unknown parameter; {propose_names(name, known | names)}")


def _find_sections(names: set[str], backends: Iterable[str]) -> dict[str, Any]:
    """The models of the sections and of the backends among `names`; of those that have one."""
    from vmnet_pipeline.backends.registry import find_class

    sections: dict[str, Any] = {name: model for name, model in SECTIONS.items() if name in names}
    models = {name: getattr(find_class(name), "params_type", None) for name in backends if name in names}
    return sections | {name: model for name, model in models.items() if model is not None}


def refuse_parallel_runner(catalog: DataCatalog) -> None:
    """Refuse ParallelRunner: it shares neither the datasets in memory nor the MLflow run between processes.

    Raises:
        ParameterError: It was chosen.
    """
    from kedro.io.data_catalog import SharedMemoryDataCatalog

    if isinstance(catalog, SharedMemoryDataCatalog):
        raise ParameterError(
            "--runner=ParallelRunner cannot be used: each step uses all cores by itself (extract.n_workers), and "
            "machines share a collection as an array job, see docs/scaling.md. Omit --runner."
        )


def _find_names(conf: Path) -> set[str]:
    """First parts of the names that `--params` accepts: parameter keys, and names that the configuration reads."""
    names: set[str] = set()
    for path in (path for path in conf.rglob("*.y*ml") if "credentials" not in path.name):
        text = path.read_text(encoding="utf-8")
        names.update(re.findall(r"\$\{runtime_params:\s*(\w+)", text))
        if "parameters" in path.relative_to(conf).as_posix():
            names.update(re.findall(r"^[\"']?([\w-]+)[\"']?\s*:", text, re.MULTILINE))
    return names


def configure_project_storage(config_loader: Any = None) -> None:
    """Set the options of object stores given under `storage` in conf/local/credentials.yml.

    They are passed only to fsspec, which every dataset uses. Without them the default credentials of the store apply.

    Raises:
        StorageError: They are not options of object stores.
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


def choose_reference_variant(parameters: dict[str, Any]) -> str | None:
    """The variant to use with the user's own feature files; None when the run has none."""
    from pydantic import ValidationError

    from vmnet_pipeline.params import ReferenceParams

    given = parameters.get("reference") or {}
    try:
        params = ReferenceParams.model_validate({**given, "variant": None})
        if not params.places:
            return None  # `variant` is one of media
        params = ReferenceParams.model_validate(given)
    except ValidationError as error:
        raise ParameterError(f"reference.{describe_validation(error, show_value=True)}") from error
    from vmnet_pipeline.reference.layout import locate_subsets, make_layout

    layout = make_layout(locate_subsets(**params.places), params.variant)
    logger.info("Using your own feature files with %s", layout.variant)
    return layout.variant


def skip_training_files(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Skip the training features when every node of a run that reads the pairs needs only the test subset."""
    for name in (name for name in pipeline.all_outputs() if name.endswith(".pairs")):
        takers = [node for node in pipeline.nodes if name in node.inputs]
        files = f"{name.removesuffix('.pairs')}.reference_files"
        if takers and files in pipeline.inputs() and all("test_side" in node.tags for node in takers):
            cast("ReferenceFilesDataset", catalog.get(files)).test_only = True


def check_access(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Check that an object store can be used before anything is computed.

    Raises:
        StorageError: It cannot be reached, or rejects the credentials.
    """
    places = (path_of(catalog, name) for name in sorted(pipeline.datasets()) if name in catalog)
    place = next((place for place in places if is_remote(place)), None)
    if place is not None:
        with explain_access(place):
            place.exists()


def check_checkpoint(run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Check a checkpoint against the features before they are packed.

    Raises:
        ParameterError: A checkpoint to evaluate is given to a run that trains, which would overwrite it.
        CheckpointError: It is missing, damaged, or made for other features.
    """
    trained = [name for name in pipeline.all_outputs() if name.endswith(".checkpoint")]
    if trained and "checkpoint" in (run_params.get("runtime_params") or {}):
        raise ParameterError(
            "checkpoint=PATH names a checkpoint to evaluate, but this run trains and would overwrite it. Run `kedro "
            "run --pipeline evaluate`, or omit checkpoint; summaries_dir=FOLDER sets where a new one is written."
        )
    for name in (name for name in pipeline.inputs() if name.endswith(".checkpoint")):
        _compare_with_features(catalog.load(name), name.removesuffix(".checkpoint"), pipeline, catalog)


def _compare_with_features(checkpoint: Any, variant: str, pipeline: Pipeline, catalog: DataCatalog) -> None:
    from vmnet_pipeline.backends.registry import find_class
    from vmnet_pipeline.features.joint import join_stores
    from vmnet_pipeline.models.checkpoints import check_fingerprints, check_form, check_shapes
    from vmnet_pipeline.params import TrainParams

    if "params:train" not in pipeline.inputs():
        return  # nothing is packed
    model = TrainParams.model_validate(catalog.load("params:train"))
    check_form(checkpoint, model.music_steps, model.video_steps)
    if f"{variant}.reference_files" in pipeline.inputs():
        from vmnet_pipeline.reference.planning import peek_shapes

        shapes = peek_shapes(catalog.load(f"{variant}.reference_files"), model.music_steps, model.video_steps)
        if shapes is not None:
            check_shapes(checkpoint, *shapes)
        return
    packed = [name for node in pipeline.nodes if f"{variant}.pairs" in node.outputs for name in node.inputs]
    backends = [name.removesuffix(".features") for name in packed if name.endswith(".features")]
    found: dict[Modality, Fingerprint] = {}
    for modality in MODALITY_OF.values():
        names = {name: f"{name}.features" for name in backends if find_class(name).modality == modality}
        if names and pipeline.inputs() >= {*names.values()}:
            fingerprint = join_stores({name: catalog.load(place) for name, place in names.items()}).fingerprint()
            found |= {modality: fingerprint} if fingerprint else {}
    check_fingerprints(checkpoint, found)
