"""A person with media and pretrained encoders, and no training: as typed, with tiny random models of CLAP and CLIP."""

import json

import pytest

from vmnet_pipeline.demo import DemoSpec, make_demo_collection
from vmnet_pipeline.models.checkpoints import load_checkpoint

pytest.importorskip("transformers")
from tiny_encoders import save_tiny

pytestmark = pytest.mark.slow

PARAMETERS = """
clap: {model: clap, window_s: 2.0}
clip: {model: clip}
"""
PAIR = "weights_dir=models,music=clap,video=clip"
ZERO_SHOT = f"variant=zero_shot,{PAIR}"


def read_json(output):
    return json.loads(output[output.index("{\n") :])


def save_models(project):
    for name in ("clap", "clip"):
        save_tiny(name, project.folder / "models/encoders" / name)
    (project.folder / "conf/local/parameters.yml").write_text(PARAMETERS)


def test_all_steps_run_without_training_and_training_starts_there(project):
    save_models(project)
    media = project.folder / "data/01_raw/demo"
    make_demo_collection(media, DemoSpec(n_pairs=20, min_duration_s=4, max_duration_s=5))

    output = project.kedro("run", "--params", ZERO_SHOT)
    assert "Retrieval of" in output
    place = project.folder / "data/06_models/demo/zero_shot/checkpoint"
    start = load_checkpoint(place)
    assert start.best_epoch == 0 and start.model_config["music_tower"] == "projection"
    assert len(start.params["zero_shot"]["anchors"]) == start.model_config["embedding_dim"]
    assert "epoch 1" not in output

    project.kedro("run", "--pipelines=embed,index", "--params", ZERO_SHOT)
    video = sorted((media / "video").iterdir())[0]
    options = ("--variant", "zero_shot", "--weights-dir", "models")
    found = read_json(project.kedro("recommend", str(video), *options, "--top-k", "3", "--json"))
    assert len(found["results"]) == 3
    words = [read_json(project.kedro("recommend", "--text", text, *options, "--json")) for text in ("calm", "not calm")]
    first, last = ([item["id"] for item in found["results"]] for found in words)
    assert first == last[::-1] and len(first) == 10 or set(first) != set(last)
    assert words[0]["direction"] == "text_to_music" and "Taken" not in words[0]["remark"]

    trained = project.kedro("run", "--pipeline", "train", "--params", f"{PAIR},train.epochs=1,train.start_from={place}")
    assert "train_network" in trained
    kept = load_checkpoint(project.folder / "data/06_models/demo/clap-clip/checkpoint")
    assert kept.model_config["music_tower"] == "projection"

    settings = f"{PAIR},train.epochs=1,compare.n_resamples=50,compare.baselines=[chance]"
    project.kedro("run", "--pipeline", "compare", "--params", settings)
    comparison = json.loads((project.folder / "data/08_reporting/demo/clap-clip/comparison.json").read_text())
    assert [row["name"] for row in comparison["rows"] if row["kind"] == "baseline"] == ["chance", "zero-shot"]


def test_the_network_needs_no_media_at_all(project):
    save_models(project)
    project.kedro("run", "--pipeline", "train", "--params", ZERO_SHOT)
    assert load_checkpoint(project.folder / "data/06_models/demo/zero_shot/checkpoint").fingerprints
    output = project.kedro(
        "run",
        "--pipeline",
        "train",
        "--params",
        "weights_dir=models,variant=zero_shot,music=descriptors_audio,video=clip",
        ok=False,
    )
    assert "'descriptors_audio' of music has no space that it shares with text" in output
    output = project.kedro("run", "--pipeline", "train", "--params", "variant=zero_shot", ok=False)
    assert "music=BACKEND,video=BACKEND" in output
