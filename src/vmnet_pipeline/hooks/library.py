"""What a run on a library needs: its network, and the backends that network was trained on, reading whole files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import CheckpointError, ParameterError, describe_validation
from vmnet_pipeline.params import PieceParams, VariantParams
from vmnet_pipeline.types import MODALITY_OF

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kedro.io import DataCatalog

    from vmnet_pipeline.models.checkpoints import Checkpoint

LIBRARY_VARIANT = "library"
"""Name of the variant in the paths of a library, unless `variant=` gives another one."""


@dataclass(frozen=True)
class LibraryModel:
    """The network of a run on a library.

    Attributes:
        variant: Its name in paths.
        folder: Its checkpoint.
        backends: Backends of both sides.
        params: Backend to its parameters.
    """

    variant: str
    folder: Path
    backends: VariantParams
    params: Mapping[str, Mapping[str, Any]]


def choose_library_model(parameters: Mapping[str, Any], runtime_params: Mapping[str, Any]) -> LibraryModel | None:
    """The network for the library of a run; None for a run without one.

    Raises:
        ParameterError: Settings contradict each other.
        CheckpointError: There is no network, or it does not say what features it takes.
    """
    if not (parameters.get("ingest") or {}).get("library"):
        return None
    both = {"media_dir", "pairs_dir", "train_data_dir", "test_data_dir"} & {*runtime_params}
    if both:
        raise ParameterError(f"library and {sorted(both)[0]} name two collections; give one of them")
    from vmnet_pipeline.inference.embedder import recall_backend
    from vmnet_pipeline.inference.libraries import find_network

    folder, checkpoint = find_network(str(runtime_params.get("checkpoint") or ""))
    _check_known(folder, checkpoint)
    pieces = read_piece_params(parameters.get("pieces"))
    named = {side: checkpoint.fingerprints[modality].parts for side, modality in MODALITY_OF.items()}
    params = {part.backend: recall_backend(part) for parts in named.values() for part in parts}
    backends = VariantParams.model_validate({side: [part.backend for part in parts] for side, parts in named.items()})
    variant = str(runtime_params.get("variant") or LIBRARY_VARIANT)
    return LibraryModel(
        variant, folder, backends, {name: {**own, "pieces": pieces.model_dump()} for name, own in params.items()}
    )


def read_piece_params(given: Any) -> PieceParams:
    """Check the parameters `pieces`.

    Raises:
        ParameterError: A value is wrong.
    """
    from pydantic import ValidationError

    try:
        return PieceParams.model_validate(given or {})
    except ValidationError as error:
        raise ParameterError(f"pieces.{describe_validation(error, show_value=True)}") from error


def _check_known(folder: Path, checkpoint: Checkpoint) -> None:
    missing = [side for side, modality in MODALITY_OF.items() if modality not in checkpoint.fingerprints]
    if missing:
        raise CheckpointError(
            f"the checkpoint {folder} does not say which {missing[0]} features it was trained on, so no media can be "
            "embedded with it; take one that was trained on media (kedro run --params media_dir=FOLDER)"
        )


def adapt_catalog(model: LibraryModel, catalog: DataCatalog) -> None:
    """Put the network, and the parameters of its backends, into the catalog of a run."""
    from vmnet_pipeline.datasets import CheckpointDataset

    common = catalog.load("params:backend_defaults")
    kept = {name: common[name] for name in ("weights_dir", "gpu_idx") if name in common}
    for name, own in model.params.items():
        _put(catalog, f"params:{name}", {"backend": name, **kept, **own})
    catalog[f"{model.variant}.checkpoint"] = CheckpointDataset(filepath=str(model.folder))


def _put(catalog: DataCatalog, name: str, value: Any) -> None:
    """Set a parameter; Kedro warns of every dataset that is replaced."""
    if name in catalog:
        catalog.save(name, value)
    else:
        catalog[name] = value


STEPS = ("ingest", "extract", "embed", "index")


def run_library(runtime_params: Mapping[str, Any]) -> None:
    """Index a library as `kedro run --pipelines=ingest,extract,embed,index` does, as a step of another command.

    It is not logged to MLflow, and prints nothing.

    Args:
        runtime_params: Those of `--params`, `library` among them.

    Raises:
        VmnetError: The library cannot be indexed.
    """
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline
    from kedro.runner import SequentialRunner

    from vmnet_pipeline.backends.registry import declare_backends
    from vmnet_pipeline.hooks.run_checks import configure_project_storage
    from vmnet_pipeline.pipeline_registry import register_library_pipelines

    loader = _open_configuration(runtime_params)
    configure_project_storage(loader)
    parameters = loader["parameters"]
    declare_backends(parameters)
    model = choose_library_model(parameters, runtime_params)
    if model is None:
        raise ParameterError("name a library: library=FOLDER")
    catalog = DataCatalog.from_config(loader["catalog"])
    for name, value in parameters.items():
        catalog[f"params:{name}"] = _check_parameters(name, value)
    adapt_catalog(model, catalog)
    pipelines = register_library_pipelines(model.variant, model.backends)
    SequentialRunner().run(sum((pipelines[name] for name in STEPS), Pipeline([])), catalog)


def _open_configuration(runtime_params: Mapping[str, Any]) -> Any:
    from vmnet_pipeline.hooks.config_loader import ProjectConfigLoader
    from vmnet_pipeline.ingestion.ids import name_collection
    from vmnet_pipeline.storage.configuration import find_conf
    from vmnet_pipeline.storage.paths import name_local

    return ProjectConfigLoader(
        str(find_conf()),
        runtime_params=dict(runtime_params),
        base_env="base",
        default_run_env="local",
        custom_resolvers={"collection": name_collection, "local": name_local},
    )


def _check_parameters(name: str, value: Any) -> Any:
    """The parameters of a step as its model, as Kedro checks them in a run."""
    from pydantic import ValidationError

    from vmnet_pipeline.params import EmbedParams, ExtractParams, IndexParams, IngestParams, Params

    models: dict[str, type[Params]] = {
        "ingest": IngestParams,
        "extract": ExtractParams,
        "embed": EmbedParams,
        "index": IndexParams,
    }
    if name not in models:
        return value
    try:
        return models[name].model_validate(value)
    except ValidationError as error:
        raise ParameterError(f"{name}.{describe_validation(error, show_value=True)}") from error
