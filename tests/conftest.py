"""Shared by all tests: a project folder of its own, so that no test touches the data of the checkout."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from kedro_project import Project, make_project


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
