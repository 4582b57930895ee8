"""Names that look like options or numbers are arguments like any other."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from vmnet_pipeline.cli import cli


@pytest.mark.parametrize("arguments", [
    ("--", "-aBc_1.mp4"),
    ("--top-k", "3", "--", "--help.mp4"),
    ("--music", "-aBc_1.mp3"),
    ("--collection", "007", "_x9.mp4"),
    ("--collection", "-aBc", "2024"),
])  # fmt: skip
def test_files_and_collections_may_begin_with_a_dash(tmp_path, arguments):
    done = CliRunner().invoke(cli, ["recommend", "--index-dir", str(tmp_path), *arguments])
    assert done.exit_code == 1, done.output  # understood; there is no index here
    assert "index" in done.output


def test_a_collection_of_digits_is_that_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["recommend", "--collection", "007", "x.mp4"])
    assert "07_model_output/007/" in done.output


def test_a_missing_folder_is_called_that(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (["recommend", "x.mp4"], ["serve", "--port", "0"]):
        done = CliRunner().invoke(cli, [*command, "--media-dir", "no/such"])
        assert done.exit_code == 1
        assert "Error: There is no no/such, and nothing is trained" in done.output


@pytest.mark.process
def test_nothing_heavy_is_imported_for_the_help_of_a_command():
    code = "import sys; import vmnet_pipeline.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"pydantic", "numpy", "pandas", "torch", "mlflow", "kedro", "omegaconf", "fsspec", "yaml"}
    assert heavy.isdisjoint(loaded)
