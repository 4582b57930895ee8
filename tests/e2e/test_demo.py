"""What the demo promises: matching is learnable, not trivial, and falls to chance when the pairs are mismatched."""

import json

import pytest

from vmnet_pipeline.demo import make_demo_collection

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def read_evaluation(project):
    return json.loads((project.folder / "data/08_reporting/demo/vmnet_musicnn/evaluation.json").read_text())


def test_the_demo_is_learnable_and_not_trivial(project):
    make_demo_collection(project.folder / "data/01_raw/demo")
    project.kedro("run", timeout=1200)
    evaluation = read_evaluation(project)
    assert evaluation["pool_size"] >= 40
    for figures in evaluation["directions"].values():
        for k in ("5", "10"):
            assert figures["recall"][k]["low"] > figures["recall"][k]["chance"]
        assert figures["recall"]["1"]["value"] < 0.9

    project.kedro("run", "--pipeline", "evaluate", "--params", "shuffle_pairs=true")
    shuffled = read_evaluation(project)
    assert shuffled["shuffled"]
    for figures in shuffled["directions"].values():
        for k in ("5", "10"):
            assert figures["recall"][k]["low"] <= figures["recall"][k]["chance"]
