"""Runs within runs in MLflow, and curves that are whole whatever was interrupted."""

from __future__ import annotations

from typing import Any

import mlflow
import pytest

from sample_evaluation import evaluate_noisy_pairs
from tiny_pairs import draw_pairs, narrow_params
from vmnet_pipeline.pairs.packing import PairFiles
from vmnet_pipeline.params import CompareParams, TuneParams
from vmnet_pipeline.pipelines.compare.nodes import measure_variants
from vmnet_pipeline.pipelines.train.nodes import train_network
from vmnet_pipeline.pipelines.tune.nodes import search_settings
from vmnet_pipeline.tracking import runs as tracking
from vmnet_pipeline.tracking.runs import flatten_metrics
from vmnet_pipeline.types import EpochRecord

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.set_experiment("sweeps")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(before)


def make_pairs():
    import numpy as np

    sides = {"train": draw_pairs(40, 1), "val": draw_pairs(12, 2), "test": draw_pairs(16, 3)}
    parts = sides.values()
    return PairFiles(
        tuple(i for part in parts for i in part.ids), tuple(g for part in parts for g in part.groups),
        np.concatenate([part.music for part in parts]), np.concatenate([part.video for part in parts]),
        {name: len(part) for name, part in sides.items()},
    )  # fmt: skip


def children(client, parent):
    query = f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    runs = client.search_runs([parent.info.experiment_id], query, order_by=["start_time asc"])
    return {run.info.run_name: run for run in runs}


def steps(client, run, name):
    return [point.step for point in client.get_metric_history(run.info.run_id, name)]


@pytest.mark.long
def test_a_comparison_has_a_child_per_variant_and_seed(client, tmp_path):
    params = CompareParams(variants={"plain": {}, "noisy": {"feature_noise": 0.5}}, seeds=(0, 1), n_resamples=20)

    def run():
        with mlflow.start_run() as parent:
            comparison = measure_variants(make_pairs(), tmp_path, narrow_params(epochs=2), params)
            tracking.log_comparison(comparison)
        return client.get_run(parent.info.run_id), comparison

    for _ in ("trained", "taken from the states"):
        parent, comparison = run()
        found = children(client, parent)
        assert set(found) == {f"{name}, seed {seed}" for name in ("plain", "noisy") for seed in (0, 1)}
        noisy = found["noisy, seed 1"]
        assert noisy.info.status == "FINISHED"
        assert noisy.data.params["train.feature_noise"] == "0.5"
        for name in ("train/loss", "train/ranking_xy", "train/grad_norm", "train/val_recall_at_10_xy"):
            assert steps(client, noisy, name) == [1, 2]
        assert noisy.data.metrics["both/mrr"] == pytest.approx(comparison["rows"][2]["per_seed"]["both/mrr"][1])
        assert parent.data.metrics["noisy/both/mrr"] == comparison["rows"][2]["figures"]["both/mrr"]["value"]
        assert "cca/both/recall_at_10_low" in parent.data.metrics


@pytest.mark.long
def test_a_search_has_a_child_per_trial(client, tmp_path):
    params = TuneParams(space={"learning_rate": {"low": 1e-4, "high": 1e-2}}, fixed={}, n_trials=2)
    with mlflow.start_run() as parent:
        tuning, trials, settings = search_settings(make_pairs(), tmp_path, narrow_params(epochs=2), params)
    found = children(client, parent)
    assert list(found) == ["trial 0", "trial 1"]
    value = tuning["trials"][1]["values"]["learning_rate"]
    assert float(found["trial 1"].data.params["train.learning_rate"]) == value
    assert found["trial 1"].data.metrics["objective"] == tuning["trials"][1]["value"]
    assert trials["learning_rate"][1] == value
    assert settings.startswith("# Trial")


def test_an_ensemble_has_a_child_per_member_and_one_checkpoint(client, tmp_path):
    with mlflow.start_run() as parent:
        checkpoint, history = train_network(make_pairs(), tmp_path / "state", narrow_params(epochs=2, n_members=2))
    found = children(client, parent)
    assert list(found) == ["member 1", "member 2"]
    assert steps(client, found["member 2"], "train/loss") == [1, 2]
    assert checkpoint.model_config["n_members"] == 2
    assert [(row["member"], row["epoch"]) for row in history] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert (tmp_path / "logs/member_2/train/events.out.tfevents.train").exists()


def test_a_network_alone_is_logged_in_the_run_itself(client, tmp_path):
    with mlflow.start_run() as parent:
        _, history = train_network(make_pairs(), tmp_path / "state", narrow_params(epochs=2))
    assert not children(client, parent)
    assert steps(client, parent, "train/loss") == [1, 2]
    assert "member" not in history[0]


def test_what_was_logged_live_is_not_logged_twice(client):
    records = [EpochRecord(epoch, epoch, {"total": 1.0 / epoch}, 1.0, 0.1, {}, 0.5) for epoch in range(1, 401)]
    with mlflow.start_run() as run:
        log = tracking.RunLog()
        log.add(records[399])
        log.finish(records)
    points = steps(client, run, "train/loss")
    assert sorted(points) == list(range(1, 401))


def test_without_a_run_nothing_is_logged():

    assert mlflow.active_run() is None
    with tracking.child_run("alone", {"train": narrow_params()}) as log:
        log.add(EpochRecord(1, 1, {"total": 1.0}, 1.0, 0.1, {}, 0.5))
        log.metrics({"both/mrr": 0.5})
    assert mlflow.active_run() is None


def test_pools_hubs_and_ndcg_are_logged(evaluation: dict[str, Any]) -> None:
    figures = flatten_metrics(evaluation)
    there = evaluation["directions"]["music_to_video"]
    assert figures["music_to_video/ndcg_low"] == there["ndcg"]["low"]
    assert figures["music_to_video/hubs_max"] == there["hubness"]["max"]
    assert not any("_in_" in name for name in figures)
    pooled = evaluate_noisy_pairs(n=60, pool_sizes=(20,)).to_dict()
    recall = pooled["directions"]["video_to_music"]["pools"]["20"]["recall"]["5"]
    assert flatten_metrics(pooled)["video_to_music/recall_at_5_in_20_high"] == recall["high"]
    assert all(isinstance(value, float) for value in flatten_metrics(pooled).values())
