"""What `kedro serve` says before it serves, and how it starts and ends as a process."""

import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from vmnet_pipeline.cli import cli
from vmnet_pipeline.commands.serve import read_settings
from vmnet_pipeline.errors import ParameterError

sys.path.insert(0, str(Path(__file__).parents[1] / "torture"))
from serve_process import ServeProcess, find_port, make_project


def test_settings_are_read_as_yaml():
    params = read_settings(("max_upload_mb=2.5", "allowed_hosts=[a.example, b.example]", "n_workers = 2"))
    assert params.max_upload_bytes == 2_621_440
    assert (params.allowed_hosts, params.n_workers) == (("a.example", "b.example"), 2)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("max_upload_mb", "write NAME=VALUE"),
        ("max_upload_mb=0", "max_upload_mb: .*greater than 0, not 0"),
        ("max_upload=1", "max_upload: unknown limit; did you mean max_upload_mb"),
        ("nothing=1", "nothing: unknown limit; docs/parameters.md lists all"),
        ("n_workers=[", "n_workers=\\[: not valid YAML"),
    ],
)
def test_wrong_settings_are_named(setting, message):
    with pytest.raises(ParameterError, match=message):
        read_settings((setting,))


def test_a_collection_without_an_index_is_an_error_with_a_remedy(tmp_path):
    done = CliRunner().invoke(cli, ["serve", "--index-dir", str(tmp_path)])
    assert done.exit_code == 1
    assert "there is no search index" in done.output
    assert "kedro run --pipelines=embed,index" in done.output


def test_the_command_serves_until_it_is_told_to_end(places, tmp_path):
    make_project(tmp_path / "project")
    process = ServeProcess(tmp_path / "project", places, port=find_port(), settings=["max_top_k=2"])
    try:
        process.start("/healthz")
        address = f"http://127.0.0.1:{process.port}/v1/recommendations"
        assert len(httpx.post(address, json={"id": "0001", "top_k": 5}, timeout=60).json()["results"]) == 2
        assert process.end() in (0, -15)
    finally:
        process.end(9)
    log = process.log.read_text()
    assert f"http://127.0.0.1:{process.port}/" in log
    assert "Traceback" not in log
    assert list(process.temporary.glob("vmnet-uploads-*")) == []
