"""Variants with two backends a side, from media files to recommendations, as a person types it."""

import json

import pytest
from mlflow.tracking import MlflowClient

from vmnet_pipeline.demo import DemoSpec, make_demo_collection
from vmnet_pipeline.models.checkpoints import load_checkpoint

pytestmark = pytest.mark.slow

VARIANTS = """
variants:
  pair:
    music: [musicnn, descriptors_audio]
    video: [descriptors_video]
"""


def test_a_variant_of_ones_own_goes_the_whole_way(project):
    media = project.folder / "data/01_raw/demo"
    make_demo_collection(media, DemoSpec(n_pairs=16, min_duration_s=4, max_duration_s=5))
    (project.folder / "conf/local/parameters.yml").write_text(VARIANTS)
    settings = "variant=pair,weights=random,train.epochs=3,train.part_weights.descriptors_audio=2"
    output = project.kedro("run", "--params", settings)
    assert "\npair\n" in output
    assert "Retrieval of" in output
    checkpoint = load_checkpoint(project.folder / "data/06_models/demo/pair/checkpoint")
    assert [part.backend for part in checkpoint.fingerprints["audio"].parts] == ["musicnn", "descriptors_audio"]
    first, second = checkpoint.parts["music"]
    assert (first.width, second.width) == (200, 47)
    assert second.weight > 2.0 * first.weight
    assert checkpoint.model_config["video_shape"] == [31]
    assert checkpoint.params["seed"] == 17  # of conf/base, beside what --params and conf/local say
    report = (project.folder / "data/08_reporting/demo/pair/report.html").read_text()
    assert "VM-NET on musicnn and descriptors_audio and descriptors_video" in report
    assert "Features: descriptors_audio" in report
    assert "weights of the backends" in report
    client = MlflowClient(f"sqlite:///{project.folder / 'mlflow.db'}")
    (experiment,) = [found for found in client.search_experiments() if found.name == "demo"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert float(run.data.params["part_weights.music.descriptors_audio"]) == second.weight

    project.kedro("run", "--pipelines=embed_pair,index_pair", "--params", "weights=random")
    video = sorted((media / "video").iterdir())[0]
    output = project.kedro("recommend", str(video), "--variant", "pair", "--top-k", "3", "--json")
    assert len(json.loads(output[output.index("{") :])["results"]) == 3
    output = project.kedro("run", "--pipeline", "extract_musicnn", "--params", "weights=random")
    assert "musicnn: 16 items, 0 to extract" in output
    assert "no variant 'pear'" in project.kedro("run", "--params", "variant=pear", ok=False)
