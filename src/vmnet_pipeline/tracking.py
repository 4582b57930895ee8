"""What goes to MLflow: the curves of training as they grow, and what the catalog marks with `metadata: mlflow`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from vmnet_pipeline.records import EpochRecord

MAX_VALUE_LENGTH = 500


def has_active_run() -> bool:
    """Whether there is an MLflow run to log to."""
    import mlflow

    return mlflow.active_run() is not None


def log_epoch(record: EpochRecord) -> None:
    """Log the figures of one epoch, if a run is active."""
    import mlflow

    if has_active_run():
        figures = {f"train/{name}": value for name, value in record.to_row().items() if name != "epoch"}
        mlflow.log_metrics(figures, step=record.epoch)


def log_epochs(records: Iterable[EpochRecord]) -> None:
    """Log epochs that an interrupted run had done, so that the curves of this run are whole."""
    for record in records:
        log_epoch(record)


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

    if not has_active_run():
        return
    figures: dict[str, float] = {"pool_size": float(evaluation["pool_size"])}
    for direction, content in evaluation["directions"].items():
        named = {f"recall_at_{k}": figure for k, figure in content["recall"].items()}
        named |= {name: content[name] for name in ("median_rank", "mrr", "mean_average_precision")}
        for name, figure in named.items():
            for part in ("value", "low", "high", "chance"):
                if figure[part] is not None:
                    figures[f"{direction}/{name}" + ("" if part == "value" else f"_{part}")] = figure[part]
    mlflow.log_metrics(figures)


def log_file(path: Path) -> None:
    """Log a file, or a folder as a whole."""
    import mlflow

    if not has_active_run():
        return
    if path.is_dir():
        mlflow.log_artifacts(str(path), artifact_path=path.name)
    elif path.exists():
        mlflow.log_artifact(str(path))


def set_tags(tags: Mapping[str, str]) -> None:
    """Set tags on the active run, e.g. the checksum of the split."""
    import mlflow

    if tags and has_active_run():
        mlflow.set_tags(dict(tags))
