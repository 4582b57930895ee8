"""A Kedro project in a temporary folder, for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

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


LIGHT = {
    "variants.yml": ("variant, vmnet_fused}", "variant, vmnet_musicnn}"),
    "train.yml": ("protocol: best", "protocol: default"),
}
"""What tests about other things are run with, as it is quicker: one backend a side, and one network."""


def make_project(folder: Path, *, light: bool = True) -> Project:
    """A project of this checkout; its configuration takes `LIGHT` for the default unless `light` is False."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("pyproject.toml", ".telemetry", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    (folder / "conf" / "local").mkdir()
    for name, (usual, quick) in LIGHT.items() if light else ():
        path = folder / "conf" / "base" / "parameters" / name
        text = path.read_text()
        assert usual in text
        path.write_text(text.replace(usual, quick))
    # With what Python has compiled, but for files that it is writing.
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.pyc.*"))
    if WEIGHTS.exists():
        (folder / "data" / "06_models").mkdir(parents=True)
        (folder / "data" / "06_models" / "weights").symlink_to(WEIGHTS)
    return Project(folder)
