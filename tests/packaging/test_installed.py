"""The wheel, built from the sdist, installed beside nothing of the checkout, and run from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from vmnet_pipeline.demo import make_clip

ROOT = Path(__file__).parents[2]
NOT_SHIPPED = {"local", "test"}  # private settings; nothing yet


@dataclass(frozen=True)
class Installation:
    """The program as a user has it.

    Attributes:
        site: Folder that holds the installed package and its script.
        wheel: What was installed.
        sdist: What the wheel was built from.
    """

    site: Path
    wheel: Path
    sdist: Path

    def run(self, *arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        unset = ("KEDRO_", "VMNET_", "MLFLOW_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
        return subprocess.run(
            [sys.executable, str(self.site / "bin/vmnet-pipeline"), *arguments],
            cwd=folder,
            env={**kept, "PYTHONPATH": str(self.site), **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.fixture(scope="module")
def installation(tmp_path_factory) -> Installation:
    folder = tmp_path_factory.mktemp("dist")
    _run("hatchling", "build", "-t", "sdist", "-d", str(folder), folder=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    _run("hatchling", "build", "-t", "wheel", "-d", str(folder), folder=source)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    options = ("--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check", "--target", str(site))
    _run("pip", "install", *options, str(wheel), folder=folder)
    return Installation(site, wheel, sdist)


def _run(module: str, *arguments: str, folder: Path) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=folder, check=True, capture_output=True, timeout=300)


def test_the_wheel_has_all_settings_but_private_ones(installation):
    conf = ROOT / "conf"
    wanted = {
        f"vmnet_pipeline/conf/{path.relative_to(conf).as_posix()}"
        for path in conf.rglob("*")
        if path.is_file() and path.relative_to(conf).parts[0] not in NOT_SHIPPED
    }
    with zipfile.ZipFile(installation.wheel) as archive:
        shipped = {name for name in archive.namelist() if name.startswith("vmnet_pipeline/conf/")}
    assert shipped == wanted | {"vmnet_pipeline/conf/local/.gitkeep"}


def test_nothing_private_and_nothing_that_runs_made_is_in_the_sdist(installation):
    with tarfile.open(installation.sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert {"LICENSE", "requirements.lock", "tests/conftest.py"} <= {*names}
    data = [name for name in names if name.startswith("data/") and not name.endswith((".gitkeep", "README.md"))]
    local = [name for name in names if name.startswith("conf/local/") and not name.endswith(".gitkeep")]
    assert not data
    assert not local
    assert not [name for name in names if name.startswith((".venv", ".peers", "mlruns")) or name.endswith(".db")]


def test_a_run_in_an_empty_folder(installation, tmp_path):
    for name in ("a.mp4", "b.webm", "c.mkv"):
        make_clip(tmp_path / "media" / name, seed=ord(name[0]), duration_s=1.0, width=64, height=48)
    done = installation.run("run", "--pipelines", "ingest", "--params", "media_dir=media", folder=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path.name for path in tmp_path.iterdir()} <= {"data", "media", "mlflow.db", "mlruns"}
    assert len([*tmp_path.glob("data/02_intermediate/*/manifest.parquet")]) == 1
    assert "\x1b" not in done.stdout + done.stderr
    assert "Warning" not in done.stderr
    assert str(installation.site) not in done.stderr  # no traceback and no warning of a module


def test_settings_of_the_folder_come_before_those_of_the_package(installation, tmp_path):
    listed = installation.run("weights", "list", folder=tmp_path)
    assert "MSD_musicnn " in listed.stdout, listed.stderr
    (tmp_path / "conf/base").mkdir(parents=True)
    (tmp_path / "conf/base/weights.yml").write_text("{}")
    assert installation.run("weights", "list", folder=tmp_path).stdout == ""


def test_the_shell_completes_commands(installation, tmp_path):
    asked = {"_VMNET_PIPELINE_COMPLETE": "bash_complete", "COMP_WORDS": "vmnet-pipeline weights ve", "COMP_CWORD": "2"}
    assert installation.run(folder=tmp_path, **asked).stdout == "plain,verify\n"
    script = installation.run(folder=tmp_path, _VMNET_PIPELINE_COMPLETE="zsh_source").stdout
    assert script.startswith("#compdef vmnet-pipeline")
