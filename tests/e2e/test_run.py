"""The whole way, as a person goes it: real media files in, Recall@K out."""

import json
import os
import shutil
import signal
import time

import numpy as np
import pandas as pd
import pytest

from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.features.store import FeatureStore

REPORTING = "data/08_reporting/demo/vmnet_musicnn"


def test_the_table_is_printed_and_everything_is_written(demo_project):
    output = (demo_project.folder / "output.txt").read_text()
    for text in ("music -> video", "R@10", "median rank", "chance", "report.html", "mlflow ui", "kedro viz"):
        assert text in output
    assert "step 14 of 14: vmnet_musicnn.write_report, " in output
    assert "Running node" not in output
    assert output.splitlines()[-1].startswith("Next        kedro run --pipelines=embed,index")
    evaluation = json.loads((demo_project.folder / REPORTING / "evaluation.json").read_text())
    test_ids = (demo_project.folder / "data/05_model_input/demo/test.csv").read_text().split()[1:]
    assert evaluation["pool_size"] == len(test_ids) >= 2
    for direction in ("music_to_video", "video_to_music"):
        recall = evaluation["directions"][direction]["recall"]
        assert {"1", "5", "10", "20", "25", "50", "100"} == set(recall)
    for name in ("recall_curve.png", "rank_histogram.png", "training_curves.png"):
        assert (demo_project.folder / REPORTING / name).read_bytes().startswith(b"\x89PNG")
    report = (demo_project.folder / REPORTING / "report.html").read_text()
    for kind in ("image/png", "image/jpeg", "audio/mpeg"):
        assert f"data:{kind};base64" in report
    for stage in ("ingest_media", "efficientnet.extract_features", "vmnet_musicnn.train_network"):
        assert f"<td>{stage}</td>" in report
    assert "kedro run --params=train.epochs=15" in report
    assert len(report) < 3_000_000
    assert "http://" not in report.replace("http://www.w3.org", "")
    ranks = pd.read_parquet(demo_project.folder / REPORTING / "query_ranks.parquet")
    assert len(ranks) == 2 * len(test_ids)


def test_features_have_the_shapes_of_their_backends(demo_project):
    stores = demo_project.folder / "data/04_feature/demo"
    music, video = FeatureStore(stores / "musicnn"), FeatureStore(stores / "efficientnet")
    assert len(music.done_ids()) == len(video.done_ids()) == 20
    for item_id in music.done_ids():
        assert music.load(item_id).shape[1:] == (200,)
        assert video.load(item_id).shape[1:] == (1280,)
        assert np.load(stores / "efficientnet" / f"{item_id}.npy").shape[0] in (4, 5)


def test_no_group_stands_on_two_sides(demo_project):
    manifest = pd.read_parquet(demo_project.folder / "data/02_intermediate/demo/manifest.parquet").set_index("id")
    sides = {}
    for side in ("train", "val", "test"):
        table = pd.read_csv(demo_project.folder / f"data/05_model_input/demo/{side}.csv", dtype=str)
        assert list(table.columns) == ["id"]
        sides[side] = set(manifest.loc[table["id"], "group"])
    assert not (sides["train"] & sides["test"] or sides["train"] & sides["val"] or sides["val"] & sides["test"])
    assert sum(len(groups) for groups in sides.values()) == manifest["group"].nunique()


def test_mlflow_has_parameters_curves_figures_and_artifacts(demo_project, monkeypatch):
    import mlflow

    monkeypatch.chdir(demo_project.folder)  # places of artifacts are relative to it
    client = mlflow.MlflowClient(f"sqlite:///{demo_project.folder / 'mlflow.db'}")
    (experiment,) = [entry for entry in client.search_experiments() if entry.name == "demo"]
    run = client.search_runs([experiment.experiment_id], order_by=["start_time asc"])[0]
    assert run.info.run_name == "demo · vmnet_musicnn · default · seed 17"
    assert run.data.tags["kind"] == "training"
    assert run.info.status == "FINISHED"
    assert run.data.params["train.epochs"] == "15"
    assert run.data.params["train.loss.margin"] == "0.5"
    assert run.data.tags["split_checksum"].startswith("sha256:")
    evaluation = json.loads((demo_project.folder / REPORTING / "evaluation.json").read_text())
    recall = evaluation["directions"]["music_to_video"]["recall"]["10"]
    assert run.data.metrics["music_to_video/recall_at_10"] == pytest.approx(recall["value"])
    history = json.loads(
        (demo_project.folder / "data/06_models/demo/vmnet_musicnn/checkpoint/training_history.json").read_text()
    )
    curve = client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in curve] == [row["epoch"] for row in history]
    assert [model.name for model in client.search_registered_models()] == ["demo"]
    (version, *_) = client.search_model_versions("name = 'demo'")
    assert {name: version.tags[name] for name in ("variant", "protocol", "seed")} == {
        "variant": "vmnet_musicnn", "protocol": "default", "seed": "17",
    }  # fmt: skip
    names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"report.html", "recall_curve.png", "test.csv", "checkpoint", "evaluation.json"} <= names


def test_a_second_run_does_nothing_again(demo_project):
    features = sorted((demo_project.folder / "data/04_feature").rglob("*.npy"))
    before = [path.stat().st_mtime_ns for path in features]
    weights = demo_project.folder / "data/06_models/demo/vmnet_musicnn/checkpoint/model.safetensors"
    content = weights.read_bytes()
    output = demo_project.kedro("run", "--params", "train.epochs=15")
    assert "musicnn: 20 items, 0 to extract" in output
    assert "efficientnet: 20 items, 0 to extract" in output
    assert "already trained" in output
    assert [path.stat().st_mtime_ns for path in features] == before
    assert weights.read_bytes() == content


def test_missing_outputs_alone_skips_what_is_complete(demo_project):
    output = demo_project.kedro("run", "--pipeline", "extract_musicnn", "--only-missing-outputs")
    assert "extract_features" not in output


def test_pairs_shuffled_on_purpose_are_marked(demo_project):
    demo_project.kedro("run", "--pipeline", "evaluate", "--params", "shuffle_pairs=true")
    evaluation = json.loads((demo_project.folder / REPORTING / "evaluation.json").read_text())
    assert evaluation["shuffled"] is True
    demo_project.kedro("run", "--pipeline", "evaluate")


def test_what_reranking_gains_is_in_the_report_where_it_is_measured(demo_project):
    report = demo_project.folder / REPORTING / "report.html"
    demo_project.kedro("run", "--pipeline", "evaluate", "--params", "evaluate.rerank.n_candidates=3")
    assert "<h2>Re-ranking</h2>" in report.read_text()
    assert "The 3 best results of each query were compared again, in pieces of 3 s." in report.read_text()
    demo_project.kedro("run", "--pipeline", "evaluate")
    assert "<h2>Re-ranking</h2>" not in report.read_text()


def test_a_folder_of_ones_own_with_broken_files_among_the_good(project, tmp_path):
    media = tmp_path / "my clips"
    for k in range(8):
        make_clip(media / f"clip {k}.mp4", seed=k, duration_s=4.0, width=64, height=48)
    (media / "garbage.mp4").write_bytes(os.urandom(5000))
    (media / "empty.webm").write_bytes(b"")
    whole = (media / "clip 0.mp4").read_bytes()
    (media / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    make_clip(media / "silent.mkv", seed=9, duration_s=2.0, width=64, height=48, with_audio=False)
    output = project.kedro("run", "--params", f"media_dir={media},train.epochs=2")
    assert "R@10" in output
    (manifest,) = (project.folder / "data/02_intermediate").glob("*/manifest.parquet")
    rows = pd.read_parquet(manifest)
    assert (rows["status"] == "ok").sum() == 8
    reasons = dict(zip(rows["id"], rows["reason"], strict=True))
    assert reasons["empty"] == "empty_file"
    assert reasons["silent"] == "no_audio_stream"
    assert {reasons["garbage"], reasons["cut"]} <= {"unknown_format", "undecodable_video", "unreadable"}
    assert not (project.folder / "data/04_feature/demo").exists()


def test_killed_in_the_middle_of_extraction_nothing_finished_is_done_again(project, demo_project):
    shutil.copytree(demo_project.folder / "data/01_raw", project.folder / "data/01_raw")
    project.kedro("run", "--pipeline", "ingest")
    store = project.folder / "data/04_feature/demo/efficientnet"
    run = ("run", "--pipeline", "extract_efficientnet", "--params", "extract.batch_size=4,extract.n_workers=1")
    process = project.start(*run)
    deadline = time.monotonic() + 200
    while len(FeatureStore(store).rows) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in store.glob("*.npy")}
    done = FeatureStore(store).done_ids()
    assert len(done) >= 3
    assert not (store / "_index/complete.json").exists()
    output = project.kedro(*run)
    assert f"20 items, {20 - len(done)} to extract" in output
    for item_id in done:
        path = store / f"{item_id}.npy"
        assert path.stat().st_mtime_ns == finished[path]
    for item_id in FeatureStore(store).done_ids():
        expected = FeatureStore(demo_project.folder / "data/04_feature/demo/efficientnet").load(item_id)
        np.testing.assert_allclose(FeatureStore(store).load(item_id), expected, atol=2e-2, rtol=2e-2)
    assert len(FeatureStore(store).done_ids()) == 20


def test_vggish_without_its_weights_says_which_file_from_where_to_where(project, demo_project):
    weights = project.folder / "no weights"
    shutil.copytree(demo_project.folder / "data/01_raw", project.folder / "data/01_raw")
    project.kedro("run", "--pipeline", "ingest")
    output = project.kedro("run", "--pipeline", "extract_vggish", "--params", f"weights_dir={weights}", ok=False)
    for text in ("WeightsError", "vggish-10086976.pth", "https://github.com/harritaylor/torchvggish", str(weights)):
        assert text in output
    assert "Traceback" not in output.split("WeightsError")[-1]


def test_vggish_with_random_weights_runs_whole(project, tmp_path):
    sounds = tmp_path / "sounds"
    for k in range(2):
        make_clip(sounds / f"{k:03d}.wav", seed=k, duration_s=3.0, with_video=False)
    target = tmp_path / "out"
    project.kedro(
        "run", "--pipeline", "extract_vggish", "--params", f"audio_dir={sounds},save_dir={target},weights=random"
    )
    for name in ("000", "001"):
        feature = np.load(target / f"{name}.npy")
        assert feature.shape == (62, 512, 6, 4)
        assert feature.dtype == np.float32
        assert (feature >= 0).all()
    assert FeatureStore(target).fingerprint().settings["weights"] != "pretrained"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("media_dir=/no/such/folder", "There is no folder /no/such/folder"),
        ("train.epochz=3", "--params train.epochz: unknown parameter; did you mean train.epochs?"),
        ("epochs=3", "did you mean train.epochs?"),
        ("train.loss.name=x", "ParameterError: train.loss.name: Input should be 'vmnet' or 'contrastive', not 'x'"),
        ("split.train_share=0.9", "must be 1"),
    ],
)
def test_wrong_parameters_end_at_once_with_one_clear_error(project, params, message):
    output = project.kedro("run", "--params", params, ok=False)
    assert message in output
    assert "extract_features" not in output
    assert output.count("Error") == 1
    assert "previous command" not in output
