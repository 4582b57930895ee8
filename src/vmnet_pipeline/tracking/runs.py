"""Log to MLflow: training curves as they grow, and datasets that the catalog marks with `metadata: mlflow`.

MLflow's exceptions are not raised: the run continues without it, see `pending`. The same scalars go into TensorBoard
event files next to the checkpoint.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.tracking.event_files import append_event, write_events
from vmnet_pipeline.tracking.pending import TRACKER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from vmnet_pipeline.types import EpochRecord


def name_scalars(record: EpochRecord) -> dict[str, float]:
    """Name the scalars of one epoch for MLflow and TensorBoard, e.g. `train/loss`."""
    return {f"train/{name}": value for name, value in record.to_row().items() if name != "epoch"}


class EventLog:
    """The TensorBoard event file of one training: it grows with the epochs and is whole at the end."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "train" / "events.out.tfevents.train"

    def add(self, record: EpochRecord) -> None:
        """Add one epoch; the first one overwrites the file."""
        if record.epoch == 1 or not self._path.exists():
            write_events(self._path, [])
        append_event(self._path, record.epoch, name_scalars(record))

    def finish(self, history: Sequence[EpochRecord]) -> None:
        """Write the whole history, epochs of interrupted runs included."""
        write_events(self._path, [(record.epoch, name_scalars(record)) for record in history])


class RunLog:
    """The curves of one training in the active MLflow run: live while it runs, complete at its end."""

    def __init__(self) -> None:
        self._logged: set[int] = set()

    def add(self, record: EpochRecord) -> None:
        """Log an epoch as soon as it is done."""
        log_metrics(name_scalars(record), record.epoch)
        self._logged.add(record.epoch)

    def finish(self, history: Sequence[EpochRecord]) -> None:
        """Log the epochs of an earlier, interrupted run, so that the curves of this run are complete."""
        log_history([record for record in history if record.epoch not in self._logged])

    def metrics(self, metrics: Mapping[str, float]) -> None:
        """Log results by name."""
        log_metrics(metrics)


@contextmanager
def child_run(name: str, parameters: Mapping[str, Any]) -> Iterator[RunLog]:
    """Open a run nested in the active one, with its own parameters and curves; without an active run log nothing."""
    with TRACKER.child(name):
        log_parameters(parameters)
        set_tags({"kind": "part", **_tag_training(parameters)})
        yield RunLog()


def _tag_training(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Variant, protocol and seed of a training among others, as far as the parameters have them."""
    train = parameters.get("train")
    found = {name: getattr(train, name, None) for name in ("protocol", "seed")} | {"variant": parameters.get("variant")}
    return {name: str(value) for name, value in found.items() if value is not None}


def log_metrics(metrics: Mapping[str, float], step: int = 0) -> None:
    """Log scalars by name."""
    _send_points([(name, value, step) for name, value in metrics.items()])


def log_history(history: Sequence[EpochRecord]) -> None:
    """Log many epochs in few requests."""
    _send_points([(*scalar, record.epoch) for record in history for scalar in name_scalars(record).items()])


def _send_points(points: Sequence[tuple[str, float, int]]) -> None:
    now_ms = int(time.time() * 1000)
    if points:
        TRACKER.send("metrics", points=[[name, float(value), now_ms, step] for name, value, step in points])


def log_parameters(parameters: Mapping[str, Any]) -> None:
    """Log resolved parameters, flattened to names like `train.loss.margin`."""
    from vmnet_pipeline.params import flatten_settings

    flat = {name: str(value) for name, value in flatten_settings(parameters).items()}
    if flat:
        TRACKER.send("parameters", values=flat)


def log_comparison(comparison: Mapping[str, Any]) -> None:
    """Log the metrics of all rows of a comparison, e.g. `best/both/mrr`, with the ends of their intervals."""
    metrics: dict[str, float] = {}
    for row in comparison["rows"]:
        name = row["name"].replace(" ", "_")
        if row["val_mrr"]:
            metrics[f"{name}/val_mrr"] = sum(row["val_mrr"]) / len(row["val_mrr"])
        metrics |= _flatten_estimates(name, row["figures"])
    log_metrics(metrics)


def write_evaluation(folder: Path, evaluation: Mapping[str, Any], step: int) -> None:
    """Write the metrics of an evaluation into a TensorBoard event file."""
    write_events(folder / "evaluate" / "events.out.tfevents.evaluate", [(step, flatten_metrics(evaluation))])


def flatten_metrics(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Flatten the retrieval metrics of an evaluation, e.g. `music_to_video/recall_at_10_low`; omit missing values."""
    metrics: dict[str, float] = {"pool_size": float(evaluation["pool_size"])}
    for direction, content in evaluation["directions"].items():
        named = {f"recall_at_{k}": estimate for k, estimate in content["recall"].items()}
        named |= {name: content[name] for name in ("median_rank", "mrr", "mean_average_precision", "ndcg")}
        for size, pool in content["pools"].items():
            named |= {f"recall_at_{k}_in_{size}": estimate for k, estimate in pool["recall"].items()}
        metrics |= {f"{direction}/hubs_{name}": value for name, value in content["hubness"].items()}
        metrics |= _flatten_estimates(direction, named)
    return metrics


def _flatten_estimates(prefix: str, estimates: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    """Give the value of an estimate its name, and the other parts (`low`, `high`, `chance`) a suffix."""
    return {
        f"{prefix}/{name}" + ("" if part == "value" else f"_{part}"): value
        for name, estimate in estimates.items()
        for part, value in estimate.items()
        if value is not None
    }


def log_model(
    folder: Path, music_shape: Sequence[int], video_shape: Sequence[int], name: str, tags: Mapping[str, str]
) -> None:
    """Register a checkpoint as a model, so that `mlflow models serve` can run it; every training adds a version.

    Shapes are those of one feature as the network takes it; of sequences (most steps, D). The version gets the tags.
    """
    shapes = {"music_shape": list(music_shape), "video_shape": list(video_shape)}
    TRACKER.send("model", place=str(folder), name=name, tags=dict(tags), **shapes)


def log_file(path: Path) -> None:
    """Log a file, or a folder as a whole."""
    TRACKER.send("file", place=str(path))


def set_tags(tags: Mapping[str, str]) -> None:
    """Set tags on the active run, e.g. the checksum of the split."""
    if tags:
        TRACKER.send("tags", values=dict(tags))
