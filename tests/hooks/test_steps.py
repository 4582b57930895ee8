"""One line for each step of a run."""

import logging
import os
import re
import subprocess
import sys
import time

import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner, ThreadRunner

from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.hooks.steps import StepHooks


class SlowDataset(MemoryDataset):
    def save(self, data):
        time.sleep(0.2)
        super().save(data)


def make_pair(x):
    return x, x


@pytest.mark.parametrize("runner", [SequentialRunner, ThreadRunner])
def test_a_step_has_one_line_with_the_time_of_loading_and_saving(caplog, runner):
    caplog.set_level(logging.INFO, logger="vmnet_pipeline")
    pipeline = Pipeline(
        [
            node(lambda: 1, None, "x", name="begin"),
            node(make_pair, "x", ["quick", "slow"], name="pair"),
            node(lambda a, b: a + b, ["quick", "slow"], "sum", name="add"),
        ]
    )
    catalog = DataCatalog({"slow": SlowDataset()})
    manager = _create_hook_manager()
    manager.register(StepHooks())
    for _ in range(2):  # a session may run more than once
        caplog.clear()
        manager.hook.before_pipeline_run(run_params={}, pipeline=pipeline, catalog=catalog)
        runner().run(pipeline, catalog, manager)
        manager.hook.after_pipeline_run(run_params={}, run_result={}, pipeline=pipeline, catalog=catalog)
        lines = [record.getMessage() for record in caplog.records if record.name.startswith("vmnet_pipeline")]
        assert [re.sub(r"[\d.]+ s$", "", line) for line in lines] == [
            "step 1 of 3: begin, ", "step 2 of 3: pair, ", "step 3 of 3: add, ", "3 steps in ",
        ]  # fmt: skip
        seconds = [float(re.search(r"([\d.]+) s$", line)[1]) for line in lines]
        assert seconds[1] >= 0.2
        assert seconds[3] >= seconds[1]


OWN_LOGGING = """
version: 1
disable_existing_loggers: false
formatters: {plain: {format: "%(name)s|%(message)s"}}
handlers: {file: {class: logging.FileHandler, filename: own.log, formatter: plain}}
loggers: {kedro: {level: INFO}, vmnet_pipeline: {level: WARNING}}
root: {handlers: [file]}
"""


@pytest.mark.process
def test_kedros_lines_are_left_out_but_not_from_a_configuration_of_ones_own(tmp_path):
    (tmp_path / "media").mkdir()
    make_clip(tmp_path / "media/a.mp4", seed=1, duration_s=1.0, width=64, height=48)
    (tmp_path / "own.yml").write_text(OWN_LOGGING)

    def ingest(**environment):
        command = [sys.executable, "-m", "vmnet_pipeline", "--pipeline", "ingest", "--params", "media_dir=media"]
        env = {**os.environ, **environment}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr, done.stdout

    log, shown = ingest()
    assert "step 1 of 1: ingest_media, " in log
    assert "Running node" not in log
    assert "Completed" not in log
    assert shown.splitlines()[-1] == "Next        vmnet-pipeline run --params=media_dir=media"
    ingest(KEDRO_LOGGING_CONFIG=str(tmp_path / "own.yml"))
    own = (tmp_path / "own.log").read_text()
    assert "kedro.pipeline.node|Running node: ingest_media" in own
    assert "step 1 of 1" not in own
