"""Gather the inputs of the evaluation report from the steps before it."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from vmnet_pipeline.backends.registry import list_backends
from vmnet_pipeline.experiments.rank_comparison import compare_ranks
from vmnet_pipeline.ingestion.manifest import measure_subsets
from vmnet_pipeline.ingestion.splits import SUBSETS
from vmnet_pipeline.media.thumbnails import PreviewRequest, make_previews
from vmnet_pipeline.models.checkpoints import digest_checkpoint, read_versions
from vmnet_pipeline.params import ExtractParams, IngestParams, Params, SplitParams
from vmnet_pipeline.reporting.comparison import plot_comparison
from vmnet_pipeline.reporting.metric_tables import Comparison
from vmnet_pipeline.reporting.plots import plot_durations
from vmnet_pipeline.reporting.query_examples import choose_queries, list_shown
from vmnet_pipeline.reporting.report import build_report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.figure import Figure

    from vmnet_pipeline.models.checkpoints import Checkpoint
    from vmnet_pipeline.pairs.packing import PairFiles
    from vmnet_pipeline.types import Modality

NO_MEDIA = "These pairs are feature files: there are no media to show or play."
UNREADABLE_MEDIA = "The media of these items can no longer be read: there is nothing to show or play."
OTHER_SETTINGS = ("backend_defaults", "compare", "embed", "index", "tune")
"""Of pipelines that an evaluation does not depend on."""

PROTOCOL = ("pool_size", "n_pools", "similarity", "csls_neighbours", "positives", "ties", "shuffled")
"""What two evaluations must share before their ranks can be compared."""

REPORTED_PACKAGES = (
    "vmnet-pipeline", "kedro", "mlflow", "numpy", "pandas", "torch", "openvino", "tensorflow", "av", "soxr",
)  # fmt: skip

_MODELS: dict[str, type[Params]] = {"ingest": IngestParams, "split": SplitParams, "extract": ExtractParams}


@dataclass(frozen=True, slots=True)
class Evidence:
    """One evaluation and its inputs."""

    evaluation: Mapping[str, Any]  # `Evaluation.to_dict()`
    query_rows: Sequence[Mapping[str, Any]]
    history: Sequence[Mapping[str, Any]]  # one mapping per epoch of training
    checkpoint: Checkpoint
    pairs: PairFiles
    settings: Mapping[str, Any]  # parameters of all pipelines, as plain data
    manifest: pd.DataFrame | None = None  # the collection; None for feature files of the user's own
    summaries: Mapping[str, Mapping[str, Any] | None] | None = None  # of ingest and split
    extractions: Mapping[str, Mapping[str, Any]] | None = None  # summaries by backend
    reranking: Mapping[str, Any] | None = None  # what re-ranking gains; None where it was not measured


def report_evaluation(
    evidence: Evidence,
    plots: Mapping[str, Figure],
    measured: Mapping[str, Any],
    stages: Sequence[Mapping[str, Any]],
) -> str:
    """Build the HTML page about an evaluation; opens the media of its best and worst queries.

    Args:
        plots: Name to figure; those of comparisons and of the collection are added.
        measured: Name of this `variant`; its `comparison`, or None; `evaluation` and `query_rows` of other `variants`.
        stages: Time and memory of each stage.
    """
    comparisons, notes = find_comparisons(evidence, measured)
    summaries, manifest, pairs = evidence.summaries or {}, evidence.manifest, evidence.pairs
    ids, groups = (
        {subset: pairs.subset(subset).ids for subset in SUBSETS},
        dict(zip(pairs.ids, pairs.groups, strict=True)),
    )
    run_info = {
        **describe_run(evidence),
        "sides": measure_subsets(ids, groups, manifest),
        "ingest": summaries.get("ingest"),
        "split": {"doubts": (summaries.get("split") or {}).get("doubts") or []},
        "extraction": evidence.extractions or {},
        "stages": stages,
        "notes": notes,
        "media_note": NO_MEDIA if manifest is None else UNREADABLE_MEDIA,
    }
    own = {comparison.name: plot_comparison(comparison.results) for comparison in comparisons}
    return build_report(
        evidence.evaluation,
        evidence.query_rows,
        evidence.history,
        {**plots, **own, **_plot_collection(manifest)},
        run_info,
        reranking=evidence.reranking,
        comparisons=comparisons,
        previews=None if manifest is None else preview_queries(evidence.query_rows, manifest),
    )


def find_comparisons(evidence: Evidence, measured: Mapping[str, Any]) -> tuple[list[Comparison], list[str]]:
    """Find comparable evaluations, and say which ones are left out and why."""
    evaluation, comparisons, notes = evidence.evaluation, [], []
    alike = {
        name: results["query_rows"]
        for name, results in measured["variants"].items()
        if all(results["evaluation"].get(key) == evaluation.get(key) for key in PROTOCOL)
    }
    left_out = [name for name in measured["variants"] if name not in alike]
    if alike:
        settings = {name: evaluation[name] for name in ("n_resamples", "confidence_level", "seed")}
        variants = compare_ranks({measured["variant"]: evidence.query_rows, **alike}, **settings)
        left_out += variants["left_out"]
        if len(variants["rows"]) > 1:
            comparisons.append(Comparison("variants", "Evaluated on the same test pairs", variants))
    if left_out:
        notes.append(f"Evaluated on other test pairs or by another protocol, not shown: {', '.join(left_out)}.")
    comparison = measured["comparison"]
    if comparison is not None and comparison.get("split_checksum") == evidence.pairs.split_checksum:
        comparisons.append(Comparison("comparison", "Trained with several seeds, with baselines", comparison))
    elif comparison is not None:
        notes.append(
            "The stored comparison used another split; `kedro run --pipeline compare` makes one on this split."
        )
    return comparisons, notes


def describe_run(evidence: Evidence) -> dict[str, Any]:
    """Describe what was evaluated, and how to reproduce it, for `reporting.report.build_report`."""
    checkpoint = evidence.checkpoint
    backends = [part.backend for fingerprint in checkpoint.fingerprints.values() for part in fingerprint.parts]
    left_out = {*OTHER_SETTINGS, *list_backends()} - {*backends}
    settings = {name: _complete(name, value) for name, value in evidence.settings.items() if name not in left_out}
    if checkpoint.params:  # it may have been trained by another run
        settings["train"] = checkpoint.params
    if checkpoint.parts:
        settings["weights of the backends"] = checkpoint.part_weights
    places = [str(place) for name, place in settings["reference"].items() if place is not None and name != "variant"]
    del settings["ingest" if places else "reference"]
    named = " and ".join(backends)
    return {
        "collection": ", ".join(places) or str(settings["ingest"]["media_dir"]),
        "variant": f"VM-NET on {named}" if named else f"VM-NET, {checkpoint.model_config['music_tower']} towers",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "git_revision": checkpoint.git_revision,
        "best_epoch": checkpoint.best_epoch or None,
        "params": settings,
        "versions": {
            "evaluated with": {"system": platform.platform(), "python": platform.python_version()}
            | read_versions(REPORTED_PACKAGES),
            "trained with": checkpoint.versions,
        },
        "identity": {
            "revision": checkpoint.git_revision or "",
            "network": f"sha256:{digest_checkpoint(checkpoint)}",
            "split": evidence.pairs.split_checksum,
            "features": {name: f"sha256:{found.digest}" for name, found in checkpoint.fingerprints.items()},
            "seed": {name: own["seed"] for name, own in settings.items() if isinstance(own, dict) and "seed" in own},
        },
    }


def _complete(name: str, settings: Any) -> Any:
    """Add defaults to the settings of a step; Kedro omits them for steps that are not part of the run."""
    if name not in _MODELS:
        return settings
    try:
        return _MODELS[name].model_validate(settings).model_dump(mode="json")
    except ValidationError:  # of a step that this run does not have
        return settings


def _plot_collection(manifest: pd.DataFrame | None) -> dict[str, Figure]:
    if manifest is None:
        return {}
    usable = manifest[manifest["status"] == "ok"]
    return {"durations": plot_durations({side: usable[f"{side}_duration_s"].tolist() for side in ("audio", "video")})}


def preview_queries(
    query_rows: Sequence[Mapping[str, Any]], manifest: pd.DataFrame
) -> dict[tuple[Modality, str], bytes]:
    """Frames and clips of the best and worst queries and their results, as far as the manifest has them."""
    shown = list_shown(choose_queries(query_rows))
    rows = manifest[manifest["id"].isin([item_id for _, item_id in shown])]
    places = {}
    for side in ("audio", "video"):
        lengths = rows[f"{side}_duration_s"].fillna(0.0)
        for item_id, path, length in zip(rows["id"], rows[f"{side}_path"], lengths, strict=True):
            places[side, item_id] = PreviewRequest(item_id, side, path, length)
    requests = [places[key] for key in shown if key in places and places[key].path]
    return make_previews(requests)
