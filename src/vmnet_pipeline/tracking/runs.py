"""What goes to MLflow: the curves of training as they grow, and what the catalog marks with `metadata: mlflow`.

The same scalars go into TensorBoard event files beside the checkpoint.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.storage.paths import local_copy
from vmnet_pipeline.tracking.event_files import append_event, write_events

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vmnet_pipeline.types import EpochRecord

MAX_VALUE_LENGTH = 500


def has_active_run() -> bool:
    """Whether there is an MLflow run to log to."""
    import mlflow

    return mlflow.active_run() is not None


def name_figures(record: EpochRecord) -> dict[str, float]:
    """The scalars of one epoch by the names that MLflow and TensorBoard have, e.g. `train/loss`."""
    return {f"train/{name}": value for name, value in record.to_row().items() if name != "epoch"}


class EventLog:
    """The TensorBoard event file of one training: it grows with the epochs and is whole at the end."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "train" / "events.out.tfevents.train"

    def add(self, record: EpochRecord) -> None:
        """Add one epoch; the first one begins the file anew."""
        if record.epoch == 1 or not self._path.exists():
            write_events(self._path, [])
        append_event(self._path, record.epoch, name_figures(record))

    def finish(self, history: Sequence[EpochRecord]) -> None:
        """Write the whole history, those epochs included that an interrupted run had done."""
        write_events(self._path, [(record.epoch, name_figures(record)) for record in history])


class RunLog:
    """The curves of one training in the active MLflow run: live while it runs, whole at its end."""

    def __init__(self) -> None:
        self._logged: set[int] = set()

    def add(self, record: EpochRecord) -> None:
        """Log an epoch as soon as it is done."""
        import mlflow

        if has_active_run():
            mlflow.log_metrics(name_figures(record), step=record.epoch)
        self._logged.add(record.epoch)

    def finish(self, history: Sequence[EpochRecord]) -> None:
        """Log the epochs that an earlier, interrupted run had done, so that the curves of this run are whole."""
        log_history([record for record in history if record.epoch not in self._logged])

    def figures(self, figures: Mapping[str, float]) -> None:
        """Log results by name."""
        import mlflow

        if has_active_run():
            mlflow.log_metrics(dict(figures))


@contextmanager
def child_run(name: str, parameters: Mapping[str, Any]) -> Iterator[RunLog]:
    """A run within the active one, for one seed of a sweep, with parameters and curves of its own.

    Without an active run nothing is logged.
    """
    import mlflow

    if not has_active_run():
        yield RunLog()
        return
    with mlflow.start_run(run_name=name, nested=True):
        log_parameters(parameters)
        yield RunLog()


def log_history(history: Sequence[EpochRecord]) -> None:
    """Log many epochs in few requests."""
    import time

    import mlflow
    from mlflow.entities import Metric

    run = mlflow.active_run()
    if run is None:
        return
    now_ms = int(time.time() * 1000)
    metrics = [
        Metric(name, value, now_ms, record.epoch) for record in history for name, value in name_figures(record).items()
    ]
    mlflow.MlflowClient().log_batch(run.info.run_id, metrics=metrics)


def log_parameters(parameters: Mapping[str, Any]) -> None:
    """Log resolved parameters, flattened to names like `train.loss.margin`."""
    import mlflow

    flat = {name: str(value)[:MAX_VALUE_LENGTH] for name, value in flatten_parameters(parameters).items()}
    if flat and has_active_run():
        mlflow.log_params(flat)


def flatten_parameters(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings and parameter models to one level, names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        content = value.model_dump() if _is_model(value) else value
        if isinstance(content, dict):
            flat |= flatten_parameters(content, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = content
    return flat


def _is_model(value: Any) -> bool:
    from pydantic import BaseModel

    return isinstance(value, BaseModel)


def log_figures(evaluation: Mapping[str, Any]) -> None:
    """Log the retrieval figures with the ends of their intervals, e.g. `music_to_video/recall_at_10`."""
    import mlflow

    if has_active_run():
        mlflow.log_metrics(list_figures(evaluation))


def log_comparison(comparison: Mapping[str, Any]) -> None:
    """Log the figures of all rows of a comparison, e.g. `best/both/mrr`, with the ends of their intervals."""
    import mlflow

    figures: dict[str, float] = {}
    for row in comparison["rows"]:
        name = row["name"].replace(" ", "_")
        figures[f"{name}/val_mrr"] = sum(row["val_mrr"]) / len(row["val_mrr"])
        for metric, figure in row["figures"].items():
            for part in ("value", "low", "high"):
                if figure[part] is not None:
                    figures[f"{name}/{metric}" + ("" if part == "value" else f"_{part}")] = figure[part]
    if has_active_run():
        mlflow.log_metrics(figures)


def write_figures(folder: Path, evaluation: Mapping[str, Any], step: int) -> None:
    """Write the same figures into a TensorBoard event file."""
    write_events(folder / "evaluate" / "events.out.tfevents.evaluate", [(step, list_figures(evaluation))])


def list_figures(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The retrieval figures of an evaluation on one level; those without a value are left out."""
    figures: dict[str, float] = {"pool_size": float(evaluation["pool_size"])}
    for direction, content in evaluation["directions"].items():
        named = {f"recall_at_{k}": figure for k, figure in content["recall"].items()}
        named |= {name: content[name] for name in ("median_rank", "mrr", "mean_average_precision", "ndcg")}
        for size, pool in content["pools"].items():
            named |= {f"recall_at_{k}_in_{size}": figure for k, figure in pool["recall"].items()}
        figures |= {f"{direction}/hubs_{name}": value for name, value in content["hubness"].items()}
        for name, figure in named.items():
            for part in ("value", "low", "high", "chance"):
                if figure[part] is not None:
                    figures[f"{direction}/{name}" + ("" if part == "value" else f"_{part}")] = figure[part]
    return figures


def log_model(folder: Path, music_shape: Sequence[int], video_shape: Sequence[int], name: str) -> None:
    """Register a checkpoint as a model with a signature, so that `mlflow models serve` can run it.

    Args:
        folder: The checkpoint.
        music_shape: Shape of one music feature as the network takes it; of sequences (most steps, D).
        video_shape: The same of video.
        name: Registered name; every training adds a version.
    """
    import warnings

    import mlflow

    import vmnet_pipeline
    from vmnet_pipeline.models.checkpoints import read_versions

    if not has_active_run():
        return
    package = Path(vmnet_pipeline.__file__).parent
    versions = read_versions(("mlflow", "numpy", "pandas", "torch", "safetensors", "pydantic"))
    with local_copy(folder) as local, warnings.catch_warnings():
        # The signature is given, so an example of the input would tell nothing more.
        warnings.filterwarnings("ignore", message="(?s).*input example was not provided")
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(package / "tracking" / "served_model.py"),
            artifacts={"checkpoint": str(local)},
            code_paths=[str(package)],
            signature=make_signature(music_shape, video_shape),
            registered_model_name=name,
            pip_requirements=[f"{required}=={version.partition('+')[0]}" for required, version in versions.items()],
        )


def make_signature(music_shape: Sequence[int], video_shape: Sequence[int]) -> Any:
    """Optional columns `music` and `video` of nested lists to optional columns of embeddings."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    def nest(shape: Sequence[int]) -> Any:
        return Array(DataType.double if len(shape) == 1 else nest(shape[1:]))

    inputs = [
        ColSpec(nest(shape), name, required=False) for name, shape in (("music", music_shape), ("video", video_shape))
    ]
    outputs = [ColSpec(Array(DataType.double), f"{name}_embedding", required=False) for name in ("music", "video")]
    return ModelSignature(Schema(inputs), Schema(outputs))


def log_file(path: Path) -> None:
    """Log a file, or a folder as a whole."""
    import mlflow

    if not has_active_run():
        return
    with local_copy(path) as local:
        if local.is_dir():
            mlflow.log_artifacts(str(local), artifact_path=path.name)
        elif local.exists():
            mlflow.log_artifact(str(local))


def set_tags(tags: Mapping[str, str]) -> None:
    """Set tags on the active run, e.g. the checksum of the split."""
    import mlflow

    if tags and has_active_run():
        mlflow.set_tags(dict(tags))
