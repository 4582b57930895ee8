"""A person with media and pretrained encoders, and no training: as typed, with tiny random models of CLAP and CLIP."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from vmnet_pipeline.cli import cli
from vmnet_pipeline.demo import DemoSpec, make_clip, make_demo_collection
from vmnet_pipeline.models.checkpoints import load_checkpoint

pytest.importorskip("transformers", reason="the extra [encoders] is not installed; the lock has it")
from tiny_encoders import save_tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PARAMETERS = """
clap: {model: clap, window_s: 2.0}
clip: {model: clip}
compare: {variants: {plain: {}}, seeds: [0], baselines: [chance], n_resamples: 50}
train: {epochs: 1}
"""
PAIR = "weights_dir=models,music=clap,video=clip"
ZERO_SHOT = f"variant=zero_shot,{PAIR}"


@pytest.fixture
def with_models(project, monkeypatch):
    """A project folder with the two models, and the current one."""
    for name in ("clap", "clip"):
        save_tiny(name, project.folder / "models/encoders" / name)
    (project.folder / "conf/local/parameters.yml").write_text(PARAMETERS)
    monkeypatch.chdir(project.folder)
    return project


def recommend(*arguments):
    done = CliRunner().invoke(cli, ["recommend", *map(str, arguments), "--weights-dir", "models", "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_all_steps_run_without_training_and_training_starts_there(with_models):
    media = with_models.folder / "data/01_raw/demo"
    make_demo_collection(media, DemoSpec(n_pairs=16, min_duration_s=3, max_duration_s=4))
    output = with_models.kedro("run", "--pipelines=zero_shot,embed,index", "--params", ZERO_SHOT)
    assert "Retrieval of" in output
    place = with_models.folder / "data/06_models/demo/zero_shot/checkpoint"
    start = load_checkpoint(place)
    assert start.best_epoch == 0 and start.model_config["music_tower"] == "projection"
    assert len(start.params["zero_shot"]["anchors"]) == start.model_config["embedding_dim"]

    video = sorted((media / "video").iterdir())[0]
    assert len(recommend(video, "--variant", "zero_shot", "--top-k", 3)["results"]) == 3
    wanted, excluded = (recommend("--text", text, "--variant", "zero_shot") for text in ("calm", "not calm"))
    first, last = ([item["id"] for item in found["results"]] for found in (wanted, excluded))
    assert len(first) == len(last) == 10 and first[0] not in last[:1]
    assert wanted["direction"] == "text_to_music" and wanted["remark"].startswith("What these scores") is False

    with_models.kedro("run", "--pipeline", "train", "--params", f"{PAIR},train.start_from={place}")
    with_models.kedro("run", "--pipeline", "compare", "--params", PAIR)
    kept = load_checkpoint(with_models.folder / "data/06_models/demo/clap-clip/checkpoint")
    assert kept.model_config["music_tower"] == "projection"
    comparison = json.loads((with_models.folder / "data/08_reporting/demo/clap-clip/comparison.json").read_text())
    assert comparison["rows"][-1]["name"] == "zero-shot"


def test_a_library_is_searched_by_words_without_pairs_and_training(with_models):
    with_models.kedro("run", "--pipeline", "train", "--params", ZERO_SHOT)  # there are no media
    place = with_models.folder / "data/06_models/demo/zero_shot/checkpoint"
    (with_models.folder / "tracks").mkdir()
    for k in range(3):
        make_clip(with_models.folder / f"tracks/t{k}.ogg", seed=k, duration_s=7.0)
    settings = f"library=tracks,checkpoint={place},weights_dir=models,pieces.window_s=4,pieces.hop_s=2"
    with_models.kedro("run", "--pipelines=ingest,extract,embed,index", "--params", settings)
    (folder,) = Path("data/07_model_output").glob("library-*/library")
    found = recommend("--text", "calm piano", "--index-dir", folder, "--checkpoint", place)
    assert {item["id"] for item in found["results"]} == {"t0", "t1", "t2"}
