"""What a run writes down about its stages, through Kedro itself."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner

from vmnet_pipeline.datasets import StageLogDataset
from vmnet_pipeline.tracking import stages
from vmnet_pipeline.tracking.stages import StageHooks, describe_command, read_stages

MIB = 2**20


def fill(n_mib):
    return np.ones(n_mib * MIB // 8).sum()


def run(folder, pipeline, hooks=None, **datasets):
    """Run a pipeline with the hooks; inputs are datasets or plain values."""
    catalog = DataCatalog(
        {name: value if isinstance(value, MemoryDataset) else MemoryDataset(value) for name, value in datasets.items()}
    )
    if folder is not None:
        catalog["stage_log"] = StageLogDataset(filepath=str(folder))
    manager = _create_hook_manager()
    manager.register(hooks or StageHooks())
    manager.hook.before_pipeline_run(run_params={"runtime_params": {"seed": 3}}, pipeline=pipeline, catalog=catalog)
    SequentialRunner().run(pipeline, catalog, manager)
    manager.hook.after_pipeline_run(run_params={}, run_result={}, pipeline=pipeline, catalog=catalog)
    return {stage["name"]: stage for stage in read_stages(folder)} if folder is not None else {}


def test_every_node_has_its_own_time_and_memory(tmp_path):
    pipeline = Pipeline([node(fill, "large", "a", name="large"), node(fill, ["small"], "b", name="small")])
    others = stages._measure_workers(stages._find_workers())  # children that earlier tests keep
    found = run(tmp_path / "log", pipeline, large=400, small=1)
    assert set(found) == {"large", "small"}
    assert found["large"]["memory_bytes"] - found["small"]["memory_bytes"] > 300 * MIB
    assert found["large"]["n_runs"] == 1
    assert found["large"]["command"] == "kedro run --params=seed=3"
    assert found["large"]["workers_bytes"] <= 1.1 * others


class SlowDataset(MemoryDataset):
    seconds = 0.0

    def save(self, data):
        time.sleep(self.seconds)
        super().save(data)


def test_saving_counts_and_the_longest_run_stands(tmp_path, monkeypatch):
    pipeline = Pipeline([node(lambda x: (x, x), "x", ["quick", "slow"], name="work")])
    monkeypatch.setattr(SlowDataset, "seconds", 0.3)
    first = run(tmp_path, pipeline, x=1, slow=SlowDataset())["work"]
    assert first["seconds"] == first["last_s"] >= 0.3
    monkeypatch.setattr(SlowDataset, "seconds", 0.0)
    again = run(tmp_path, pipeline, x=1, slow=SlowDataset())["work"]
    assert again["seconds"] == first["seconds"]
    assert again["last_s"] < first["seconds"]
    assert again["n_runs"] == 2


@pytest.mark.process
def test_worker_processes_are_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "WATCH_EVERY_S", 0.02)
    program = "import sys; block = bytearray(120 * 2**20); print(len(block), flush=True); sys.stdin.read()"
    hooks = StageHooks()
    others = stages._measure_workers(stages._find_workers())  # children that earlier tests keep

    def work(x):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", program], text=True, **pipes) as worker:
            worker.stdout.readline()
            deadline = time.monotonic() + 20
            while hooks._workers.peak_bytes < others + 100 * MIB and time.monotonic() < deadline:
                time.sleep(0.02)
        return x

    found = run(tmp_path, Pipeline([node(work, "x", "y", name="work")]), hooks, x=1)
    assert 100 * MIB < found["work"]["workers_bytes"] - others < 300 * MIB
    assert hooks._workers._stopped.is_set()


def test_damaged_records_are_left_out_and_written_anew(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "work.json").write_text("{")
    (folder / "other.json").write_text(json.dumps({"name": "other", "colour": 3}))
    assert read_stages(folder) == []
    found = run(folder, Pipeline([node(fill, "n", "y", name="work")]), n=1)
    assert found["work"]["n_runs"] == 1


def test_a_catalog_without_a_log_gets_none():
    assert run(None, Pipeline([node(fill, "n", "y", name="work")]), n=1) == {}


@pytest.mark.parametrize(
    ("params", "command"),
    [
        ({}, "kedro run"),
        ({"pipeline_names": ["__default__"], "env": "local"}, "kedro run"),
        ({"pipeline_names": ["embed", "index"], "env": "cuda"}, "kedro run --pipelines=embed,index --env=cuda"),
        (
            {"runtime_params": {"media_dir": "/my media", "train": {"epochs": 5, "top_k": None, "shuffle": True}}},
            "kedro run --params='media_dir=/my media,train.epochs=5,train.top_k=null,train.shuffle=true'",
        ),
    ],
)
def test_the_command_can_be_typed_again(params, command):
    assert describe_command(params) == command
