"""Shared by all tests: a project folder of its own, so that no test touches the data of the checkout."""

from __future__ import annotations

import json
import os
import signal
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from absl import logging as absl_logging

from kedro_project import ROOT, Project, make_project
from scheduling import GroupScheduling, name_group, rank

PROCESS_FOLDERS = tuple(str(ROOT / "tests" / name) for name in ("compat", "e2e", "notebooks", "packaging", "serving"))
PROCESS_FIXTURES = {"demo_project", "other_forms", "project", "reference_checkpoints"}

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers divide the cores, so that threads do not wait for one another
    n_cores = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, n_cores)))

# It comes with OpenVINO and would take pytest's own stream, and close it when Kedro sets up logging inside a CliRunner.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__

# A shell has its background ignore these, and what is started inherits that. A handler is not inherited.
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return GroupScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if str(item.path).startswith(PROCESS_FOLDERS) or PROCESS_FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.process)
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: rank(name_group(item.nodeid)))


@pytest.fixture(autouse=True)
def _one_precision(monkeypatch):
    """No test but those of the measurement depends on how fast a network is on this machine."""
    from vmnet_pipeline.backends import calibration

    monkeypatch.setattr(calibration, "list_precisions", lambda: ["f32"])


@pytest.fixture(scope="session")
def demo_project(tmp_path_factory) -> Project:
    """A project with a small demo collection that `kedro run` has been through once."""
    project = make_project(tmp_path_factory.mktemp("demo") / "project")
    from vmnet_pipeline.demo import DemoSpec, make_demo_collection

    make_demo_collection(project.folder / "data/01_raw/demo", DemoSpec(n_pairs=20, min_duration_s=4, max_duration_s=5))
    output = project.kedro("run", "--params", "train.epochs=15")
    (project.folder / "output.txt").write_text(output)
    return project


@pytest.fixture
def project(tmp_path) -> Project:
    """An empty project."""
    return make_project(tmp_path / "project")


@pytest.fixture
def remote():
    """A folder of an object store that no other test knows."""
    from vmnet_pipeline.storage.paths import as_path

    return as_path(f"memory://bucket-{uuid.uuid4().hex}/project")


@pytest.fixture(scope="session")
def reference_checkpoints(tmp_path_factory) -> Path:
    """A folder with `vggish` and `musicnn`, each as the reference's training leaves its summaries_dir."""
    import reference_graph

    folder = tmp_path_factory.mktemp("reference")
    reference_graph.write_checkpoints(folder, 1799, "vggish", "musicnn")
    return folder


@pytest.fixture(scope="session")
def measured():
    """An evaluation of noisy pairs, for what lays it out or logs it."""
    from sample_evaluation import evaluate_noisy_pairs

    return evaluate_noisy_pairs()


@pytest.fixture
def evaluation(measured) -> dict[str, Any]:
    """As it comes back from its JSON file."""
    return json.loads(json.dumps(measured.to_dict()))
