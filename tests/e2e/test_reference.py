"""What users of the reference have, features and checkpoints, goes through the commands."""

import json
import shutil

import numpy as np

from reference_data import make_reference_data
from vmnet_pipeline.models.checkpoints import load_checkpoint


def read_evaluation(folder):
    (path,) = folder.rglob("evaluation.json")
    return json.loads(path.read_text())


def test_ones_own_features_are_trained_on_and_tested_without_media(project, tmp_path):
    data = make_reference_data(tmp_path / "old", separator="\t")
    output = project.kedro(
        "run", "--pipelines=train,evaluate", "--params", f"pairs_dir={data},train.epochs=8,train.batch_size=8"
    )
    assert "R@10" in output
    assert "Using your own feature files with vmnet_musicnn" in output
    (collection,) = (project.folder / "data/06_models").glob("old-*")
    assert load_checkpoint(collection / "vmnet_musicnn/checkpoint").model_config["video_shape"] == [30]
    assert not (project.folder / "data/02_intermediate").exists()
    first = read_evaluation(project.folder / "data/08_reporting")
    report = (project.folder / "data/08_reporting" / collection.name / "vmnet_musicnn/report.html").read_text()
    assert f"pairs_dir={data}" in report
    assert "no media to show" in report
    assert first["pool_size"] == 10
    assert list((collection / "vmnet_musicnn/logs").rglob("events.out.tfevents.*"))

    # The same checkpoint, moved, tests the same: without training, and without reading the features again.
    moved = tmp_path / "moved"
    shutil.move(collection / "vmnet_musicnn/checkpoint", moved)
    output = project.kedro("run", "--pipeline", "evaluate", "--params", f"pairs_dir={data},checkpoint={moved}")
    assert "is packed already" in output
    assert "train_network" not in output
    assert read_evaluation(project.folder / "data/08_reporting")["directions"] == first["directions"]

    # An evaluation alone reads the test side alone.
    shutil.rmtree(project.folder / "data/05_model_input")
    first_file = data / "train/audio/000.npy"
    content = first_file.read_bytes()
    first_file.write_bytes(b"garbage")
    project.kedro("run", "--pipeline", "evaluate", "--params", f"pairs_dir={data},checkpoint={moved}")
    (packed,) = (project.folder / "data/05_model_input").rglob("pairs.json")
    assert json.loads(packed.read_text())["sizes"] == {"train": 0, "val": 0, "test": 10}
    output = project.kedro("run", "--pipelines=train,evaluate", "--params", f"pairs_dir={data}", ok=False)
    assert "000.npy is not a readable" in output
    first_file.write_bytes(content)

    # A run that would overwrite it, and features of another width, are refused before anything runs.
    output = project.kedro(
        "run", "--pipelines=train,evaluate", "--params", f"pairs_dir={data},checkpoint={moved}", ok=False
    )
    assert "ParameterError" in output
    assert "would overwrite it" in output
    for path in data.rglob("video/*.npy"):
        np.save(path, np.load(path)[:, :29])
    output = project.kedro(
        "run", "--pipeline", "evaluate", "--params", f"pairs_dir={data},checkpoint={moved}", ok=False
    )
    assert "CheckpointError: the checkpoint takes video features of shape (30,)" in output
    assert "Traceback" not in output
    assert "step 1 of" not in output


def test_the_protocol_of_the_reference_with_places_one_by_one(project, tmp_path):
    data = make_reference_data(tmp_path / "old", kind="pooled_vggish", n_train=16, n_test=10)
    summaries = tmp_path / "summaries"
    places = ",".join(f"{side}_data_dir={data / side},{side}_csv_path={data / side}.csv" for side in ("train", "test"))
    params = f"{places},summaries_dir={summaries},train.protocol=reference,evaluate.pool_size=4"
    run = ("run", "--pipelines=train,evaluate", "--params")
    output = project.kedro(*run, f"{params},train.epochs=2", ok=False)
    assert "16 training items do not fill one batch of 1024" in output
    project.kedro(*run, f"{params},train.epochs=2,train.batch_size=8")
    checkpoint = load_checkpoint(summaries / "vmnet_vggish/checkpoint")
    assert checkpoint.model_config["music_shape"] == [62, 512]
    assert checkpoint.model_config["standardise"] is False
    assert checkpoint.best_epoch == 2
    assert checkpoint.params["loss"]["top_k"] == 1024
    evaluation = read_evaluation(summaries)
    assert (evaluation["pool_size"], evaluation["n_pools"], evaluation["ties"]) == (4, 2, "lower index")
    history = json.loads((summaries / "vmnet_vggish/checkpoint/training_history.json").read_text())
    assert [row["steps"] for row in history] == [2, 4]
    assert not any(name.startswith("val_") for name in history[0])
    assert (summaries / "vmnet_vggish/logs/train/events.out.tfevents.train").exists()
    assert (summaries / "vmnet_vggish/report.html").exists()

    # Curves and checkpoints between steps, and a training that goes on from one of these.
    kept = "train.batch_size=8,train.curve_every_steps=1,train.keep_every_steps=2"
    project.kedro("run", "--pipelines=train", "--params", f"{params},train.epochs=2,{kept}")
    folder = summaries / "vmnet_vggish"
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-2", "step-4"]
    last, step = load_checkpoint(folder / "checkpoint"), load_checkpoint(folder / "checkpoints/step-4")
    assert step.params["step"] == 4
    assert all((step.tensors[name] == tensor).all() for name, tensor in last.tensors.items())
    log = (folder / "log.txt").read_text()
    assert [log.count(word) for word in ("[iter 4]", "[TEST iter 4]", "[Checkpoint at step 4 saved]")] == [1, 1, 1]
    assert all(list((folder / "logs/original" / side).glob("events.out.tfevents.*")) for side in ("train", "test"))
    start = f"train.start_from={folder / 'checkpoints/step-2'}"
    project.kedro("run", "--pipelines=train", "--params", f"{params},train.epochs=1,{kept},{start}")
    tested = f"{params},checkpoint={folder / 'checkpoints/step-2'}"
    project.kedro("run", "--pipeline", "evaluate", "--params", tested)


def test_an_imported_checkpoint_is_tested(project, tmp_path, reference_checkpoints):
    output = project.kedro("import-checkpoint", str(reference_checkpoints / "musicnn"), "--output", "imported")
    assert "variant vmnet_musicnn, music (500,), video (2048,), 3 and 2 layers: imported" in output
    data = tmp_path / "test only"
    rng = np.random.default_rng(0)
    for modality, width in (("audio", 500), ("video", 2048)):
        (data / "test" / modality).mkdir(parents=True)
        for k in range(12):
            np.save(data / "test" / modality / f"{k:03d}.npy", rng.random((3 + k % 2, width), dtype=np.float32))
    (data / "test.csv").write_text("id\n" + "".join(f"{k:03d}\n" for k in range(12)))
    project.kedro("run", "--pipeline", "evaluate", "--params", f"pairs_dir={data},checkpoint=imported")
    assert read_evaluation(project.folder / "data/08_reporting")["n_items"] == 12

    # It is trained on from where the original stopped: with its optimiser and its step.
    shutil.copytree(data / "test", data / "train")
    shutil.copy(data / "test.csv", data / "train.csv")
    with (data / "test.csv").open("w") as table:
        table.write("id\n000\n001\n")
    with (data / "train.csv").open("w") as table:
        table.write("id\n" + "".join(f"{k:03d}\n" for k in range(2, 12)))
    settings = "train.protocol=reference,train.epochs=1,train.batch_size=5"
    start = f"train.start_from={reference_checkpoints / 'musicnn'}"
    project.kedro("run", "--pipelines=train", "--params", f"pairs_dir={data},{settings},{start}")
    (history,) = (project.folder / "data/06_models").rglob("training_history.json")
    (row,) = json.loads(history.read_text())
    assert (row["steps"], row["lr"]) == (1802, 3e-4 * 0.96)


def test_a_wrong_place_ends_at_once_with_one_clear_error(project):
    output = project.kedro("run", "--params", "pairs_dir=/no/such/folder", ok=False)
    assert "PairsError: There is no folder /no/such/folder" in output
    assert "Traceback" not in output
