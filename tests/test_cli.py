"""Names that look like options or numbers are arguments like any other."""

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
