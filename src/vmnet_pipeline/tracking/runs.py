"""Log to MLflow: training curves as they grow, and datasets that the catalog marks with `metadata: mlflow`.

Nothing here raises what MLflow raises: a run goes on without it, see `pending`. The same scalars go into TensorBoard
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


def name_figures(record: EpochRecord) -> dict[str, float]:
    """The scalars of one epoch by the names that MLflow and TensorBoard have, e.g. `train/loss`."""
    return {f"train/{name}": value for name, value in record.to_row().items() if name != "epoch"}


class EventLog:
    """The TensorBoard event file of one training: it grows with the epochs and is whole at the end."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "train" / "events.out.tfevents.train"

    def add(self, record: EpochRecord) -> None:
        """Add one epoch; the first one overwrites the file."""
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
        log_metrics(name_figures(record), record.epoch)
        self._logged.add(record.epoch)

    def finish(self, history: Sequence[EpochRecord]) -> None:
        """Log the epochs that an earlier, interrupted run had done, so that the curves of this run are whole."""
        log_history([record for record in history if record.epoch not in self._logged])

    def metrics(self, figures: Mapping[str, float]) -> None:
        """Log results by name."""
        log_metrics(figures)


@contextmanager
def child_run(name: str, parameters: Mapping[str, Any]) -> Iterator[RunLog]:
    """A run within the active one, for one seed of a sweep, with parameters and curves of its own.

    Without an active run nothing is logged.
    """
    with TRACKER.child(name):
        log_parameters(parameters)
        yield RunLog()


def log_metrics(figures: Mapping[str, float], step: int = 0) -> None:
    """Log scalars by name."""
    now_ms = int(time.time() * 1000)
    if figures:
        TRACKER.send("metrics", points=[[name, float(value), now_ms, step] for name, value in figures.items()])


def log_history(history: Sequence[EpochRecord]) -> None:
    """Log many epochs in few requests."""
    now_ms = int(time.time() * 1000)
    points = [
        [name, float(value), now_ms, record.epoch] for record in history for name, value in name_figures(record).items()
    ]
    if points:
        TRACKER.send("metrics", points=points)


def log_parameters(parameters: Mapping[str, Any]) -> None:
    """Log resolved parameters, flattened to names like `train.loss.margin`."""
    from vmnet_pipeline.params import flatten_settings

    flat = {name: str(value) for name, value in flatten_settings(parameters).items()}
    if flat:
        TRACKER.send("parameters", values=flat)


def log_figures(evaluation: Mapping[str, Any]) -> None:
    """Log the retrieval figures with the ends of their intervals, e.g. `music_to_video/recall_at_10`."""
    log_metrics(list_figures(evaluation))


def log_comparison(comparison: Mapping[str, Any]) -> None:
    """Log the figures of all rows of a comparison, e.g. `best/both/mrr`, with the ends of their intervals."""
    figures: dict[str, float] = {}
    for row in comparison["rows"]:
        name = row["name"].replace(" ", "_")
        figures[f"{name}/val_mrr"] = sum(row["val_mrr"]) / len(row["val_mrr"])
        for metric, figure in row["figures"].items():
            for part in ("value", "low", "high"):
                if figure[part] is not None:
                    figures[f"{name}/{metric}" + ("" if part == "value" else f"_{part}")] = figure[part]
    log_metrics(figures)


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
    shapes = {"music_shape": list(music_shape), "video_shape": list(video_shape)}
    TRACKER.send("model", place=str(folder), name=name, **shapes)


def log_file(path: Path) -> None:
    """Log a file, or a folder as a whole."""
    TRACKER.send("file", place=str(path))


def set_tags(tags: Mapping[str, str]) -> None:
    """Set tags on the active run, e.g. the checksum of the split."""
    if tags:
        TRACKER.send("tags", values=dict(tags))
