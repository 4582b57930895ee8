"""Event files read back by TensorFlow, which checks every checksum."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from vmnet_pipeline.tracking.event_files import append_event, write_events
from vmnet_pipeline.tracking.runs import EventLog
from vmnet_pipeline.types import EpochRecord

pytestmark = pytest.mark.process

READER = """
import json, sys
import tensorflow as tf
rows = []
for path in sys.argv[1:]:
    events = tf.compat.v1.train.summary_iterator(path)
    rows.append([[e.file_version, e.step, {v.tag: v.simple_value for v in e.summary.value}] for e in events])
print(json.dumps(rows))
"""


def make_record(epoch: int) -> EpochRecord:
    return EpochRecord(epoch, 10 * epoch, {"total": 1.0 / epoch, "xy": 0.5}, 2.0, 3e-4, {"mrr": 0.25}, 0.125)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """What TensorFlow reads of a plain file, and of the file of a training that was interrupted once."""
    folder = tmp_path_factory.mktemp("events")
    plain = folder / "events.out.tfevents.x"
    write_events(plain, [(1, {"train/loss": 0.5, "ü": -1.5}), (300, {"train/loss": 0.25})])
    append_event(plain, 70_000, {"train/loss": float("nan")})
    records = [make_record(epoch) for epoch in (1, 2, 3)]
    stale = EventLog(folder)
    stale.add(make_record(1))
    interrupted = EventLog(folder)
    interrupted.add(records[0])
    interrupted.add(records[1])
    resumed = EventLog(folder)
    resumed.add(records[2])
    training = folder / "train" / "events.out.tfevents.train"
    live = folder / "live"
    live.write_bytes(training.read_bytes())
    resumed.finish(records)
    command = [sys.executable, "-c", READER, str(plain), str(live), str(training)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_tensorflow_reads_what_was_written(rows):
    header, first, second, third = rows[0]
    assert header[:2] == ["brain.Event:2", 0]
    assert first == ["", 1, {"train/loss": 0.5, "ü": -1.5}]
    assert second == ["", 300, {"train/loss": 0.25}]
    assert third[1] == 70_000
    assert third[2]["train/loss"] != third[2]["train/loss"]


@pytest.mark.parametrize("file", [1, 2], ids=["while it grows", "at the end"])
def test_a_training_that_was_interrupted_has_every_epoch_once(rows, file):
    _, *epochs = rows[file]
    assert [row[1] for row in epochs] == [1, 2, 3]
    assert epochs[1][2]["train/loss"] == 0.5
    assert {"train/val_mrr", "train/grad_norm", "train/xy", "train/steps"} <= epochs[0][2].keys()
