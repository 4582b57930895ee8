"""How commands end when something is wrong."""

import click
import pytest
from click.testing import CliRunner

from vmnet_pipeline.cli import cli
from vmnet_pipeline.commands.errors import report_errors
from vmnet_pipeline.errors import ParameterError


@pytest.mark.parametrize(
    ("error", "others", "is_told"),
    [
        (ParameterError("what to do"), (), True),
        (PermissionError("what to do"), (OSError,), True),
        (PermissionError("what to do"), (), False),
        (KeyError("what to do"), (OSError,), False),
    ],
)
def test_only_errors_on_purpose_are_told_in_a_sentence(error, others, is_told):
    @click.command()
    @report_errors(*others)
    def fail():
        raise error

    for _ in range(2):
        done = CliRunner().invoke(fail)
        assert done.exit_code == 1
        assert (done.output == "Error: what to do\n") == is_told
        assert isinstance(done.exception, SystemExit if is_told else type(error))


def test_nothing_to_fetch_is_a_wrong_call(tmp_path):
    done = CliRunner().invoke(cli, ["weights", "fetch", "--weights-dir", str(tmp_path)])
    assert done.exit_code == 2
    assert "NAMES" in done.output


def test_weights_that_nobody_knows_are_told(tmp_path):
    done = CliRunner().invoke(cli, ["weights", "fetch", "nothing", "--weights-dir", str(tmp_path)])
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
    assert "nothing" in done.output
