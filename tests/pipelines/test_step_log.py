"""What a training writes between steps, read back by TensorFlow."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tiny_pairs import draw_pairs, narrow_params
from vmnet_pipeline.models.checkpoints import Checkpoint, load_checkpoint
from vmnet_pipeline.pipelines.train.step_log import StepLog
from vmnet_pipeline.training import train_model

TRAIN, TEST = draw_pairs(26, 1), draw_pairs(20, 2)
REFERENCE = {"protocol": "reference", "epochs": 4, "batch_size": 8, "curve_every_steps": 5, "keep_every_steps": 4}
TAGS = {"triplet_loss", "K", "lambda", "learning_rate"}
TAGS |= {f"recall/{direction}_R@{k}" for direction in ("xy", "yx") for k in (1, 5, 10, 20, 50, 100)}
READER = """
import json, sys
import tensorflow as tf
rows = []
for path in sys.argv[1:]:
    for event in tf.compat.v1.train.summary_iterator(path):
        if event.summary.value:
            rows.append([path.split("/")[-2], event.step, {v.tag: v.simple_value for v in event.summary.value}])
print(json.dumps(rows))
"""


class Killed(BaseException):
    pass


def kill_after(epoch):
    def kill(record):
        if record.epoch == epoch:
            raise Killed

    return kill


def train(folder, on_epoch=None, **given):
    params = narrow_params(**{**REFERENCE, **given})
    log = StepLog(folder, params, TEST, Checkpoint({}, {}, params={"seed": 0}))
    return train_model(TRAIN, None, params, state_dir=folder / "state", on_step=log, on_epoch=on_epoch)


def read_events(folder):
    paths = sorted(str(path) for path in (folder / "logs/original").rglob("events.out.tfevents.*"))
    done = subprocess.run([sys.executable, "-c", READER, *paths], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training of 12 steps that was killed after 6 of them and went on."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder, epochs=1, seed=3)  # another one that was there before
    with pytest.raises(Killed):
        train(folder, on_epoch=kill_after(2))
    return folder, train(folder)


@pytest.mark.process
def test_tags_and_steps_are_those_of_the_original(trained):
    folder, result = trained
    rows = read_events(folder)
    assert [(side, step) for side, step, _ in rows] == [("test", 4), ("test", 9), ("train", 4), ("train", 9)]
    for _, _, scalars in rows:
        assert scalars.keys() == TAGS
        assert (scalars["K"], scalars["lambda"]) == (1024, 0)
        assert scalars["learning_rate"] == pytest.approx(result.history[0].lr)
        assert scalars["recall/xy_R@10"] == 1  # of 8 items
        assert 0 <= scalars["recall/xy_R@1"] <= 1
    assert rows[3][2]["triplet_loss"] < rows[2][2]["triplet_loss"]


def test_the_log_is_that_of_all_steps(trained):
    lines = (trained[0] / "log.txt").read_text().splitlines()
    marks = [line.split("] ", 1)[1] for line in lines]
    for word in ("[iter 5] (ranking_xy ", "[TEST iter 10] loss=", "[Checkpoint at step 12 saved]"):
        assert sum(mark.startswith(word) for mark in marks) == 1, word


def test_kept_checkpoints_are_whole_and_the_last_one_is_the_result(trained):
    folder, result = trained
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-12", "step-4", "step-8"]
    last = load_checkpoint(folder / "checkpoints/step-12")
    assert last.params == {"seed": 0, "step": 12}
    assert all((last.tensors[name] == tensor).all() for name, tensor in result.tensors.items())
    early = load_checkpoint(folder / "checkpoints/step-4")
    assert (early.tensors["video.fc.weight"] != last.tensors["video.fc.weight"]).any()


def test_curves_of_the_test_pairs_are_for_the_reference_protocol_only():
    with pytest.raises(ValueError, match="only protocol 'reference' does"):
        narrow_params(curve_every_steps=10)
    assert narrow_params(keep_every_steps=10).keep_every_steps == 10
    assert narrow_params(protocol="reference").curve_every_steps == 10
