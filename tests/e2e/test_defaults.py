"""`kedro run` as it comes: the variant and protocol of the project's configuration."""

import json

import pytest

from kedro_project import make_project
from vmnet_pipeline.demo import DemoSpec, make_demo_collection
from vmnet_pipeline.models.checkpoints import load_checkpoint
from vmnet_pipeline.params import VARIANTS

pytestmark = pytest.mark.long


def test_the_default_goes_the_whole_way(tmp_path):
    project = make_project(tmp_path / "project", light=False)
    media = project.folder / "data/01_raw/demo"
    make_demo_collection(media, DemoSpec(n_pairs=10, min_duration_s=4, max_duration_s=4.5))
    output = project.kedro("run", "--params", "weights=random")
    assert "\nvmnet_fused\n" in output
    checkpoint = load_checkpoint(project.folder / "data/06_models/demo/vmnet_fused/checkpoint")
    backends = [part.backend for side in ("audio", "video") for part in checkpoint.fingerprints[side].parts]
    assert tuple(backends) == VARIANTS["vmnet_fused"].backends
    assert (checkpoint.params["protocol"], len(checkpoint.params["members"])) == ("best", 3)

    project.kedro("run", "--pipelines=embed,index", "--params", "weights=random")
    video = sorted((media / "video").iterdir())[0]
    output = project.kedro("recommend", str(video), "--top-k", "3", "--json")
    assert len(json.loads(output[output.index("{") :])["results"]) == 3
