"""What `kedro serve` says before it serves."""

import socket

import pytest
from click.testing import CliRunner

from vmnet_pipeline.cli import cli
from vmnet_pipeline.commands.settings import read_settings
from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.serving.config import ServeParams


def test_settings_are_read_as_yaml():
    params = read_settings(("max_upload_mb=2.5", "allowed_hosts=[a.example, b.example]", "n_workers = 2"), ServeParams)
    assert params.max_upload_bytes == 2_621_440
    assert (params.allowed_hosts, params.n_workers) == (("a.example", "b.example"), 2)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("max_upload_mb", "write NAME=VALUE"),
        ("max_upload_mb=0", "max_upload_mb: .*greater than 0, not 0"),
        ("max_upload=1", "max_upload: unknown setting; did you mean max_upload_mb"),
        ("nothing=1", "nothing: unknown setting; docs/parameters.md lists all"),
        ("n_workers=[", "n_workers=\\[: not valid YAML"),
    ],
)
def test_wrong_settings_are_named(setting, message):
    with pytest.raises(ParameterError, match=message):
        read_settings((setting,), ServeParams)


def test_a_collection_without_an_index_is_an_error_with_a_remedy(tmp_path):
    done = CliRunner().invoke(cli, ["serve", "--index-dir", str(tmp_path)])
    assert done.exit_code == 1
    assert "there is no search index" in done.output
    assert "kedro run --pipelines=embed,index" in done.output


def test_a_port_in_use_is_told_before_anything_is_loaded(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = CliRunner().invoke(cli, ["serve", "--port", str(port), "--index-dir", str(tmp_path)])
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: port {port} of 127.0.0.1 is in use. Give another one with --port")
    assert "Page and interface" not in done.output


def test_a_host_that_is_not_here_is_told(tmp_path):
    for host in ("192.0.2.1", "no host of this name", "x" * 300):
        done = CliRunner().invoke(cli, ["serve", "--host", host, "--index-dir", str(tmp_path)])
        assert done.exit_code == 1
        assert done.output.startswith(f"Error: --host {host}: ")
