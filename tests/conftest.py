"""Shared by all tests: a project folder of its own, so that no test touches the data of the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "data" / "06_models" / "weights"


@dataclass(frozen=True)
class Project:
    """A Kedro project in a temporary folder that runs this checkout's code and configuration."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "kedro", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DO_NOT_TRACK": "1", "COLUMNS": "200", "TF_CPP_MIN_LOG_LEVEL": "3"}

    def kedro(self, *arguments: str, ok: bool = True, timeout: float = 400) -> str:
        """Run a kedro command; what it printed. A failing one fails the test, unless `ok` is False."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert (done.returncode == 0) is ok, done.stdout[-6000:]
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a kedro command in a process group of its own, to be killed by the test."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )


def make_project(folder: Path) -> Project:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("pyproject.toml", ".telemetry", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    (folder / "conf" / "local").mkdir()
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    if WEIGHTS.exists():
        (folder / "data" / "06_models").mkdir(parents=True)
        (folder / "data" / "06_models" / "weights").symlink_to(WEIGHTS)
    return Project(folder)


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
