"""Log to the active MLflow run: operations of a kind with plain content, executed now or much later.

Each may be repeated in the same run without duplicates, except that a model gets another version.
"""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.storage.paths import as_path, local_copy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAX_VALUE_LENGTH = 500
MAX_BATCH = 100
"""A server refuses requests with more parameters."""

MAX_POINTS = 1000


def carry_out(kind: str, content: Mapping[str, Any]) -> None:
    """Log to the active run by one of `KINDS`, with its JSON-able arguments; raises whatever MLflow raises."""
    KINDS[kind](**content)


def log_values(values: Mapping[str, str]) -> None:
    """Log parameters by name."""
    import mlflow

    names = list(values)
    for start in range(0, len(names), MAX_BATCH):
        part = names[start : start + MAX_BATCH]
        mlflow.log_params({name: str(values[name])[:MAX_VALUE_LENGTH] for name in part})


def log_points(points: Sequence[Sequence[Any]]) -> None:
    """Log metrics: name, value, time in milliseconds and step of each."""
    import mlflow
    from mlflow.entities import Metric

    for start in range(0, len(points), MAX_POINTS):
        part = [Metric(*point) for point in points[start : start + MAX_POINTS]]
        mlflow.MlflowClient().log_batch(_run_id(), metrics=part)


def set_tags(values: Mapping[str, str]) -> None:
    """Set tags."""
    import mlflow

    mlflow.set_tags(dict(values))


def log_place(place: str) -> None:
    """Log a file, or a whole folder, if it exists."""
    import mlflow

    path = as_path(place)
    with local_copy(path) as local:
        if local.is_dir():
            mlflow.log_artifacts(str(local), artifact_path=path.name)
        elif local.exists():
            mlflow.log_artifact(str(local))


def log_checkpoint(
    place: str,
    music_shape: Sequence[int],
    video_shape: Sequence[int],
    name: str,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log a checkpoint as a model with a signature, and register it as another version of `name`, with these tags."""
    import mlflow

    import vmnet_pipeline
    from vmnet_pipeline.models.checkpoints import read_versions

    package = Path(vmnet_pipeline.__file__).parent
    versions = read_versions(("mlflow", "numpy", "pandas", "torch", "safetensors", "pydantic"))
    said = io.StringIO()  # two lines about the version, which the run does not need
    with local_copy(as_path(place)) as local, warnings.catch_warnings(), redirect_stderr(said):
        # The signature is given, so an input example would add nothing.
        warnings.filterwarnings("ignore", message="(?s).*input example was not provided")
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(package / "tracking" / "served_model.py"),
            artifacts={"checkpoint": str(local)},
            code_paths=[str(package)],
            signature=make_signature(music_shape, video_shape),
            registered_model_name=name,
            pip_requirements=[f"{required}=={version.partition('+')[0]}" for required, version in versions.items()],
        )
    client = mlflow.MlflowClient()
    for tag, value in (tags or {}).items():
        client.set_model_version_tag(name, str(logged.registered_model_version), tag, value)


def make_signature(music_shape: Sequence[int], video_shape: Sequence[int]) -> Any:
    """Optional columns `music` and `video` of nested lists to optional columns of embeddings."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    def nest(shape: Sequence[int]) -> Any:
        return Array(DataType.double if len(shape) == 1 else nest(shape[1:]))

    shapes = {"music": music_shape, "video": video_shape}
    inputs = [ColSpec(nest(shape), side, required=False) for side, shape in shapes.items()]
    outputs = [ColSpec(Array(DataType.double), f"{side}_embedding", required=False) for side in shapes]
    return ModelSignature(Schema(inputs), Schema(outputs))


def _run_id() -> str:
    import mlflow

    run = mlflow.active_run()
    if run is None:
        raise RuntimeError("no active MLflow run")
    return str(run.info.run_id)


KINDS: dict[str, Callable[..., None]] = {
    "parameters": log_values,
    "metrics": log_points,
    "tags": set_tags,
    "file": log_place,
    "model": log_checkpoint,
}
